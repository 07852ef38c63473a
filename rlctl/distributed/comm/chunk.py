"""Chunks: consecutive steps of an actor's environments, recorded, sent, logged and learned from in one format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlctl.distributed.comm.codec import Bytes, decode, encode
from rlctl.distributed.comm.transition_spec import EpisodeEnd, Float32, Step, TransitionSpec


@dataclass(slots=True)
class Chunk:
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
    failures: Mapping[str, int] = field(default_factory=dict)
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


def flat_transitions(chunks: Sequence[Chunk]) -> NDArray[np.void]:
    """Transitions of all chunks, [N], environment by environment and in order of time."""
    dtype = chunks[0].transitions.dtype
    plain = np.dtype((np.void, dtype.itemsize))  # copied at once, not field by field
    return np.concatenate([chunk.transitions.view(plain).T.reshape(-1) for chunk in chunks]).view(dtype)


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

    Args:
        actor: its number.
        count: environments that are stepped together.
        capacity: most steps in a chunk.
        state_size: of a recurrent policy's state, for each environment.

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
        note = {
            "actor": self.actor,
            "number": self.number,
            "tasks": self._tasks,
            "failures": dict(failures),
            "elapsed_s": elapsed_s,
            "busy_s": busy_s,
        }
        self.number += 1
        return encode(
            {"chunk": note, "metrics": [dict(end.metrics) for _, end in self._ends]},
            transitions=self._transitions[: self.steps],
            last_observations=last_observations,
            state=self._state,
            ends=_ends_array(self.spec, self._ends),
        )


def decode_chunk(data: Bytes, spec: TransitionSpec) -> Chunk:
    """The chunk in a message; its arrays are views of it.

    Raises:
        ValueError: it holds no chunk of this spec.
    """
    note, arrays = decode(data)
    ends = _episode_ends(spec, arrays["ends"], note["metrics"])
    transitions = _structured(arrays["transitions"], spec.dtype)
    return Chunk(
        transitions=transitions,
        last_observations=arrays["last_observations"],
        state=arrays["state"],
        episode_ends=ends,
        **note["chunk"],
    )


def encode_step(spec: TransitionSpec, step: Step) -> Bytes:
    """A step as a message, for a learner that steps remote environments."""
    note = None
    ends: dict[str, NDArray[Any]] = {}
    if step.episode_ends or step.tasks:
        note = {"tasks": list(step.tasks), "metrics": [dict(end.metrics) for end in step.episode_ends]}
        ends = {"ends": _ends_array(spec, [(0, end) for end in step.episode_ends])}
    return encode(
        note,
        observations=step.observations,
        rewards=step.rewards,
        durations=step.durations,
        terminated=step.terminated,
        truncated=step.truncated,
        **ends,
    )


def decode_step(data: Bytes, spec: TransitionSpec) -> Step:
    """The step in a message; its arrays are views of it."""
    note, arrays = decode(data)
    ends = [] if note is None else _episode_ends(spec, arrays["ends"], note["metrics"])
    return Step(
        arrays["observations"],
        arrays["rewards"],
        arrays["durations"],
        arrays["terminated"],
        arrays["truncated"],
        [end for _, end in ends],
        () if note is None else note["tasks"],
    )


def _ends_array(spec: TransitionSpec, ends: Sequence[tuple[int, EpisodeEnd]]) -> NDArray[np.void]:
    rows = [(e.episode_return, step, e.environment, e.length, e.observation) for step, e in ends]
    return np.array(rows, spec.end_dtype)


def _episode_ends(
    spec: TransitionSpec, array: NDArray[Any], metrics: Sequence[Mapping[str, float]]
) -> list[tuple[int, EpisodeEnd]]:
    ends = []
    for one, more in zip(_structured(array, spec.end_dtype), metrics, strict=True):
        episode_return, step, environment, length, observation = one
        ends.append((int(step), EpisodeEnd(int(environment), observation, float(episode_return), int(length), more)))
    return ends


def _structured(array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[np.void]:
    if array.dtype.itemsize != dtype.itemsize:
        raise ValueError(f"a chunk with items of {array.dtype.itemsize} bytes, not {dtype.itemsize}")
    return array.view(dtype)
