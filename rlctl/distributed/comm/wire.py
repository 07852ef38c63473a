"""What the messages between a learner and its actors hold, besides chunks."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlctl.distributed.comm.transition_spec import Float32, Layout

Bytes = NDArray[np.uint8]
_WEIGHTS = struct.Struct("<qdq")
_ACK = struct.Struct("<q")


@dataclass(frozen=True, slots=True)
class Greeting:
    """What an actor says first.

    Attributes:
        actor: its number among the agent's.
        count: environments that it steps together.
        layout: of their rows and actions.
        spaces: observation and action space, see ``rlctl.bundle.spaces.describe``.
        where: host and process, for people.
    """

    actor: int
    count: int
    layout: Layout
    spaces: Mapping[str, Any]
    where: str

    def encode(self) -> Bytes:
        """As bytes."""
        return _to_bytes(asdict(self))

    @staticmethod
    def decode(data: Bytes) -> Greeting:
        """From bytes."""
        fields = json.loads(bytes(data))
        return Greeting(**{**fields, "layout": Layout(**fields["layout"])})


@dataclass(frozen=True, slots=True)
class Welcome:
    """What a learner answers.

    Attributes:
        spec: of the policy, see ``rlctl.distributed.actor.numpy_policies``.
        number: of the actor's first chunk.
        episodes: number of the first episode of each environment; empty: 0.
    """

    spec: Mapping[str, Any]
    number: int
    episodes: Sequence[int]

    def encode(self) -> Bytes:
        """As bytes."""
        return _to_bytes(asdict(self))

    @staticmethod
    def decode(data: Bytes) -> Welcome:
        """From bytes."""
        return Welcome(**json.loads(bytes(data)))


@dataclass(frozen=True, slots=True)
class Weights:
    """A policy.

    Attributes:
        version: counts from 1.
        exploration: see ``rlctl.distributed.learner.experience_source.Source.publish``.
        at_random: act at random.
        flat: the numbers.
    """

    version: int
    exploration: float
    at_random: bool
    flat: Float32

    def encode(self) -> Bytes:
        """As bytes; the numbers are copied."""
        data = np.empty(_WEIGHTS.size + self.flat.nbytes, np.uint8)
        _WEIGHTS.pack_into(data.data, 0, self.version, self.exploration, int(self.at_random))
        data[_WEIGHTS.size :].view(np.float32)[:] = self.flat
        return data

    @staticmethod
    def decode(data: Bytes) -> Weights:
        """From bytes, not copied."""
        version, exploration, at_random = _WEIGHTS.unpack_from(data.data)
        return Weights(version, exploration, bool(at_random), data[_WEIGHTS.size :].view(np.float32))


def encode_ack(number: int) -> Bytes:
    """Chunk ``number`` is the learner's now."""
    return np.frombuffer(_ACK.pack(number), np.uint8)


def decode_ack(data: Bytes) -> int:
    """The number of the chunk."""
    number: int = _ACK.unpack(bytes(data))[0]
    return number


def _to_bytes(data: Mapping[str, Any]) -> Bytes:
    return np.frombuffer(json.dumps(data).encode(), np.uint8)
