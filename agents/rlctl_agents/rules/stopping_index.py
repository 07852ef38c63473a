"""Stops tasks by an index: what finishing one is still worth, against the best that can be begun instead."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from rlctl_agents.rules.ensemble import SPACE, EnsembleRule, EnsembleView, Space

WORTH = 0.6
"""Quality from which a task is worth having."""
_STANDS = 1e-6
"""Progress below this is none."""
_LATE = 0.1
"""A task that lost less than this share of the time between two reports was not stuck: reports come with delays."""


def index(left: float, price: float, rate: float, length: float) -> float:
    """What a task that is not stuck is worth: ``price`` less the time to finish it, if it is stopped when that is best.

    Being stuck comes at ``rate`` per work and lasts a time that is exponentially distributed, so a task that is stuck
    is worth ``length`` less, or nothing if it is stopped: with s work left, dW/ds = -1 - rate min(length, W),
    W(0) = price. It is what dynamic programming gives (optimal stopping; Gittins 1979 calls such a value an index).

    All times are in units of the time that all of the task takes without being stuck.

    >>> index(1.0, 3.0, 0.0, 1.0), index(0.5, 3.0, 2.0, 1.0)
    (2.0, 1.5)
    """
    far = min(left, max(price - length, 0.0) / (1.0 + rate * length))
    worth = price - (1.0 + rate * length) * far
    if rate < 1e-9:
        return worth - (left - far)
    return (worth + 1.0 / rate) * math.exp(-rate * (left - far)) - 1.0 / rate


def fair_price(rate: float, length: float) -> float:
    """The time that a success costs on one place, of tasks that are stopped when that is best: ``index`` of 1 is 0.

    >>> fair_price(0.0, 1.0), abs(index(1.0, fair_price(2.0, 0.5), 2.0, 0.5)) < 1e-9
    (1.0, True)
    """
    if rate < 1e-9:
        return 1.0
    near = math.log1p(rate * length) / rate  # work in which its worth rises from 0 to ``length``
    return math.expm1(rate) / rate if near >= 1.0 else length + (1.0 + rate * length) * (1.0 - near)


class StoppingIndex(EnsembleRule):
    """Starts the shortest task, and stops one whose ``index`` is below 0, or below what being stuck will cost.

    A task's speed is its fastest so far. How often tasks are stuck, and for how long, is learned from the reports of
    all tasks: both are estimated with ``held`` times that are counted beforehand, also from those that still last. The
    price of a success is ``patience`` times the ``fair_price`` of the task that would be started next; what tasks are
    worth is counted where they say.

    Args:
        patience: see there.
        late: share by which patience grows as the last successes are awaited, of tasks that run already.
        rate, length: expected number of times that a task is stuck, and for how long, in parts of its time.
        held: see there.
        shrunk: share of the differences between the estimates of tasks that is real.
        doubt: a task of which nothing is known takes at most so many times its estimate.
        noise: of what tasks say about their quality at the beginning.
    """

    name = "stopping_index"
    ORDER = "sjf"
    SPACE: ClassVar[Space] = {
        "patience": (0.3, 3.0, "log"),
        "late": (-0.8, 3.0),
        "rate": (0.1, 5.0, "log"),
        "length": (0.2, 8.0, "log"),
        "held": (0.1, 10.0, "log"),
        "shrunk": (0.0, 1.0),
        "doubt": (0.7, 3.0, "log"),
        "efficiency": SPACE["efficiency"],
        "most": SPACE["most"],
    }

    def __init__(
        self, *, patience: float = 0.853, late: float = 0.227, rate: float = 0.724, length: float = 2.966,
        held: float = 1.085, shrunk: float = 0.689, doubt: float = 2.269, noise: float = 0.3, **starts: float,
    ) -> None:  # fmt: skip
        super().__init__(**starts)
        self.patience, self.late, self.rate, self.length, self.held = patience, late, rate, length, held
        self.shrunk, self.doubt, self.noise = shrunk, doubt, noise
        self.reset(0)

    def reset(self, seed: int) -> None:
        """New tasks."""
        self._seen: dict[str, list[float]] = {}  # of each task: work done, times stuck, of these ended, time stuck
        self._ended = 0

    def state(self) -> Mapping[str, Any]:
        """What the tasks have shown."""
        return {"seen": {name: list(one) for name, one in self._seen.items()}, "ended": self._ended}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from what ``state`` gave."""
        self._seen = {name: list(one) for name, one in state["seen"].items()}
        self._ended = state["ended"]

    def choose(self, state: EnsembleView) -> Mapping[str, Any]:
        """Stop the task that has just reported, or start one."""
        for task in state.ended[self._ended :]:
            self._learn(task)
        self._ended = len(state.ended)
        task = state.reported
        if task is not None and task.reports and self._hopeless(state, task):
            return {"stop": task.job.number}
        return super().choose(state)

    def known(self) -> tuple[float, float]:
        """How often a task is stuck, and for how long, as far as is known."""
        done, stuck, over, lost = (math.fsum(one[i] for one in self._seen.values()) for i in range(4))
        return (stuck + self.held * self.rate) / (done + self.held), (lost + self.held * self.length) / (
            over + self.held
        )

    def _hopeless(self, state: EnsembleView, task: Any) -> bool:
        stands = self._learn(task)
        rate, length = self.known()
        good = sum(other.worth for other in state.ended)
        tried = sum(other.status == "done" for other in state.ended)
        share = (good + 1.0) / (tried + 1.0)
        price_s = self.patience * self._fresh_s(state, task) * fair_price(rate, length) / share
        goal = state.options.objective.goal
        if goal is not None:  # with the last successes, what has been begun is ahead of what would be begun
            price_s *= 1.0 + self.late * max(0.0, 1.0 - (goal - good - 1) / max(1, len(state.running)))
        last = task.reports[-1]
        price = price_s * _promise(last, share, self.noise) / self._whole_s(task)
        return index(1.0 - last.fraction, price, rate, length) < (length if stands else 0.0)

    def _fresh_s(self, state: EnsembleView, task: Any) -> float:
        """Expected time of the task that would be started next, if it is not stuck; that of this one if none waits."""
        expected_s = task.expected_s - task.started_s
        if not state.waiting:
            return float(expected_s)
        works = [math.log(max(other.job.estimate_s, 1e-9)) for other in state.tasks.values()]
        middle = math.fsum(works) / len(works)
        least = math.log(max(min(other.work_left_s for other in state.waiting.values()), 1e-9))
        work = math.log(max(task.job.estimate_s * (1.0 - task.begun), 1e-9))
        return float(expected_s * math.exp(middle + self.shrunk * (least - middle) - work))

    def _whole_s(self, task: Any) -> float:
        """Time that all of a task takes where it is not stuck: at the speed of its fastest report."""
        whole_s = self.doubt * (task.expected_s - task.started_s) / max(1.0 - task.begun, 1e-9)
        time_s, done = task.started_s, task.begun
        for report in task.reports:
            if report.fraction > done + _STANDS:
                whole_s = min(whole_s, (report.time_s - time_s) / (report.fraction - done))
            time_s, done = report.time_s, report.fraction
        return float(max(whole_s, 1e-9))

    def _learn(self, task: Any) -> bool:
        """Count what a task has shown, in parts of its time; returns whether it is stuck now."""
        whole_s = self._whole_s(task)
        time_s, done, stands = task.started_s, task.begun, False
        stuck = over = lost = 0.0
        reports = [(report.time_s, report.fraction) for report in task.reports]
        if task.status == "done":
            reports.append((task.ended_s, 1.0))
        for at_s, fraction in reports:
            missing = (at_s - time_s) / whole_s - (fraction - done)
            stood, stands = stands, fraction <= done + _STANDS
            if stands or missing > _LATE * (at_s - time_s) / whole_s:
                stuck += not stood
                lost += max(missing, 0.0)
                over += not stands
            elif stood:
                over += 1.0
            time_s, done = at_s, fraction
        self._seen[str(task.job.number)] = [done - task.begun, stuck, over, lost]
        return stands


def _promise(report: Any, share: float, noise: float) -> float:
    """Probability that a task is worth having by what it says, where a ``share`` of all tasks are.

    It says ``quality (1 - exp(-4 f)) / (1 - exp(-4))``, with an error that vanishes in the end.
    """
    if report.value is None or share >= 1.0:
        return 1.0
    rise = -math.expm1(-4.0 * report.fraction) / -math.expm1(-4.0)
    deviation = max(noise * (1.0 - report.fraction), 1e-3) / max(rise, 1e-3)
    says = report.value / max(rise, 1e-3)
    low, middle, high = (_normal((edge - says) / deviation) for edge in (0.0, WORTH, 1.0))
    good = share * (high - middle) / (1.0 - WORTH) + 1e-9
    return good / (good + (1.0 - share) * (middle - low) / WORTH)


def _normal(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2.0))
