"""Chunks: consecutive steps of an actor's environments, recorded, sent, logged and learned from in one format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rlctl.distributed.comm.codec import Bytes, decode, encode
from rlctl.distributed.comm.transition_spec import EpisodeEnd, Float32, Step, TransitionSpec


class Chunk(NamedTuple):
    """T consecutive steps of an actor's n environments.

    Attributes:
        actor: its number.
        number: of the actor's chunks, from 0; with ``actor`` it identifies the chunk within a training.
        transitions: [T, n], structured as ``TransitionSpec.dtype``.
        last_observations: [n, width], after the last step.
        state: [n, s], of a recurrent policy before the first step; s is 0 without one.
        episode_ends: (step, end) of the episodes that ended in it, in order.
        tasks: ids of the tasks that were started in it.
        failures: how often the actor's environments have failed so far, by kind.
        elapsed_s: wall time that it took the actor, waiting for the learner included.
        busy_s: of that, inside the environments.
    """

    actor: int
    number: int
    transitions: NDArray[np.void]
    last_observations: Float32
    state: Float32
    episode_ends: Sequence[tuple[int, EpisodeEnd]] = ()
    tasks: Sequence[str] = ()
    failures: Mapping[str, int] = {}
    elapsed_s: float = 0.0
    busy_s: float = 0.0

    @property
    def size(self) -> int:
        """Steps times environments."""
        return self.transitions.size

    def next_observations(self) -> Float32:
        """[T, n, width], what followed each action; where an episode ended, its last observation."""
        following = np.concatenate([self.transitions["observation"][1:], self.last_observations[None]])
        for step, end in self.episode_ends:
            following[step, end.environment] = end.observation
        return following

    def encode(self) -> Bytes:
        """As a message; ``decode_chunk`` reads it."""
        return encode(self._replace(transitions=_plain(self.transitions)))


def flat_transitions(chunks: Sequence[Chunk]) -> NDArray[np.void]:
    """Transitions of all chunks, [N], environment by environment and in order of time."""
    dtype = chunks[0].transitions.dtype
    return np.concatenate([_plain(chunk.transitions).T.reshape(-1) for chunk in chunks]).view(dtype)


def lag_metrics(chunks: Sequence[Chunk], version: int) -> dict[str, float]:
    """How many versions old the acting policy was, over all transitions and by the duration of their steps.

    Dropping stale chunks would drop those of slow simulations: whether their lag is larger must be visible.

    Args:
        version: of the newest policy.
    """
    if not chunks:
        return {}
    lags = [version - chunk.transitions["version"][:, 0] for chunk in chunks]
    means, largest = np.array([np.mean(lag) for lag in lags]), max(int(np.max(lag)) for lag in lags)
    sizes = np.array([chunk.size for chunk in chunks], float)
    slowness = np.array([chunk.busy_s / len(chunk.transitions) for chunk in chunks])
    metrics = {"learning/lag": float(np.average(means, weights=sizes)), "learning/lag_max": float(largest)}
    order = np.argsort(slowness, kind="stable")
    for part, which in enumerate(np.array_split(order, 4)):
        if len(which):
            mean = float(np.average(means[which], weights=sizes[which]))
            metrics[f"learning/lag_by_duration/quarter_{part + 1}"] = mean
    return metrics


class ChunkRecorder:
    """Collects an actor's steps in one array, which is reused, until they are sent as a chunk.

    Attributes:
        number: of the next chunk.
        steps: recorded since ``start``.
    """

    def __init__(self, spec: TransitionSpec, actor: int, count: int, capacity: int, state_size: int = 0) -> None:
        self.spec, self.actor = spec, actor
        self.number = self.steps = 0
        self._transitions = np.zeros((capacity, count), spec.dtype)
        columns = [self._transitions[name] for name in spec.dtype.names or ()]
        self._observation, self._action, self._log_prob, self._reward, self._duration = columns[:5]
        self._version, self._terminated, self._truncated = columns[5:]
        self._state = np.zeros((count, state_size), np.float32)
        self._ends: list[tuple[int, EpisodeEnd]] = []
        self._tasks: list[str] = []

    def start(self, state: Float32 | None = None) -> None:
        """Begin a chunk; ``state`` is that of a recurrent policy."""
        self.steps = 0
        self._ends.clear()
        self._tasks.clear()
        if state is not None:
            self._state[:] = state

    def add(self, observations: Float32, actions: Float32, log_probs: Float32, step: Step, version: int) -> None:
        """Record a step: ``actions`` and ``log_probs`` were chosen on ``observations`` and led to ``step``."""
        at = self.steps
        self._observation[at] = observations
        self._action[at] = actions
        self._log_prob[at] = log_probs
        self._reward[at] = step.rewards
        self._duration[at] = step.durations
        self._version[at] = version
        self._terminated[at] = step.terminated
        self._truncated[at] = step.truncated
        if step.episode_ends:
            self._ends.extend((at, end) for end in step.episode_ends)
        if step.tasks:
            self._tasks.extend(step.tasks)
        self.steps = at + 1

    def encode(self, last_observations: Float32, failures: Mapping[str, int], elapsed_s: float, busy_s: float) -> Bytes:
        """The chunk as a message; the next one gets the next number."""
        number, self.number = self.number, self.number + 1
        transitions, counts = self._transitions[: self.steps], dict(failures)
        return Chunk(
            self.actor,
            number,
            transitions,
            last_observations,
            self._state,
            self._ends,
            self._tasks,
            counts,
            elapsed_s,
            busy_s,
        ).encode()


def _plain(transitions: NDArray[np.void]) -> NDArray[np.void]:
    """The same items without names of fields: they are copied and pickled at once, not field by field."""
    return transitions.view(np.dtype((np.void, transitions.dtype.itemsize)))


def decode_chunk(data: Bytes, spec: TransitionSpec) -> Chunk:
    """The chunk in a message.

    Raises:
        ValueError: it holds no chunk of this spec.
    """
    chunk: Chunk = decode(data)
    size = chunk.transitions.dtype.itemsize
    if size != spec.dtype.itemsize:
        raise ValueError(f"a chunk with items of {size} bytes, not {spec.dtype.itemsize}")
    return chunk._replace(transitions=chunk.transitions.view(spec.dtype))
