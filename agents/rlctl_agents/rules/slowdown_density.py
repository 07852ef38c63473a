"""Tasks that arrive: those that gain most per share of the machine first, on shapes that are worth their price."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from rlctl_agents.rules.ensemble import EnsembleRule, EnsembleView, Space, start
from rlctl_agents.rules.shape_times import shape_times


class SlowdownDensity(EnsembleRule):
    """Weighted shortest processing time first (Smith 1956), with prices for cores and GPUs that follow the queue.

    A task's slowdown grows by 1 / reference in each second, if it does not end before its reference. Who holds a share
    of the cores (GPUs) for some seconds delays the others that want them: its price is ``cores`` (``gpus``) times the
    sum of what waits for them, weighted so, and at least ``spare_cores`` (``spare_gpus``) tasks that may still arrive.
    A task gets the shape with the least slowdown and price. Where that does not fit, it waits for it, if ``wait`` times
    the time until it will fit costs less than another shape now. Where several can start, that with the most slowdown
    per price goes first.

    Args:
        cores, gpus, spare_cores, spare_gpus, wait: see there.
        area: exponent of what a task holds, in the order.
        weight: exponent of 1 / reference, in the order.
        patience: a task that could wait until so many references have passed counts less.
        efficiency: least efficiency of a shape.
    """

    name = "slowdown_density"
    ORDER = "sjf"
    SPACE: ClassVar[Space] = {
        "cores": (0.05, 5.0, "log"),
        "gpus": (0.05, 5.0, "log"),
        "spare_cores": (0.1, 20.0, "log"),
        "spare_gpus": (0.1, 20.0, "log"),
        "wait": (0.1, 5.0, "log"),
        "area": (0.2, 2.0),
        "weight": (0.0, 1.5),
        "patience": (0.0, 3.0),
        "efficiency": (0.02, 0.6),
    }

    def __init__(
        self, *, cores: float = 1.0, gpus: float = 1.0, spare_cores: float = 2.0, spare_gpus: float = 2.0,
        wait: float = 1.0, area: float = 1.0, weight: float = 1.0, patience: float = 0.5, efficiency: float = 0.1,
    ) -> None:  # fmt: skip
        super().__init__(efficiency, 1.0)
        self.cores, self.gpus, self.spare_cores, self.spare_gpus = cores, gpus, spare_cores, spare_gpus
        self.wait, self.area, self.weight, self.patience = wait, area, weight, patience

    def choose(self, state: EnsembleView) -> Mapping[str, Any]:
        """The densest task that should start now."""
        waiting = list(state.waiting.values())
        if not waiting:  # or jobs are rigid
            return super().choose(state)
        shapes, times = shape_times(state, waiting, lambda task, shape: self.efficient(state, task, shape))
        reference = np.array([max(task.reference_s, state.options.objective.bound_s) for task in waiting])
        waited = state.now_s - np.array([task.arrived_s for task in waiting])
        weight = 1.0 / reference
        ranks = np.array([shape.ranks for shape in shapes], float)
        gpus = np.array([shape.ranks * shape.gpu for shape in shapes], float)
        gains = np.isfinite(times[:, gpus > 0.0]).any(axis=1)
        unit = 1.0 / state.unit_s
        core_price = (self.cores * float(weight.sum()) + self.spare_cores * unit) / max(1, state.total_cores)
        gpu_price = (self.gpus * float(weight[gains].sum()) + self.spare_gpus * unit) / max(1, state.total_gpus)
        price = ranks * core_price + gpus * gpu_price  # per second
        costs = np.maximum((waited[:, None] + times) * weight[:, None], 1.0) + times * price
        delay = np.array([self._delay_s(state, shape) for shape in shapes])
        later = costs + self.wait * np.where(np.isfinite(times), delay, 0.0) * weight[:, None]
        best = later.argmin(axis=1)
        each = np.arange(len(waiting))
        urgent = np.minimum((waited + times[each, best]) * weight / max(self.patience, 1e-9), 1.0)
        density = urgent * weight**self.weight / (times[each, best] * price[best]) ** self.area
        for i in np.argsort(-density, kind="stable").tolist():
            if state.fits(waiting[i], shapes[best[i]]):
                return start(waiting[i], shapes[best[i]])
        return self.rest(state)

    def _delay_s(self, state: EnsembleView, shape: Any) -> float:
        """Seconds until a shape will fit, as far as is known."""
        cores, gpus = state.free_cores - shape.ranks, state.free_gpus - shape.ranks * shape.gpu
        if cores >= 0 and gpus >= 0:
            return 0.0
        for task in sorted(state.running.values(), key=lambda task: task.expected_s):
            cores += task.shape.ranks
            gpus += task.shape.ranks * task.shape.gpu
            if cores >= 0 and gpus >= 0:
                return float(max(task.expected_s - state.now_s, 0.05 * (state.now_s - task.started_s)))
        return float(state.unit_s)
