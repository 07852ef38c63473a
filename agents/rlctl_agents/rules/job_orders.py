"""Rules for ensembles by orders of schedulers of parallel jobs, and backfilling under any order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from rlctl.core.campaign import Decision
from rlctl_agents.rules.ensemble import SPACE, EnsembleRule, EnsembleView, Space, start

INPUTS = ("run", "ranks", "wait", "slowdown", "fits", "delay", "harmless", "small", "late")
"""What ``weighted`` weighs of a job: see ``rlctl_envs.ensemble.job_scores``."""
PRODUCTS = (  # of any two, and of each with how full queue and machine are
    *(f"{one}*{other}" for i, one in enumerate(INPUTS) for other in INPUTS[i:]),
    *(f"{one}*{other}" for one in INPUTS for other in ("queue", "free", "backlog")),
)
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
        spare: whether rigid jobs may also fill in on what the first one will leave free; 0: only if they end before.
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
        spare: float = 1,
    ) -> None:
        if order not in ORDERS:
            raise ValueError(f"no order {order!r}: one of {', '.join(ORDERS)}")
        super().__init__(efficiency, most, part, patience, 0)
        self.order, self.spare = order, round(spare)

    def choose_rigid(self, state: EnsembleView) -> Mapping[str, Any]:
        """The first by the order; where it does not fit, the next that does not delay it."""
        return _with_reservation(self, state)

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


class Weighted(EnsembleRule):
    """Of rigid jobs, that with the smallest weighted sum of what is known of it; under a reservation, as ``easy``.

    The defaults order by area and protect the smallest job that does not fit now: jobs that do not hold it up come
    first, others only if they are far smaller.

    Args:
        run: weight of the logarithm of the seconds that the job requests.
        ranks: of the logarithm of its processors.
        wait: of the logarithm of the seconds that it has waited.
        slowdown: of the logarithm of its slowdown if it started now.
        fits: of whether it can start now.
        delay: of the logarithm of the seconds until it can.
        small: of whether it has the smallest area of those that do not fit; ``harmless`` and ``late`` are of that job.
        harmless: of whether it can start now, and end before the smallest job can start.
        late: of the logarithm of the seconds by which it would end later.
        one*other: of a product of two of these, or of one with ``queue``, ``free`` or ``backlog``: the logarithm of
            the number of jobs that wait, the share of the machine that is free, and the logarithm of the waiting work
            per processor.
        spare: as of ``easy``.
    """

    name = "weighted"
    SPACE: ClassVar[Space] = {
        **dict.fromkeys(INPUTS, (-6.0, 6.0)),
        **dict.fromkeys(PRODUCTS, (-2.0, 2.0)),
        "spare": (0, 1, "int"),
    }
    DEFAULTS: ClassVar[Mapping[str, float]] = {"run": 2.0, "ranks": 1.109, "harmless": -4.0, "small": -2.0}

    def __init__(self, spare: float = 0, **weights: float) -> None:
        super().__init__()
        names = [name for name in self.SPACE if name != "spare"]
        unknown = set(weights) - set(names)
        if unknown:
            raise TypeError(f"no weight {sorted(unknown)[0]!r}")
        weights = {**self.DEFAULTS, **weights}
        weights = {name: float(weights.get(name, 0.0)) for name in names}
        vars(self).update(weights)  # where tuning begins
        self.weights = np.array(list(weights.values()))
        if not self.weights[len(INPUTS) :].any():
            self.weights = self.weights[: len(INPUTS)]
        self.spare = round(spare)

    def scores(self, state: EnsembleView) -> Any:
        """Of all rigid jobs that wait, in order of arrival; the highest starts first."""
        return state.queue.weighted(self.weights, state.now_s, state.free_cores, state.total_cores, state.releases())

    def score(self, state: EnsembleView, task: Any) -> float:
        """Of a task that is not rigid: the smallest work first."""
        return -float(task.work_left_s)

    def preferences(self, decision: Decision) -> Any:
        """Of all rigid jobs that wait, in e-folds of area by the defaults; None without such jobs."""
        state = decision.fields["state"]
        return 2.5 * _reserved(self, state) if state.queue else None

    def choose_rigid(self, state: EnsembleView) -> Mapping[str, Any]:
        """The first by the order; where it does not fit, the next that does not delay it."""
        return _with_reservation(self, state)


def _with_reservation(rule: Easy | Weighted, state: EnsembleView) -> Mapping[str, Any]:
    """Of rigid jobs the first; where it has to fit and does not, the next that does not delay it."""
    scores = _reserved(rule, state) if state.queue else None
    if scores is None or scores.max() == -np.inf:
        return rule.rest(state)
    task = state.queue.best(scores)
    return start(task, task.shapes[0])


def _reserved(rule: Easy | Weighted, state: EnsembleView) -> Any:
    """Scores of the queue's jobs; minus infinity: the job would delay the first one, or does not fit."""
    queue, scores = state.queue, rule.scores(state)
    first = queue.best(scores)
    if state.names_next or state.fits(first, first.shapes[0]):
        return scores
    shadow_s, spare = _shadow(state, first.shapes[0])
    harmless = state.now_s + queue.run_s <= shadow_s
    if rule.spare:
        harmless |= queue.ranks <= spare
    return np.where(harmless & (queue.ranks <= state.free_cores), scores, -np.inf)


def _shadow(state: EnsembleView, shape: Any) -> tuple[float, int]:
    """When a shape will fit, as far as is known, and the cores that will be left besides."""
    cores, gpus = state.free_cores, state.free_gpus
    for task in sorted(state.running.values(), key=lambda task: task.expected_s):
        cores += task.shape.ranks
        gpus += task.shape.ranks * task.shape.gpu
        if cores >= shape.ranks and (not shape.gpu or gpus >= shape.ranks):
            return max(task.expected_s, state.now_s), cores - shape.ranks
    return float("inf"), 0
