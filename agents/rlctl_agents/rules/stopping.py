"""Rules that stop running tasks of an ensemble which are not worth their time; they start the longest task first."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import median
from typing import Any, ClassVar

from rlctl_agents.rules.ensemble import SPACE, EnsembleRule, EnsembleView, Space

_STARTS: Space = {key: SPACE[key] for key in ("efficiency", "most")}


class Renewal(EnsembleRule):
    """Stops a task whose rest will cost more than a success does on average (renewal-reward; Ross 1996, section 3.6).

    Of a task that has done the share x of its work, at a speed of ``recent`` parts of its last reports and the rest of
    its whole run, the rest takes ``(1 - x) / speed`` seconds; times what it holds of the machine that is its cost. It
    is stopped when this exceeds ``patient`` times the mean cost of a success so far, where ``prior`` successes of the
    expected cost are counted beforehand.

    Args:
        patient: see there.
        recent: share of the last reports in the estimate of the speed.
        window: how many reports are the last ones.
        prior: successes that are counted beforehand.
        age: a task is not stopped before so many reports.
        worth: nor started anew what promises less than this; 0: whatever it promises.
    """

    name = "renewal"
    ORDER = "lpt"
    SPACE: ClassVar[Space] = {
        **_STARTS,
        "patient": (0.1, 5.0, "log"),
        "recent": (0.0, 1.0),
        "window": (1, 6, "int"),
        "prior": (0.3, 10.0, "log"),
        "age": (1, 8, "int"),
        "worth": (0.0, 0.8),
    }

    def __init__(
        self,
        patient: float = 1.0,
        recent: float = 0.7,
        window: float = 2,
        prior: float = 3.0,
        age: float = 2,
        worth: float = 0.0,
        **starts: float,
    ) -> None:
        super().__init__(**starts)
        self.patient, self.recent, self.window = patient, recent, round(window)
        self.prior, self.age, self.worth = prior, round(age), worth

    def choose(self, state: EnsembleView) -> Mapping[str, Any]:
        """Stop the task that has just reported, or go on as without."""
        task = state.reported
        if task is not None and len(task.reports) >= self.age and self._hopeless(state, task):
            return {"stop": task.job.number}
        return super().choose(state)

    def _hopeless(self, state: EnsembleView, task: Any) -> bool:
        last = task.reports[-1]
        value = last.value
        if value is not None and self.worth > 0.0 and last.fraction > 0.3:
            # Values rise as learning curves do, quickly at first: 1 - exp(-4 f) of the last one, or so.
            promise = value * (1.0 - math.exp(-4.0)) / (1.0 - math.exp(-4.0 * last.fraction))
            if promise < self.worth:
                return True
        whole = (last.fraction - task.begun) / max(last.time_s - task.started_s, 1e-9)
        earlier = task.reports[max(0, len(task.reports) - 1 - self.window)]
        span_s = last.time_s - earlier.time_s
        lately = (last.fraction - earlier.fraction) / span_s if span_s > 0.0 else whole
        speed = self.recent * lately + (1.0 - self.recent) * whole
        rest = (1.0 - last.fraction) / max(speed, 1e-12) * task.charge
        return bool(rest > self.patient * self._per_success(state, task))

    def _per_success(self, state: EnsembleView, task: Any) -> float:
        """Machine time that a success has cost so far, node-seconds."""
        expected = (task.expected_s - task.started_s) * task.charge
        spent = sum(other.spent for other in state.ended)
        good = sum(other.worth for other in state.ended)
        return float((spent + self.prior * expected) / (good + self.prior))


class MedianStopping(EnsembleRule):
    """Stops a task whose best value so far is below the median of what others had at that point (Golovin et al. 2017).

    Args:
        after: no task is stopped before this share of its work is done.
        least: nor before so many others have come as far.
        slack: and it may be so much below.
    """

    name = "median_stopping"
    ORDER = "lpt"
    SPACE: ClassVar[Space] = {
        **_STARTS,
        "after": (0.05, 0.9),
        "least": (1, 10, "int"),
        "slack": (0.0, 0.5),
    }

    def __init__(self, after: float = 0.25, least: float = 3, slack: float = 0.05, **starts: float) -> None:
        super().__init__(**starts)
        self.after, self.least, self.slack = after, round(least), slack

    def choose(self, state: EnsembleView) -> Mapping[str, Any]:
        """Stop the task that has just reported, or go on as without."""
        task = state.reported
        if task is not None and task.reports and self._poor(state, task):
            return {"stop": task.job.number}
        return super().choose(state)

    def _poor(self, state: EnsembleView, task: Any) -> bool:
        last = task.reports[-1]
        values = [report.value for report in task.reports if report.value is not None]
        if last.fraction < self.after or not values:
            return False
        others = []
        for other in [*state.ended, *state.running.values()]:
            then = [r.value for r in other.reports if r.fraction <= last.fraction and r.value is not None]
            if other is not task and then and other.reports[-1].fraction >= last.fraction:
                others.append(sum(then) / len(then))
        return len(others) >= self.least and max(values) < median(others) - self.slack
