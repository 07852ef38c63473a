"""Rules for ensembles: a score orders the waiting tasks, a width limits how much of the machine each gets.

They answer with the named quantities ``start``, ``ranks`` and ``gpu``, ``stop``, or ``wait``, and read the field
``state``, of which ``EnsembleView`` says what they use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

import numpy as np

from rlctl.core.campaign import Action, Decision

Space = Mapping[str, tuple[Any, ...]]


class EnsembleView(Protocol):
    """The state of an ensemble, as far as these rules read it."""

    options: Any
    now_s: float
    tasks: Mapping[int, Any]
    waiting: Mapping[int, Any]
    alike: Mapping[Any, Mapping[int, Any]]
    running: Mapping[int, Any]
    ended: Sequence[Any]
    reported: Any
    total_cores: int
    free_cores: int
    free_gpus: int
    total_gpus: int
    may_wait: bool
    names_next: bool
    queue: Any
    unit_s: float

    def order(self, name: str, task: Any) -> float:
        """A score that orders waiting tasks."""

    def efficiency(self, task: Any, shape: Any) -> float:
        """The task's parallel efficiency on a shape, estimated from reports so far."""

    def true_efficiency(self, task: Any, shape: Any) -> float:
        """The same as the twin has it, which only a clairvoyant one shows."""

    def seconds(self, task: Any, shape: Any) -> float:
        """Estimated seconds that are left of a task on a shape."""

    def fits(self, task: Any, shape: Any) -> bool:
        """Whether it can start so now."""

    def charge(self, shape: Any) -> float:
        """Its share of the machine, in nodes."""

    def releases(self) -> tuple[Any, Any]:
        """Seconds until running tasks are expected to end, in order, after a 0; and the cores free then."""

    def wider(self, task: Any) -> Sequence[Any]:
        """Other shapes on which a running task could go on now."""


SPACE: Space = {
    "efficiency": (0.05, 0.95),
    "most": (0.02, 1.0, "log"),
    "part": (0.2, 8.0, "log"),
    "patience": (1.0, 30.0, "log"),
    "backfill": (0, 1, "int"),
}


class EnsembleRule:
    """A rule without memory: the waiting task with the highest score starts first, on the widest shape allowed.

    Args:
        efficiency: least share of a task's rank-seconds that is not lost to scaling, as far as is known.
        most: a task gets at most this share of the machine.
        part: and at most so many times what would be its part if all open tasks had the same (equipartition, McCann,
            Vaswani and Zahorjan 1993).
        patience: a task that is faster on GPUs but can do without does so where it takes at most so many times longer.
        backfill: whether others may start where the first one does not fit; otherwise it is waited for.
    """

    name: str
    ORDER: ClassVar[str] = ""
    """The score, as the campaign names it; see ``EnsembleView.order``. Rules without one override ``score``."""
    SPACE: ClassVar[Space] = SPACE

    def __init__(
        self,
        efficiency: float = 0.4,
        most: float = 0.5,
        part: float = 8.0,
        patience: float = 4.0,
        backfill: float = 1,
    ) -> None:
        self.efficiency, self.most, self.part = efficiency, most, part
        self.patience, self.backfill = patience, round(backfill)
        self.order = self.ORDER

    def score(self, state: EnsembleView, task: Any) -> float:
        """The highest starts first."""
        return state.order(self.order, task)

    def efficient(self, state: EnsembleView, task: Any, shape: Any) -> bool:
        """Whether a task uses a shape well enough."""
        return state.efficiency(task, shape) >= self.efficiency

    def wanted(self, state: EnsembleView, task: Any) -> list[Any]:
        """Shapes that a task should have, the best first."""
        open_tasks = len(state.waiting) + len(state.running)
        limit = state.total_cores * min(self.most, self.part / max(1, open_tasks))
        best: dict[bool, Any] = {}
        for shape in task.shapes:  # few ranks first
            narrow = shape.ranks <= max(1.0, limit) and self.efficient(state, task, shape)
            if shape.gpu not in best or narrow:
                best[shape.gpu] = shape
        if True not in best or False not in best:
            return list(best.values())
        slower = state.seconds(task, best[False]) / max(state.seconds(task, best[True]), 1e-9)
        if slower <= 1.0:
            return [best[False]]
        return [best[True], best[False]] if slower <= self.patience else [best[True]]

    def act(self, decision: Decision) -> Action:
        """See ``rlctl.core.policy.Policy``."""
        return self.choose(decision.fields["state"])

    def reset(self, seed: int) -> None:
        """Nothing to forget."""

    def state(self) -> Mapping[str, Any]:
        """Nothing to save."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Nothing to take up."""

    def choose(self, state: EnsembleView) -> Mapping[str, Any]:
        """The first task that fits, in order; tasks that are alike fit alike, so that one of them tells of all."""
        if state.queue is not None:
            return self.choose_rigid(state)
        best: tuple[float, Any, Any] | None = None
        for group in state.alike.values():
            one = next(iter(group.values()))
            shape = next((shape for shape in self.wanted(state, one) if state.fits(one, shape)), None)
            if shape is None and self.backfill:
                continue
            task = max(group.values(), key=lambda task: self.score(state, task))
            score = self.score(state, task)
            if best is None or score > best[0]:
                best = score, task, shape
        if best is None or best[2] is None:
            return self.rest(state)
        return start(best[1], best[2])

    def scores(self, state: EnsembleView) -> Any:
        """Of all rigid jobs that wait, in order of arrival; the highest starts first."""
        if self.order:
            return state.queue.scores(self.order, state.now_s)
        return np.array([self.score(state, task) for task in state.queue.tasks])

    def choose_rigid(self, state: EnsembleView) -> Mapping[str, Any]:
        """Of rigid jobs the next one; where a decision starts one at once, the first that fits."""
        fits = None if state.names_next or not self.backfill else state.free_cores
        task = state.queue.best(self.scores(state), fits)
        if task is None or not (state.names_next or state.fits(task, task.shapes[0])):
            return self.rest(state)
        return start(task, task.shapes[0])

    def rest(self, state: EnsembleView) -> Mapping[str, Any]:
        """Wait; if nothing would happen then, start what fits, as wide as it can be."""
        if not state.may_wait:
            for task in sorted(state.waiting.values(), key=lambda task: -self.score(state, task)):
                fitting = [shape for shape in task.shapes if state.fits(task, shape)]
                if fitting:
                    return start(task, fitting[-1])
        return {"wait": True}


