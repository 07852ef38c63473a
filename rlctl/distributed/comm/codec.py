"""The one message format between ranks of a job: a pickle behind a header."""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from numpy.typing import NDArray

from rlctl.distributed.comm.transition_spec import Float32, TransitionSpec

Bytes = NDArray[np.uint8]
EMPTY: Bytes = np.zeros(0, np.uint8)
_HEADER = struct.Struct("<4sQ")
_MAGIC = b"rlc3"


def encode(message: Any = None) -> Bytes:
    """Make a message, which holds copies of all arrays."""
    file = io.BytesIO()  # unlike pickle.dumps, it takes large arrays without a second copy
    file.write(bytes(_HEADER.size))
    pickle.dump(message, file, 5)
    data = np.frombuffer(file.getbuffer(), np.uint8)
    _HEADER.pack_into(data.data, 0, _MAGIC, len(data) - _HEADER.size)
    return data


def decode(data: Bytes) -> Any:
    """The content of a message.

    Raises:
        ValueError: ``data`` is cut off, damaged, or was written by another version of rlctl.
    """
    if len(data) < _HEADER.size:
        raise ValueError(f"a message of {len(data)} bytes is cut off")
    magic, size = _HEADER.unpack_from(data.data)
    if magic != _MAGIC:
        raise ValueError("not a message of this version of rlctl")
    if len(data) != _HEADER.size + size:
        raise ValueError(f"a message of {len(data)} bytes, but its header says {_HEADER.size + size}")
    return pickle.loads(data.data[_HEADER.size :])


@dataclass(frozen=True, slots=True)
class ActorHello:
    """An actor's first message.

    Attributes:
        actor: its number among the agent's.
        count: environments that it steps together.
        transition_spec: of their observations and actions.
        spaces: observation and action space of one of them.
    """

    actor: int
    count: int
    transition_spec: TransitionSpec
    spaces: tuple[gymnasium.Space[Any], gymnasium.Space[Any]]


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


class PolicyWeights(NamedTuple):
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
