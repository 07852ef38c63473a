"""Observation and action spaces as JSON, and back; what a stranger's file says is checked before anything is built."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import numpy as np
from gymnasium import spaces
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from rlctl.core.errors import PolicyError, one_line

MAX_NUMBERS = 1_000_000
"""More numbers in an observation, or choices in an action, than any network here reads or gives."""

Length = Annotated[int, Field(ge=1, le=MAX_NUMBERS)]
Bound = int | float | None
"""None: unbounded."""


class _Space(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class BoxSpace(_Space):
    """Arrays of numbers; ``low`` and ``high`` are one number for all, or a flat list in C order."""

    type: Literal["Box"]
    shape: list[Annotated[int, Field(ge=0, le=MAX_NUMBERS)]] = Field(max_length=32)
    dtype: Literal[
        "float16", "float32", "float64", "int8", "int16", "int32", "int64",
        "uint8", "uint16", "uint32", "uint64", "bool",
    ]  # fmt: skip
    low: Bound | list[Bound]
    high: Bound | list[Bound]


class DiscreteSpace(_Space):
    """One of n choices."""

    type: Literal["Discrete"]
    n: Length
    start: int = Field(default=0, ge=-(2**31), le=2**31)


class MultiDiscreteSpace(_Space):
    """Several choices."""

    type: Literal["MultiDiscrete"]
    nvec: list[Length] = Field(min_length=1, max_length=MAX_NUMBERS)


class MultiBinarySpace(_Space):
    """Several times yes or no."""

    type: Literal["MultiBinary"]
    shape: list[Length] = Field(min_length=1, max_length=32)


class DictSpace(_Space):
    """Named parts, in this order."""

    type: Literal["Dict"]
    spaces: dict[str, Space] = Field(min_length=1, max_length=1000)


class TupleSpace(_Space):
    """Numbered parts."""

    type: Literal["Tuple"]
    spaces: list[Space] = Field(min_length=1, max_length=1000)


Space = Annotated[
    BoxSpace | DiscreteSpace | MultiDiscreteSpace | MultiBinarySpace | DictSpace | TupleSpace,
    Field(discriminator="type"),
]
DictSpace.model_rebuild()
TupleSpace.model_rebuild()
_SPACE: TypeAdapter[Any] = TypeAdapter(Space)


class Spaces(_Space):
    """What a policy reads and what it answers."""

    observation: Space
    action: Space


def describe(observation: spaces.Space[Any], action: spaces.Space[Any]) -> dict[str, Any]:
    """The two spaces, JSON-ready, as a manifest holds them: what passes here can be saved, and read back.

    Raises:
        PolicyError: a space is of a kind that has no flat form of fixed length, or too large.
    """
    data = {"observation": describe_space(observation), "action": describe_space(action)}
    for what, space in (("observation", observation), ("action", action)):
        count, shown = int(spaces.flatdim(space)), one_line(str(space))
        if not 1 <= count <= MAX_NUMBERS:
            advice = "fewer (gymnasium.wrappers has ResizeObservation)" if count else "some"
            raise PolicyError(
                f"{what}s of {shown} have {count:,} numbers, where 1 to {MAX_NUMBERS:,} can be learned and "
                f"saved: wrap the environment so that there are {advice}"
            )
        try:
            _SPACE.validate_python(data[what])
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise PolicyError(f"{what}s of {shown} cannot be saved: {first['msg']}") from None
    return data


def describe_space(space: spaces.Space[Any]) -> dict[str, Any]:
    """A space, JSON-ready.

    >>> describe_space(spaces.MultiDiscrete([3, 2]))
    {'type': 'MultiDiscrete', 'nvec': [3, 2]}

    Raises:
        PolicyError: it is of a kind that has no flat form of fixed length.
    """
    if isinstance(space, spaces.Box):
        bounds = {"low": _bound(space.low), "high": _bound(space.high)}
        return {"type": "Box", "shape": list(space.shape), "dtype": str(space.dtype), **bounds}
    if isinstance(space, spaces.Discrete):
        return {"type": "Discrete", "n": int(space.n), "start": int(space.start)}
    if isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1 and not np.any(space.start):
        return {"type": "MultiDiscrete", "nvec": [int(n) for n in space.nvec]}
    if isinstance(space, spaces.MultiBinary):
        return {"type": "MultiBinary", "shape": [int(n) for n in space.shape]}
    if isinstance(space, spaces.Dict):
        return {"type": "Dict", "spaces": {str(key): describe_space(part) for key, part in space.spaces.items()}}
    if isinstance(space, spaces.Tuple):
        return {"type": "Tuple", "spaces": [describe_space(part) for part in space.spaces]}
    raise PolicyError(
        f"space {one_line(str(space))}: a policy can be saved for Box, Discrete, MultiDiscrete (one row, from 0), "
        "MultiBinary, and Dict and Tuple of these"
    )


def build(said: BaseModel) -> spaces.Space[Any]:
    """The space that a manifest describes; raise PolicyError if it is too large, or contradicts itself."""
    if length(said) > MAX_NUMBERS:
        raise PolicyError(f"a space of more than {MAX_NUMBERS:,} numbers")
    return _build(said)


def length(said: BaseModel) -> int:
    """Numbers in the flat form of a described space, before anything of that size is made."""
    if isinstance(said, BoxSpace | MultiBinarySpace):
        return math.prod(said.shape)
    if isinstance(said, DiscreteSpace):
        return said.n
    if isinstance(said, MultiDiscreteSpace):
        return sum(said.nvec)
    if isinstance(said, DictSpace):
        return sum(length(part) for part in said.spaces.values())
    assert isinstance(said, TupleSpace)
    return sum(length(part) for part in said.spaces)


def _build(said: BaseModel) -> spaces.Space[Any]:
    if isinstance(said, BoxSpace):
        low, high = _array(said, said.low, -math.inf), _array(said, said.high, math.inf)
        if not (low <= high).all():
            raise PolicyError("a Box whose low is above its high")
        return spaces.Box(low, high, dtype=low.dtype.type)
    if isinstance(said, DiscreteSpace):
        return spaces.Discrete(said.n, start=said.start)
    if isinstance(said, MultiDiscreteSpace):
        return spaces.MultiDiscrete(said.nvec)
    if isinstance(said, MultiBinarySpace):
        return spaces.MultiBinary(said.shape[0] if len(said.shape) == 1 else said.shape)
    if isinstance(said, DictSpace):
        return spaces.Dict({key: _build(part) for key, part in said.spaces.items()})
    assert isinstance(said, TupleSpace)
    return spaces.Tuple([_build(part) for part in said.spaces])


def _bound(values: Any) -> Any:
    values = values.astype(np.int8) if values.dtype == np.bool_ else values
    numbers = [value if math.isfinite(value) else None for value in np.ravel(values).tolist()]
    return numbers[0] if len(set(numbers)) == 1 else numbers


def _array(said: BoxSpace, bound: Any, unbounded: float) -> Any:
    dtype = np.dtype(said.dtype)
    given = bound if isinstance(bound, list) else [bound] * math.prod(said.shape)
    if len(given) != math.prod(said.shape):
        raise PolicyError(f"a Box of shape {said.shape} with {len(given)} bounds")
    try:
        return np.array([unbounded if value is None else value for value in given], dtype).reshape(said.shape)
    except (OverflowError, ValueError):
        raise PolicyError(f"a Box with bounds that are no {dtype}") from None