def start(task: Any, shape: Any) -> Mapping[str, Any]:
    """The answer that starts a task."""
    return {"start": task.job.number, "ranks": shape.ranks, "gpu": shape.gpu}


class Fifo(EnsembleRule):
    """First come, first served."""

    name = ORDER = "fifo"


class Sjf(EnsembleRule):
    """Shortest estimated work first."""

    name = ORDER = "sjf"


class Lpt(EnsembleRule):
    """Longest estimated work first (Graham 1969)."""

    name = ORDER = "lpt"


class Wfp3(EnsembleRule):
    """``(wait / run)^3 ranks`` (Tang, Lan, Desai, Buettner 2009)."""

    name = ORDER = "wfp3"


class F1(EnsembleRule):
    """``log10(run) ranks + 870 log10(arrival)``, smallest first (Carastan-Santos and de Camargo 2017)."""

    name = ORDER = "f1"


class Due(EnsembleRule):
    """Highest priority first, then earliest deadline."""

    name = ORDER = "due"


class Critical(EnsembleRule):
    """List scheduling: the longest chain of tasks that wait for each other first (Hu 1961)."""

    name = ORDER = "critical"


_SAME: Space = {key: SPACE[key] for key in ("efficiency", "patience", "backfill")}


class SameEfficiency(EnsembleRule):
    """The largest task first, each on as many ranks as it uses with the same efficiency, as far as is known."""

    name = "same_efficiency"
    ORDER = "lpt"
    SPACE: ClassVar[Space] = _SAME

    def __init__(self, efficiency: float = 0.5, patience: float = 4.0, backfill: float = 1) -> None:
        super().__init__(efficiency, 1.0, 1e9, patience, backfill)


class KnownEfficiency(EnsembleRule):
    """The same with the efficiencies as they are, which only a clairvoyant twin tells; for comparison."""

    name = "known_efficiency"
    ORDER = "lpt"
    SPACE: ClassVar[Space] = _SAME

    def __init__(self, efficiency: float = 0.5, patience: float = 4.0, backfill: float = 1) -> None:
        super().__init__(efficiency, 1.0, 1e9, patience, backfill)

    def efficient(self, state: EnsembleView, task: Any, shape: Any) -> bool:
        """Whether a task really uses a shape well enough."""
        return state.true_efficiency(task, shape) >= self.efficiency


class Tetris(EnsembleRule):
    """What aligns best with what is free, and what has little left (Grandl et al. 2014, equation 1 and section 3.3).

    Args:
        short: weight of the work that is left, against the alignment.
    """

    name = "tetris"
    SPACE: ClassVar[Space] = {**SPACE, "short": (0.01, 10.0, "log")}

    def __init__(self, short: float = 0.3, **shared: float) -> None:
        super().__init__(**shared)
        self.short = short
        self._largest_s = 1.0

    def choose(self, state: EnsembleView) -> Mapping[str, Any]:
        """See the class."""
        self._largest_s = max((task.work_left_s for task in state.waiting.values()), default=1.0)
        return super().choose(state)

    def score(self, state: EnsembleView, task: Any) -> float:
        """Inner product of demand and what is free, each over the machine's; less the time that is left."""
        shape = self.wanted(state, task)[0]
        cores = shape.ranks / state.total_cores * state.free_cores / state.total_cores
        gpus = shape.ranks * shape.gpu / max(1, state.total_gpus) * state.free_gpus / max(1, state.total_gpus)
        return float(cores + gpus - self.short * task.work_left_s / max(self._largest_s, 1e-9))


class Malleable(EnsembleRule):
    """Shortest work first; what is free when nothing waits goes to the running task that would end last.

    Args:
        gain: it gets other ranks only if it then ends in at most this share of the time that it would take otherwise.
    """

    name = "malleable"
    ORDER = "sjf"
    SPACE: ClassVar[Space] = {**SPACE, "gain": (0.2, 0.98)}

    def __init__(self, gain: float = 0.7, **shared: float) -> None:
        super().__init__(**shared)
        self.gain = gain

    def choose(self, state: EnsembleView) -> Mapping[str, Any]:
        """Start what fits; where nothing waits, widen the last."""
        if state.waiting or state.free_cores <= 0:
            return super().choose(state)
        for task in sorted(state.running.values(), key=lambda task: -task.expected_s)[:3]:
            left_s = max(task.expected_s - state.now_s, 0.0)
            wider = [shape for shape in state.wider(task) if shape.ranks > task.shape.ranks]
            good = [shape for shape in wider if state.seconds(task, shape) <= self.gain * left_s]
            if good:
                best = min(good, key=lambda shape: state.seconds(task, shape))
                return {"resize": task.job.number, "ranks": best.ranks, "gpu": best.gpu}
        return super().choose(state)
