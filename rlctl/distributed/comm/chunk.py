"""Chunks: some steps of an actor's environments, on their way to the learner in one flat buffer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlctl.distributed.comm.transition_spec import Bools, Ended, Float32, Layout, Step

_HEAD = np.dtype(
    [
        ("magic", "<u4"),
        ("schema", "<u4"),
        ("actor", "<i4"),
        ("number", "<i8"),
        ("steps", "<i4"),
        ("count", "<i4"),
        ("ended", "<i4"),
        ("state", "<i4"),
        ("notes", "<i4"),
        ("elapsed_s", "<f8"),
        ("busy_s", "<f8"),
    ]
)
_MAGIC, _SCHEMA = 0x524C4348, 1


@dataclass(slots=True)
class Chunk:
    """T consecutive steps of an actor's n environments.

    Attributes:
        actor: who made it.
        number: of the actor's chunks, from 0; with ``actor`` it tells a chunk from all others of a training.
        rows: [T, n, row], what the actions were chosen on.
        actions: [T, n, n_action], as the algorithm stores them.
        log_probs: [T, n], of the actions under the policy that chose them.
        rewards: [T, n].
        durations: [T, n], see ``rlctl.distributed.comm.transition_spec.Step``.
        terminated, truncated: [T, n].
        versions: [T], of the policy that chose.
        last_rows: [n, row], what is seen after the last step.
        state: [n, s], memory of a recurrent policy before the first step; s is 0 without one.
        ended: (step, episode) of the episodes that ended in it, in order.
        tasks: ids of the tasks that were started in it.
        failures: how often the actor's environments have failed so far, by kind.
        elapsed_s: wall time that it took the actor, waiting for the learner included.
        busy_s: of that, inside the environments.
    """

    actor: int
    number: int
    rows: Float32
    actions: Float32
    log_probs: Float32
    rewards: Float32
    durations: Float32
    terminated: Bools
    truncated: Bools
    versions: NDArray[np.int64]
    last_rows: Float32
    state: Float32
    ended: Sequence[tuple[int, Ended]] = ()
    tasks: Sequence[str] = ()
    failures: Mapping[str, int] = field(default_factory=dict)
    elapsed_s: float = 0.0
    busy_s: float = 0.0

    @property
    def transitions(self) -> int:
        """Steps times environments."""
        return int(self.rewards.size)

    def next_rows(self) -> Float32:
        """[T, n, row], what followed each action; where an episode ended, what was seen last in it."""
        rows = np.concatenate([self.rows[1:], self.last_rows[None]])
        for step, ended in self.ended:
            rows[step, ended.environment] = ended.row
        return rows


def _fields(layout: Layout, steps: int, count: int, ended: int, state: int) -> list[tuple[str, Any, tuple[int, ...]]]:
    """The arrays behind the head, those of larger items first, so that each is aligned."""
    return [
        ("versions", np.int64, (steps,)),
        ("returns", np.float64, (ended,)),
        ("where", np.int32, (ended, 3)),
        ("rows", np.float32, (steps, count, layout.row)),
        ("actions", np.float32, (steps, count, layout.n_action)),
        ("log_probs", np.float32, (steps, count)),
        ("rewards", np.float32, (steps, count)),
        ("durations", np.float32, (steps, count)),
        ("last_rows", np.float32, (count, layout.row)),
        ("state", np.float32, (count, state)),
        ("ended_rows", np.float32, (ended, layout.row)),
        ("terminated", np.bool_, (steps, count)),
        ("truncated", np.bool_, (steps, count)),
    ]


_START = (_HEAD.itemsize + 7) // 8 * 8


class Recorder:
    """Collects steps of an actor, in arrays that are made once, until they are sent as a chunk.

    Args:
        capacity: most steps in a chunk.
        state: numbers of a recurrent policy's memory, for each environment.
    """

    def __init__(self, layout: Layout, actor: int, count: int, capacity: int, state: int = 0) -> None:
        self.layout, self.actor, self.count, self.capacity = layout, actor, count, capacity
        self.number = 0
        self.steps = 0
        self._arrays = {name: np.zeros(shape, kind) for name, kind, shape in _fields(layout, capacity, count, 0, state)}
        self._ended: list[tuple[int, Ended]] = []
        self._tasks: list[str] = []
        self._buffer = np.zeros(0, np.uint8)

    def begin(self, state: Float32 | None = None) -> None:
        """The next step is the first of a chunk."""
        self.steps = 0
        self._ended.clear()
        self._tasks.clear()
        if state is not None:
            self._arrays["state"][:] = state

    def add(self, rows: Float32, actions: Float32, log_probs: Float32, step: Step, version: int) -> None:
        """One step of all environments: ``actions`` and ``log_probs`` were chosen on ``rows``, and gave ``step``."""
        at, arrays = self.steps, self._arrays
        arrays["rows"][at] = rows
        arrays["actions"][at] = actions
        arrays["log_probs"][at] = log_probs
        arrays["rewards"][at] = step.rewards
        arrays["durations"][at] = step.durations
        arrays["terminated"][at] = step.terminated
        arrays["truncated"][at] = step.truncated
        arrays["versions"][at] = version
        if step.ended:
            self._ended.extend((at, ended) for ended in step.ended)
        if step.tasks:
            self._tasks.extend(step.tasks)
        self.steps = at + 1

    def encode(
        self, last_rows: Float32, failures: Mapping[str, int], elapsed_s: float, busy_s: float
    ) -> NDArray[np.uint8]:
        """The chunk as bytes; they stand until the next call."""
        arrays = self._arrays
        notes: dict[str, Any] = {}
        if self._ended:
            notes["figures"] = [dict(ended.figures) for _, ended in self._ended]
        if self._tasks:
            notes["tasks"] = self._tasks
        if failures:
            notes["failures"] = dict(failures)
        text = json.dumps(notes).encode() if notes else b""
        state = arrays["state"].shape[1]
        fields = _fields(self.layout, self.steps, self.count, len(self._ended), state)
        size = _START + sum(int(np.prod(shape)) * np.dtype(kind).itemsize for _, kind, shape in fields) + len(text)
        if len(self._buffer) < size:
            self._buffer = np.zeros(size * 5 // 4, np.uint8)
        buffer = self._buffer[:size]
        head = (
            _MAGIC, _SCHEMA, self.actor, self.number, self.steps, self.count, len(self._ended), state, len(text),
            elapsed_s, busy_s,
        )  # fmt: skip
        buffer[: _HEAD.itemsize].view(_HEAD)[0] = head
        arrays["last_rows"][:] = last_rows
        of_ended: dict[str, Any] = {
            "returns": [ended.ret for _, ended in self._ended],
            "where": [(at, ended.environment, ended.length) for at, ended in self._ended] or np.zeros((0, 3)),
            "ended_rows": [ended.row for _, ended in self._ended] or np.zeros((0, self.layout.row)),
        }
        at = _START
        for name, kind, shape in fields:
            end = at + int(np.prod(shape)) * np.dtype(kind).itemsize
            target = buffer[at:end].view(kind).reshape(shape)
            if name in of_ended:
                target[...] = of_ended[name]
            else:
                source = arrays[name]
                target[...] = source if name in ("last_rows", "state") else source[: self.steps]
            at = end
        buffer[at:] = np.frombuffer(text, np.uint8)
        self.number += 1
        return buffer


def decode(buffer: NDArray[np.uint8], layout: Layout) -> Chunk:
    """The chunk in ``buffer``; its arrays are views of it.

    Raises:
        ValueError: it holds no chunk of this layout.
    """
    if len(buffer) < _START:
        raise ValueError(f"a chunk has at least {_START} bytes, not {len(buffer)}")
    head = buffer[: _HEAD.itemsize].view(_HEAD)[0]
    if (int(head["magic"]), int(head["schema"])) != (_MAGIC, _SCHEMA):
        raise ValueError("no chunk, or of another version of rlctl")
    steps, count, ended = int(head["steps"]), int(head["count"]), int(head["ended"])
    fields = _fields(layout, steps, count, ended, int(head["state"]))
    size = _START + sum(int(np.prod(shape)) * np.dtype(kind).itemsize for _, kind, shape in fields)
    if len(buffer) != size + int(head["notes"]):
        raise ValueError(f"a chunk of {len(buffer)} bytes, but its head tells of {size + int(head['notes'])}")
    arrays: dict[str, NDArray[Any]] = {}
    at = _START
    for name, kind, shape in fields:
        end = at + int(np.prod(shape)) * np.dtype(kind).itemsize
        arrays[name] = buffer[at:end].view(kind).reshape(shape)
        at = end
    notes = json.loads(bytes(buffer[at:])) if int(head["notes"]) else {}
    figures = notes.get("figures") or [{}] * ended
    episodes = [
        (
            int(step),
            Ended(int(environment), arrays["ended_rows"][i], float(arrays["returns"][i]), int(length), figures[i]),
        )
        for i, (step, environment, length) in enumerate(arrays["where"])
    ]
    return Chunk(
        actor=int(head["actor"]),
        number=int(head["number"]),
        **{name: arrays[name] for name, *_ in fields if name not in ("returns", "where", "ended_rows")},
        ended=episodes,
        tasks=notes.get("tasks", ()),
        failures=notes.get("failures", {}),
        elapsed_s=float(head["elapsed_s"]),
        busy_s=float(head["busy_s"]),
    )
