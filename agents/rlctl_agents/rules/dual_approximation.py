"""Moldable tasks by dual approximation: each as narrow as it can be to end with the rest, for the least makespan."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rlctl_agents.rules.ensemble import SPACE, EnsembleRule, EnsembleView, Space, start
from rlctl_agents.rules.shape_times import Floats, shape_times


def allotment(times: Floats, within: float) -> NDArray[np.intp]:
    """The narrowest shape of each task on which it ends within so many seconds; the fastest where none does.

    Args:
        times: [task, shape] seconds, narrow shapes first, infinite for shapes that it cannot have.

    Returns:
        [task] index of the shape: the canonical allotment of Mounie, Rapine and Trystram (2007,
        doi:10.1137/S0097539701385995).
    """
    meets = times <= within
    chosen: NDArray[np.intp] = np.where(meets.any(axis=1), meets.argmax(axis=1), times.argmin(axis=1))
    return chosen


def least_horizon(times: Floats, ranks: Floats, cores: float, other: float = 0.0) -> float:
    """The least number of seconds d that the work of the allotment for d does not exceed, by bisection.

    No schedule ends earlier, if the times are right and work grows with the ranks: each task takes at least the work of
    its allotment for d, since its work on fewer ranks is less but takes longer than d (Turek, Wolf and Yu 1992,
    doi:10.1145/140901.141909; Ludwig and Tiwari 1994). A list of tasks so allotted, d at most, ends within 2 d.

    Args:
        times: see ``allotment``.
        ranks: [task, shape] ranks.
        other: rank-seconds that are to be done besides.
    """
    each = np.arange(len(times))
    low = max(float(times.min(axis=1).max(initial=0.0)), other / cores)  # each can end, and all else be done
    narrow = allotment(times, math.inf)
    high = max(
        low, (other + float((times * ranks)[each, narrow].sum())) / cores, float(times[each, narrow].max(initial=0))
    )
    for _ in range(20):
        if high - low <= 0.01 * high:
            break
        middle = 0.5 * (low + high)
        chosen = allotment(times, middle)
        if other + float((times[each, chosen] * ranks[each, chosen]).sum()) <= middle * cores:
            high = middle
        else:
            low = middle
    return high


class DualApproximation(EnsembleRule):
    """Guesses the makespan of all that is left, and starts each task as narrow as lets it end by then.

    The guess is the least at which the allotment's work fits the machine (``least_horizon``), with the rest of what
    runs and the tasks that those in the system will bring forth, as often as those before did. The largest task
    starts first.

    Args:
        slack: the time that a task may take is so many times the guess,
        mean: and so many times the mean time of the tasks that wait.
        heirs: weight of the tasks that will be brought forth.
        efficiency: least efficiency of a shape, as far as is known.
        most: largest share of the machine.
        squeeze: a task that does not fit starts narrower if it takes at most so many times longer.
        backfill: whether others may start where one does not fit.
    """

    name = "dual_approximation"
    SPACE: ClassVar[Space] = {
        "slack": (0.5, 2.0, "log"),
        "mean": (-0.5, 0.8),
        "heirs": (0.0, 2.5),
        "efficiency": (0.02, 0.8),
        "most": (0.2, 1.0, "log"),
        "squeeze": (0.9, 3.0, "log"),
        "backfill": SPACE["backfill"],
    }

    def __init__(
        self, *, slack: float = 1.04, mean: float = -0.1, heirs: float = 0.9, efficiency: float = 0.15,
        most: float = 0.66, squeeze: float = 1.14, backfill: float = 1,
    ) -> None:  # fmt: skip
        super().__init__(efficiency, most, backfill=backfill)
        self.slack, self.mean, self.heirs, self.squeeze = slack, mean, heirs, squeeze

    def choose(self, state: EnsembleView) -> Mapping[str, Any]:
        """The first task that fits."""
        waiting = list(state.waiting.values())
        if not waiting:  # or jobs are rigid
            return super().choose(state)
        limit = max(1.0, self.most * state.total_cores)
        shapes, times = shape_times(
            state, waiting, lambda task, shape: shape.ranks <= limit and self.efficient(state, task, shape)
        )
        charges = np.broadcast_to(np.array([state.charge(shape) for shape in shapes]), times.shape)
        narrow = np.arange(len(waiting)), np.isfinite(times).argmax(axis=1)
        areas = times[narrow] * charges[narrow]
        running = sum(max(task.expected_s - state.now_s, 0.0) * task.charge for task in state.running.values())
        mean = float(areas.mean())
        children = sum(task.job.parent is not None for task in state.tasks.values())
        born = (children + 0.7) / (len(state.ended) + 2.0)
        expected = self.heirs * min(born, 0.9) * (len(waiting) + len(state.running)) * mean
        whole = state.charge(type(shapes[0])(state.total_cores, False))
        guess = least_horizon(times, charges, whole, running + expected)
        within = max(self.slack * guess + self.mean * float(times[narrow].mean()), 1e-3 * guess)
        chosen = allotment(times, within)
        for i in np.argsort(-areas, kind="stable").tolist():
            task, shape = waiting[i], shapes[chosen[i]]
            if state.fits(task, shape):
                return start(task, shape)
            longest = self.squeeze * times[i, chosen[i]]
            other = [j for j in range(len(shapes)) if times[i, j] <= longest and state.fits(task, shapes[j])]
            if other:
                return start(task, shapes[min(other, key=lambda j: times[i, j])])
            if not self.backfill:
                break
        return self.rest(state)

    def score(self, state: EnsembleView, task: Any) -> float:
        """The largest first, where something has to start."""
        return float(task.work_left_s)
