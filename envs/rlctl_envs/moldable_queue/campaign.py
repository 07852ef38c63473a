"""The game of the moldable queue: end all tasks, and those that they bring forth, in the fewest node-seconds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from rlctl.core.campaign import Action, Campaign, Command, Decision, Outcome, Start, Wait
from rlctl.core.machine import Capacity
from rlctl.core.task import Event, Resources, TaskId, TaskSpec, TaskState
from rlctl_envs.moldable_queue.workload import Options

PICKS = ("largest", "median", "smallest")
"""Choices of the task: by its estimate, among those that wait."""
NODES = (1, 2, 4, 8, 16, 32)
"""Choices of the number of nodes."""
WAIT = len(PICKS) * len(NODES)
"""The last choice: start nothing before the next task ends."""
OBSERVED = 10 + 3 * len(NODES)


@dataclass(frozen=True, slots=True)
class _Running:
    number: int
    nodes: int
    started_s: float


class QueueCampaign(Campaign):
    """See ``rlctl.core.campaign.Campaign``. There is one subject, ``queue``.

    Action: Discrete, ``pick * 6 + nodes`` (indices into ``PICKS`` and ``NODES``) or ``WAIT``; or the named quantities
    ``pick`` (of ``PICKS``) and ``nodes``, or ``wait: True``. A choice that is not allowed becomes the default, which
    is choice 0: the largest task on one node.

    A rank of a task stands for a node, so the machine has one core per node, or is one node with a core for each.

    Args:
        options: the game.
        estimates_s: estimated work of the tasks that are there at the beginning.
    """

    observation_space: gymnasium.spaces.Box
    action_space: gymnasium.spaces.MultiDiscrete | gymnasium.spaces.Discrete

    def __init__(self, options: Options, estimates_s: Sequence[float]) -> None:
        self.options = options
        self.deadline_s = options.allocation_s
        self.reward_scale = 1.0 / (options.work_s * sum(options.tasks))
        self.action_space = gymnasium.spaces.Discrete(WAIT + 1)
        self.observation_space = gymnasium.spaces.Box(-10.0, 10.0, (OBSERVED,), np.float32)
        self.masked = 0
        self.ended: list[tuple[float, int, float]] = []
        self.total_nodes = 0
        self._estimates = dict(enumerate(estimates_s))
        self._waiting = sorted(self._estimates, key=self._size, reverse=True)
        self._running: dict[TaskId, _Running] = {}
        self._starts = 0
        self._waits = False
        self._now = 0.0
        self._decision: Decision | None = None

    def begin(self, capacity: Capacity) -> None:
        """Learn the number of nodes."""
        self.total_nodes = capacity.total_cores

    def on_time(self, time_s: float) -> None:
        """The clock stands at ``time_s``."""
        self._now = max(self._now, time_s)

    def on_event(self, event: Event) -> None:
        """A task ended, perhaps with children; one that did not end well waits again."""
        if event.result is None or event.uid not in self._running:
            return
        task = self._running.pop(event.uid)
        self._waits = False
        try:
            if event.result.state is not TaskState.DONE:
                raise ValueError(event.result.state)
            values = event.result.values
            children = {int(c): float(e) for c, e in zip(values["children"], values["estimates_s"], strict=True)}
        except (KeyError, TypeError, ValueError):
            self._enqueue(task.number)
            return
        seconds = event.result.ended_s - event.result.started_s
        self.ended.append((self._estimates[task.number], task.nodes, seconds))
        for number, estimate_s in children.items():
            self._estimates[number] = estimate_s
            self._enqueue(number)

    def decision(self) -> Decision | None:
        """Which task on how many nodes, while one waits and a node is free."""
        due = self._waiting and self.free_nodes > 0 and not self._waits and not self.outcome().ended
        if self._decision is None and due:
            self._decision = Decision("queue", self._now, self.fields(), observe=lambda: (self.observe(), self.mask()))
        return self._decision

    def apply(self, action: Action) -> list[Command]:
        """Start a task, or wait for the next end of one."""
        choice = self.choice(action)
        self._decision = None
        if choice == WAIT:
            self._waits = True
            return [Wait()]
        pick, nodes = PICKS[choice // len(NODES)], NODES[choice % len(NODES)]
        number = self._waiting.pop(self._position(pick))
        uid = TaskId(f"task{number:03d}-{self._starts:03d}")
        self._starts += 1
        self._running[uid] = _Running(number, nodes, self._now)
        parameters = {"task": number, "nodes": nodes}
        return [Start(TaskSpec(uid, function="time:sleep", parameters=parameters, resources=Resources(ranks=nodes)))]

    def outcome(self) -> Outcome:
        """Ended tasks so far; over when none is left, or when the allocation ends."""
        reached = not self._waiting and not self._running
        left = [*self._waiting, *(task.number for task in self._running.values())]
        potential = -self.reward_scale * sum(self._size(number) for number in left)
        extra = {"masked_actions": float(self.masked)}
        return Outcome(reached or self._now >= self.deadline_s, reached, len(self.ended), potential, extra)

    @property
    def free_nodes(self) -> int:
        """Nodes that no started task has."""
        return self.total_nodes - sum(task.nodes for task in self._running.values())

    def choice(self, action: Action) -> int:
        """The index that an answer means; the default, and counted, if it is not allowed."""
        if not isinstance(action, Mapping):
            index = int(np.asarray(action).reshape(-1)[0])
        elif action.get("wait"):
            index = WAIT
        elif action.get("pick") in PICKS and action.get("nodes") in NODES:
            index = PICKS.index(action["pick"]) * len(NODES) + NODES.index(action["nodes"])
        else:
            index = -1
        if 0 <= index <= WAIT and self.mask()[index]:
            return index
        self.masked += 1
        return 0

    def mask(self) -> NDArray[np.bool_]:
        """Not more nodes than are free; waiting only while something runs."""
        fits = [nodes <= self.free_nodes for nodes in NODES]
        return np.array([*(fits * len(PICKS)), bool(self._running)], np.bool_)

    def fields(self) -> dict[str, Any]:
        """What rules read."""
        return {
            "waiting_estimates_s": tuple(self._size(number) for number in self._waiting),  # largest first
            "free_nodes": self.free_nodes,
            "total_nodes": self.total_nodes,
            "nodes_choices": NODES,
            "running": len(self._running),
            "measured": tuple(self.ended),  # (estimate_s, nodes, seconds) of each task that has ended
            "time_left_s": self.deadline_s - self._now,
        }

    def observe(self) -> NDArray[np.float32]:
        """What networks read, about within -3 to 3: the queue, the machine, and for each width what runs and ran."""
        unit = self.options.work_s
        running = list(self._running.values())
        sizes = [self._size(number) for number in self._waiting]
        x = [
            math.log1p(len(sizes)) - 2.0,
            math.log1p(len(running)) - 1.0,
            self.free_nodes / self.total_nodes,
            0.5 * math.log(sum(sizes) / unit / self.total_nodes),
            *(0.5 * math.log(self._size(self._waiting[self._position(pick)]) / unit) for pick in PICKS),
            math.log1p(sum(self._size(task.number) for task in running) / unit) - 1.0,
            math.log1p(len(self.ended)) - 2.0,
            math.log1p(max((self._now - task.started_s for task in running), default=0.0) / unit),
        ]
        for nodes in NODES:
            # Above 0: node-seconds lost to scaling, as far as the estimates can be trusted.
            losses = [math.log(seconds * n / estimate) for estimate, n, seconds in self.ended if n == nodes]
            x += [
                sum(task.nodes == nodes for task in running) * nodes / self.total_nodes,
                0.5 * math.log1p(len(losses)),
                sum(losses) / len(losses) if losses else 0.0,
            ]
        return np.clip(np.array(x, np.float32), -10.0, 10.0)

    def _size(self, number: int) -> float:
        return self._estimates[number]

    def _enqueue(self, number: int) -> None:
        self._waiting.append(number)
        self._waiting.sort(key=self._size, reverse=True)

    def _position(self, pick: str) -> int:
        return {"largest": 0, "median": len(self._waiting) // 2, "smallest": len(self._waiting) - 1}[pick]
