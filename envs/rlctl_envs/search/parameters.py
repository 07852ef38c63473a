"""Parameters of a search: their options, and points as vectors in the unit cube."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import scipy
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator

from rlctl.config.expressions import Expression
from rlctl.core.errors import ConfigError, brief, one_line

Floats = NDArray[np.float64]
Value = float | int | str | bool

MOST_LISTED = 50_000
"""Points of a finite space that are listed, to find those that are left."""

RANDOM = 384
"""Random points among the candidates for the next evaluation."""


class SearchSection(BaseModel):
    """A mapping of known keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class RangeParameter(SearchSection):
    """A number; ``[low, high]`` is short for these two keys.

    Attributes:
        low: smallest value.
        high: largest value.
        log: whether equal ratios count as equal distances.
        integer: whether only whole numbers are meant.
    """

    low: float
    high: float
    log: bool = False
    integer: bool = False

    @model_validator(mode="after")
    def _possible(self) -> RangeParameter:
        if not self.low < self.high:
            raise ValueError(f"low is {self.low:g}, high {self.high:g}: low should be less")
        if self.log and self.low <= 0.0:
            raise ValueError(f"low is {self.low:g}: with log it should be above 0")
        if self.integer and not (self.low.is_integer() and self.high.is_integer()):
            raise ValueError("low and high of an integer should be whole numbers")
        return self

    def value(self, u: float) -> Value:
        """The value at ``u`` in [0, 1]; integers get equal shares of it."""
        low, high = self._ends()
        position = low + min(max(u, 0.0), 1.0) * (high - low)
        number = math.exp(position) if self.log else position
        if self.integer:
            return int(min(max(round(number), self.low), self.high))
        return min(max(number, self.low), self.high)

    def unit(self, value: Any) -> float:
        """Where a value lies in [0, 1]."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            raise ConfigError(f"{value!r} is not a number from {self.low:g} to {self.high:g}")
        if self.integer and float(value) != round(value):
            raise ConfigError(f"{value!r} is not a whole number")
        low, high = self._ends()
        return ((math.log(value) if self.log else float(value)) - low) / (high - low)

    def snapped(self, units: Floats) -> Floats:
        """Where the values of these units lie."""
        if not self.integer:
            return units
        low, high = self._ends()
        numbers = self.column(units)
        return np.asarray(((np.log(numbers) if self.log else numbers) - low) / (high - low))

    def column(self, units: Floats) -> NDArray[Any]:
        """The values of these units."""
        low, high = self._ends()
        positions = low + np.clip(units, 0.0, 1.0) * (high - low)
        numbers = np.exp(positions) if self.log else positions
        return np.asarray(np.clip(np.round(numbers) if self.integer else numbers, self.low, self.high))

    def places(self, numbers: NDArray[np.int64]) -> Floats:
        """Units of the values with these numbers, from the lowest one on, of an integer."""
        return np.array([self.unit(int(self.low) + int(n)) for n in numbers])

    def _ends(self) -> tuple[float, float]:
        half = 0.5 if self.integer else 0.0
        low, high = self.low - half, self.high + half
        return (math.log(low), math.log(high)) if self.log else (low, high)


class ChoiceParameter(SearchSection):
    """One of several values, in no order.

    Attributes:
        choices: the values.
    """

    choices: list[Value] = Field(min_length=2)

    def value(self, u: float) -> Value:
        """The value at ``u`` in [0, 1]; all have equal shares of it."""
        return _share(self.choices, u)

    def unit(self, value: Any) -> float:
        """The middle of the share of a value."""
        return _middle(self.choices, value)

    def column(self, units: Floats) -> NDArray[Any]:
        """The values of these units."""
        return _column(self.choices, units)

    def places(self, numbers: NDArray[np.int64]) -> Floats:
        """Units of the values with these numbers."""
        return np.asarray((numbers + 0.5) / len(self.choices))


class OrderedParameter(SearchSection):
    """One of several values whose order means something.

    Attributes:
        ordered: the values, in their order.
    """

    ordered: list[Value] = Field(min_length=2)

    def value(self, u: float) -> Value:
        """The value at ``u`` in [0, 1]; all have equal shares of it."""
        return _share(self.ordered, u)

    def unit(self, value: Any) -> float:
        """The middle of the share of a value."""
        return _middle(self.ordered, value)

    def column(self, units: Floats) -> NDArray[Any]:
        """The values of these units."""
        return _column(self.ordered, units)

    def places(self, numbers: NDArray[np.int64]) -> Floats:
        """Units of the values with these numbers."""
        return np.asarray((numbers + 0.5) / len(self.ordered))


def _share(values: Sequence[Value], u: float) -> Value:
    return values[min(int(u * len(values)), len(values) - 1)]


def _column(values: Sequence[Value], units: Floats) -> NDArray[Any]:
    numbers = all(isinstance(value, int | float) for value in values)
    found = np.array(values, np.float64 if numbers else np.object_)
    return np.asarray(found[np.minimum((units * len(values)).astype(int), len(values) - 1)])


def _middle(values: Sequence[Value], value: Any) -> float:
    if value not in values:
        raise ConfigError(f"{brief(value)} is none of {one_line(', '.join(map(repr, values)))}")
    return (values.index(value) + 0.5) / len(values)


def _kind(value: Any) -> str:
    keys = set(value) if isinstance(value, Mapping) else value.model_fields_set if isinstance(value, BaseModel) else ()
    return "choices" if "choices" in keys else "ordered" if "ordered" in keys else "range"


def _range(value: Any) -> Any:
    """A mapping for ``[low, high]``."""
    return dict(zip(("low", "high"), value, strict=True)) if isinstance(value, list) and len(value) == 2 else value


Parameter = Annotated[
    Annotated[
        Annotated[RangeParameter, Tag("range")]
        | Annotated[ChoiceParameter, Tag("choices")]
        | Annotated[OrderedParameter, Tag("ordered")],
        Discriminator(_kind),
    ],
    BeforeValidator(_range),
]


class SearchSpace:
    """Points are vectors of [0, 1], one number for each parameter.

    Args:
        parameters: by name.
        constraints: expressions over them that have to be true.

    Raises:
        ConfigError: a constraint cannot be understood, or hardly any point fulfils all.
    """

    def __init__(self, parameters: Mapping[str, Parameter], constraints: Sequence[str] = ()) -> None:
        self.names = list(parameters)
        self._parameters = list(parameters.values())
        self._constraints = [Expression(text, self.names) for text in constraints]
        columns = [len(p.choices) if isinstance(p, ChoiceParameter) else 1 for p in self._parameters]
        self.groups = np.repeat(np.arange(len(columns)), columns)
        """Number of the parameter behind each feature."""
        self.finite = math.prod(self._count(parameter) for parameter in self._parameters)
        """Number of different points; infinite if a parameter is continuous."""
        self._designs: dict[tuple[Any, ...], Floats] = {}
        self._listed: Floats | None = None
        if constraints:
            self.sample(np.random.default_rng(0), 1)
            self.finite = len(self.all_points()) or self.finite

    def values(self, point: Floats) -> dict[str, Value]:
        """Values of the parameters at a point."""
        return {n: p.value(float(u)) for n, p, u in zip(self.names, self._parameters, point, strict=True)}

    def point(self, values: Mapping[str, Any]) -> Floats:
        """The point with these values.

        Raises:
            ConfigError: a value is missing, unknown or impossible.
        """
        if (wrong := set(values) ^ set(self.names)) != set():
            raise ConfigError(f"give a value for each of {', '.join(self.names)}, and no other; wrong: {min(wrong)}")
        units = []
        for name, parameter in zip(self.names, self._parameters, strict=True):
            try:
                units.append(parameter.unit(values[name]))
            except ConfigError as error:
                raise ConfigError(f"{name}: {error}") from None
        return np.array(units)

    @property
    def dimension(self) -> int:
        """Number of things that vary, for the size of a first design."""
        return len(self.names)

    def allowed(self, values: Mapping[str, Any]) -> bool:
        """Whether all constraints hold."""
        return all(bool(constraint(values)) for constraint in self._constraints)

    def features(self, points: Floats) -> Floats:
        """What models read, [points, features]: the snapped numbers, and a 0 or 1 for each choice."""
        columns = []
        for parameter, units in zip(self._parameters, points.T, strict=True):
            if isinstance(parameter, ChoiceParameter):
                count = len(parameter.choices)
                columns.append(np.eye(count)[np.minimum((units * count).astype(int), count - 1)])
            elif isinstance(parameter, OrderedParameter):
                count = len(parameter.ordered)
                columns.append((np.minimum((units * count).astype(int), count - 1) / (count - 1))[:, None])
            elif parameter.integer:
                columns.append(parameter.snapped(units)[:, None])
            else:
                columns.append(units[:, None])
        return np.concatenate(columns, axis=1) if columns else np.zeros((len(points), 0))

    def identities(self, points: Floats) -> list[tuple[int, ...]]:
        """For each point, numbers that are the same for all points with equal values."""
        return [tuple(row) for row in np.round(self.features(points) * 1e9).astype(np.int64).tolist()]

    def sample(self, rng: np.random.Generator, count: int) -> Floats:
        """Random points that fulfil the constraints, [count, parameters].

        Raises:
            ConfigError: fewer than one in 10,000 does.
        """
        return self._accept(lambda n: rng.random((n, len(self.names))), count)

    def spread(self, seed: int, index: int) -> Floats:
        """Point ``index`` of a scrambled Sobol sequence, of those that fulfil the constraints."""
        key = ("sobol", seed)
        known = self._designs.get(key)
        if known is None or len(known) <= index:
            sobol = scipy.stats.qmc.Sobol(len(self.names), rng=np.random.default_rng([seed, 1]))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that it is balanced for powers of 2 only
                known = self._designs[key] = self._accept(sobol.random, 2 * index + 32)
        return np.asarray(known[index % len(known)])

    def latin_hypercube(self, seed: int, index: int, size: int) -> Floats:
        """Point ``index`` of Latin hypercubes of ``size`` points each, one after the other."""
        block, place = divmod(index, size)
        key = ("latin_hypercube", seed, size, block)
        if key not in self._designs:
            cube = scipy.stats.qmc.LatinHypercube(len(self.names), rng=np.random.default_rng([seed, 2, block]))
            self._designs[key] = self._accept(lambda n: cube.random(max(size, n)), size)
        known = self._designs[key]
        return np.asarray(known[place % len(known)])

    def all_points(self) -> Floats:
        """Every point that fulfils the constraints, where there are at most ``MOST_LISTED``; else none."""
        if self._listed is None:
            self._listed = np.zeros((0, len(self.names)))
            if self.finite <= MOST_LISTED:
                counts = [int(self._count(parameter)) for parameter in self._parameters]
                places = np.stack(np.meshgrid(*map(np.arange, counts), indexing="ij"), axis=-1).reshape(-1, len(counts))
                units = [p.places(column) for p, column in zip(self._parameters, places.T, strict=True)]
                points = np.stack(units, axis=1)
                self._listed = points[self._fulfilling(points)]
        return self._listed

    def _fulfilling(self, points: Floats) -> NDArray[np.bool_]:
        if not self._constraints or not len(points):
            return np.ones(len(points), np.bool_)
        columns = {n: p.column(u) for n, p, u in zip(self.names, self._parameters, points.T, strict=True)}
        good = np.ones(len(points), np.bool_)
        for constraint in self._constraints:
            good &= np.broadcast_to(np.asarray(constraint(columns), np.bool_), good.shape)
        return good

    def _accept(self, draw: Callable[[int], Floats], count: int) -> Floats:
        """The first points of a sequence that fulfil the constraints; ``draw(n)`` gives its next n."""
        if not self._constraints:
            return np.asarray(draw(count))[:count]
        kept: list[Floats] = []
        for _ in range(20):
            points = draw(max(count, 500))
            kept += list(points[self._fulfilling(points)])
            if len(kept) >= count:
                return np.array(kept[:count])
        if not kept:
            texts = "; ".join(constraint.text for constraint in self._constraints)
            raise ConfigError(f"none of 10,000 random points fulfils {texts}: correct them, or narrow the parameters")
        return np.array(kept)

    def near(self, point: Floats, width: float, rng: np.random.Generator, count: int) -> Floats:
        """Points around another one: some of its parameters are drawn anew, numbers from a normal distribution.

        Args:
            width: standard deviation, in units of the cube.
        """
        changed = rng.random((count, len(self.names))) < max(0.3, 1.5 / len(self.names))
        moved = np.clip(point + width * rng.standard_normal(changed.shape), 0.0, 1.0)
        for i, parameter in enumerate(self._parameters):
            if isinstance(parameter, ChoiceParameter):
                moved[:, i] = rng.random(count)
        points = np.where(changed, moved, point)
        return np.asarray(points[self._fulfilling(points)])

    @staticmethod
    def _count(parameter: Parameter) -> float:
        if isinstance(parameter, RangeParameter):
            return parameter.high - parameter.low + 1 if parameter.integer else math.inf
        return len(parameter.choices if isinstance(parameter, ChoiceParameter) else parameter.ordered)
