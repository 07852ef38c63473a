"""The one message format between ranks: a JSON note and named arrays in one buffer.

A message is a header, a table of the arrays (name, dtype and shape, as JSON), the note, and the arrays, each at a
multiple of eight bytes. Tables repeat from message to message, so both directions cache them.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlctl.distributed.comm.transition_spec import Float32, TransitionSpec

Bytes = NDArray[np.uint8]
EMPTY: Bytes = np.zeros(0, np.uint8)
_HEADER = struct.Struct("<4sIIQ")
_MAGIC = b"rlc2"
_ALIGNMENT = 8


def encode(note: Any = None, /, **arrays: NDArray[Any]) -> Bytes:
    """Make a message.

    Args:
        note: anything JSON can hold; None: nothing.
        arrays: copied into the message. Structured dtypes arrive as plain bytes of their item size (``V``).
    """
    table, pads, size = _plan(tuple((name, array.dtype, array.shape) for name, array in arrays.items()))
    text = b"" if note is None else json.dumps(note).encode()
    begin = _HEADER.size + len(table) + len(text)
    parts: list[Any] = [_HEADER.pack(_MAGIC, len(table), len(text), size), table, text, bytes(-begin % _ALIGNMENT)]
    for array, pad in zip(arrays.values(), pads, strict=True):
        parts += (np.ascontiguousarray(array), pad)
    return np.frombuffer(b"".join(parts), np.uint8)


def decode(data: Bytes) -> tuple[Any, dict[str, NDArray[Any]]]:
    """The note and the arrays of a message; the arrays are views of ``data``.

    Raises:
        ValueError: ``data`` is cut off, damaged, or was written by another version of rlctl.
    """
    if len(data) < _HEADER.size:
        raise ValueError(f"a message of {len(data)} bytes is cut off")
    magic, table, note, size = _HEADER.unpack_from(data.data)
    if magic != _MAGIC:
        raise ValueError("not a message of this version of rlctl")
    at = _HEADER.size + table
    begin = at + note + -(at + note) % _ALIGNMENT
    if len(data) != begin + size:
        raise ValueError(f"a message of {len(data)} bytes, but its header says {begin + size}")
    arrays = {
        name: np.ndarray(shape, dtype, data, begin + offset)
        for name, dtype, shape, offset in _parsed(data[_HEADER.size : at].tobytes())
    }
    return json.loads(data[at : at + note].tobytes()) if note else None, arrays


@dataclass(frozen=True, slots=True)
class ActorHello:
    """An actor's first message.

    Attributes:
        actor: its number among the agent's.
        count: environments that it steps together.
        transition_spec: of their observations and actions.
        spaces: observation and action space, see ``rlctl.bundle.spaces.describe``.
    """

    actor: int
    count: int
    transition_spec: TransitionSpec
    spaces: Mapping[str, Any]

    def encode(self) -> Bytes:
        """As a message."""
        return encode(asdict(self))

    @staticmethod
    def decode(data: Bytes) -> ActorHello:
        """From a message."""
        fields = decode(data)[0]
        return ActorHello(**{**fields, "transition_spec": TransitionSpec(**fields["transition_spec"])})


@dataclass(frozen=True, slots=True)
class Welcome:
    """The learner's answer to an ``ActorHello``.

    Attributes:
        policy_spec: of the policy, see ``rlctl.distributed.actor.numpy_policies``.
        number: of the actor's first chunk.
        episodes: number of the first episode of each environment; empty: 0.
    """

    policy_spec: Mapping[str, Any]
    number: int
    episodes: Sequence[int]

    def encode(self) -> Bytes:
        """As a message."""
        return encode(asdict(self))

    @staticmethod
    def decode(data: Bytes) -> Welcome:
        """From a message."""
        return Welcome(**decode(data)[0])


@dataclass(frozen=True, slots=True)
class PolicyWeights:
    """A policy to act by.

    Attributes:
        version: counts from 1.
        exploration: see ``rlctl.distributed.learner.collector.Collector.publish``.
        at_random: whether to act at random instead.
        flat: all weights.
    """

    version: int
    exploration: float
    at_random: bool
    flat: Float32

    def encode(self) -> Bytes:
        """As a message, of the same length for each version; the weights are copied."""
        return encode(settings=np.array([self.version, self.exploration, self.at_random]), flat=self.flat)

    @staticmethod
    def decode(data: Bytes) -> PolicyWeights:
        """From a message; the weights are a view of it."""
        arrays = decode(data)[1]
        version, exploration, at_random = arrays["settings"].tolist()
        return PolicyWeights(int(version), exploration, bool(at_random), arrays["flat"])


@lru_cache(maxsize=1024)
def _plan(fields: tuple[tuple[str, np.dtype[Any], tuple[int, ...]], ...]) -> tuple[bytes, tuple[bytes, ...], int]:
    """The table as JSON, the padding behind each array, and the size of all."""
    sizes = [dtype.itemsize * math.prod(shape) for _, dtype, shape in fields]
    pads = tuple(bytes(-size % _ALIGNMENT) for size in sizes)
    table = [(name, dtype.str, shape) for name, dtype, shape in fields]
    return json.dumps(table).encode(), pads, sum(sizes) + sum(map(len, pads))


@lru_cache(maxsize=1024)
def _parsed(table: bytes) -> tuple[tuple[str, np.dtype[Any], tuple[int, ...], int], ...]:
    """Name, dtype, shape and offset of each array of a table."""
    fields, offset = [], 0
    for name, text, shape in json.loads(table):
        dtype = np.dtype(text)
        fields.append((name, dtype, tuple(shape), offset))
        size = dtype.itemsize * math.prod(shape)
        offset += size + -size % _ALIGNMENT
    return tuple(fields)
