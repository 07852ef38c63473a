"""Rules for ensembles by orders of schedulers of parallel jobs, and backfilling under any order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from rlctl_agents.rules.ensemble import SPACE, EnsembleRule, EnsembleView, Space, start

ORDERS = ("fifo", "sjf", "lpt", "saf", "lxf", "wfp3", "uni", "f1", "f2", "f3", "f4", "due", "critical")
"""The orders of ensembles."""


class F2(EnsembleRule):
    """``sqrt(run) ranks + 25600 log10(arrival)``, smallest first (Carastan-Santos, de Camargo 2017), as F3 and F4."""

    name = ORDER = "f2"


class F3(EnsembleRule):
    """``run ranks + 6860000 log10(arrival)``, smallest first."""

    name = ORDER = "f3"


class F4(EnsembleRule):
    """``run sqrt(ranks) + 530000 log10(arrival)``, smallest first."""

    name = ORDER = "f4"


class Saf(EnsembleRule):
    """Smallest estimated area first: run time times ranks."""

    name = ORDER = "saf"


class Lxf(EnsembleRule):
    """Largest expansion factor first: the time from arrival to end, over the run time."""

    name = ORDER = "lxf"


class Uni(EnsembleRule):
    """``wait / (log2(ranks) run)``: UNICEF (Tang, Lan, Desai, Buettner 2009)."""

    name = ORDER = "uni"


class Easy(EnsembleRule):
    """First come, first served, and others where they do not delay the first (EASY backfilling, Lifka 1995).

    Walltimes are the estimates; the expected ends of running tasks say when the first one can start.

    Args:
        order: name of another order in which tasks are the first, and fill in.
    """

    name = "easy"
    ORDER = "fifo"
    SPACE: ClassVar[Space] = {key: SPACE[key] for key in ("efficiency", "most", "part", "patience")}

    def __init__(
        self,
        efficiency: float = 0.4,
        most: float = 0.5,
        part: float = 8.0,
        patience: float = 4.0,
        order: str = ORDER,
    ) -> None:
        if order not in ORDERS:
            raise ValueError(f"no order {order!r}: one of {', '.join(ORDERS)}")
        super().__init__(efficiency, most, part, patience, 0)
        self.order = order

    def score(self, state: EnsembleView, task: Any) -> float:
        """The highest starts first."""
        return state.order(self.order, task)

    def scores(self, state: EnsembleView) -> Any:
        """Of all rigid jobs that wait, in order of arrival; the highest starts first."""
        return state.queue.scores(self.order, state.now_s)

    def choose_rigid(self, state: EnsembleView) -> Mapping[str, Any]:
        """The first by the order; where it does not fit, the next that does not delay it."""
        queue, scores = state.queue, self.scores(state)
        first = queue.best(scores)
        if first is None:
            return self.rest(state)
        if state.names_next or state.fits(first, first.shapes[0]):
            return start(first, first.shapes[0])
        shadow_s, spare = _shadow(state, first.shapes[0])
        harmless = (state.now_s + queue.run_s <= shadow_s) | (queue.ranks <= spare)
        scores = np.where(harmless & (queue.ranks <= state.free_cores), scores, -np.inf)
        task = queue.best(scores)
        return self.rest(state) if scores.max() == -np.inf else start(task, task.shapes[0])

    def choose(self, state: EnsembleView) -> Mapping[str, Any]:
        """The first; where it does not fit, the next that ends before it could start, or leaves it enough."""
        if state.queue is not None:
            return self.choose_rigid(state)
        waiting = sorted(state.waiting.values(), key=lambda task: -self.score(state, task))
        if not waiting:
            return self.rest(state)
        first, shape = waiting[0], self.wanted(state, waiting[0])[0]
        if state.fits(first, shape):
            return start(first, shape)
        shadow_s, spare = _shadow(state, shape)
        for task in waiting[1:]:
            for other in self.wanted(state, task):
                if not state.fits(task, other):
                    continue
                in_time = state.now_s + state.seconds(task, other) <= shadow_s
                if in_time or (other.ranks <= spare and not (other.gpu and shape.gpu)):
                    return start(task, other)
        return self.rest(state)


def _shadow(state: EnsembleView, shape: Any) -> tuple[float, int]:
    """When a shape will fit, as far as is known, and the cores that will be left besides."""
    cores, gpus = state.free_cores, state.free_gpus
    for task in sorted(state.running.values(), key=lambda task: task.expected_s):
        cores += task.shape.ranks
        gpus += task.shape.ranks * task.shape.gpu
        if cores >= shape.ranks and (not shape.gpu or gpus >= shape.ranks):
            return max(task.expected_s, state.now_s), cores - shape.ranks
    return float("inf"), 0
