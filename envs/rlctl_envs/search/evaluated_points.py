"""The points that a search has evaluated: its trials, which of them count, and what they have found."""

from __future__ import annotations

from bisect import insort

from rlctl.core.task import TaskId
from rlctl.executors.pool import NodePool
from rlctl_envs.search.candidates import CandidateTable
from rlctl_envs.search.counted_results import CountedResults
from rlctl_envs.search.objective import Assessment, SearchObjective
from rlctl_envs.search.options import SearchOptions
from rlctl_envs.search.parameters import Floats, SearchSpace
from rlctl_envs.search.trials import Trial, TrialStatus

_WITHOUT_RESULT = (TrialStatus.FAILED, TrialStatus.INFEASIBLE, TrialStatus.STOPPED)

Space = SearchSpace | CandidateTable


class EvaluatedPoints:
    """Trials and results.

    Attributes:
        options: as the configuration has them.
        space: points and their parameters.
        objective: what results are worth.
        counts: number of the stage whose results count.
        pool: the machine, as far as these trials hold it.
        trials: all, in the order of their starts.
        running: those that run or are queued, by the name of their task.
        statuses: number of trials by status.
        infeasible: points that could not be evaluated at the stage that counts; those that were known do not count.
        fruitless: trials that have ended since the last one with a result.
        submitted: trials that were submitted here, without repeats of an evaluation.
    """

    def __init__(self, options: SearchOptions, space: Space, objective: SearchObjective, pool: NodePool) -> None:
        self.options, self.space, self.objective = options, space, objective
        self.counts, self.pool = options.counting_stage, pool
        self.trials: list[Trial] = []
        self.running: dict[TaskId, Trial] = {}
        self.statuses = dict.fromkeys(TrialStatus, 0)
        self.infeasible = self.fruitless = self.submitted = 0
        self._keys: dict[tuple[int, ...], Trial] = {}
        self._points: dict[tuple[int, ...], list[Trial]] = {}
        self._counted: CountedResults | None = None
        self._seconds: list[list[float]] = [[] for _ in options.stage_names]

    def __repr__(self) -> str:
        return f"<{len(self.trials)} trials, {len(self.running)} running>"

    @property
    def counted(self) -> CountedResults:
        """Results of the stage that counts."""
        if self._counted is None:
            self._counted = CountedResults(self._points.values())
        return self._counted

    @property
    def results(self) -> list[tuple[Trial, Assessment]]:
        """Results that count: the first trial of each point, and the mean of all of the point's trials."""
        return self.counted.all

    @property
    def evaluated(self) -> int:
        """Evaluations that a budget counts: points with a result of this search, and those that gave none."""
        return self.counted.of_this_search + self.infeasible

    @property
    def awaited(self) -> int:
        """Evaluations that run here and that a budget will count if they end by themselves."""
        running = (trial for trial in self.running.values() if trial.stage == self.counts and not trial.elsewhere)
        return len({trial.key for trial in running if not self._counts_already(trial)} - self._points.keys())

    def _counts_already(self, trial: Trial) -> bool:
        """Whether it repeats an evaluation that a budget has counted."""
        return trial.again is not None and self.trials[trial.again].status is TrialStatus.INFEASIBLE

    @property
    def best(self) -> Trial | None:
        """The trial with the least loss that fulfils all constraints; None: there is none, or not one objective."""
        best = self.counted.best
        return None if best is None or len(self.objective.names) != 1 else best[0]

    @property
    def front(self) -> list[Trial]:
        """Trials that no other one dominates, where there are several objectives."""
        return self.counted.front

    def tried(self, point: Floats, stage: int) -> Trial | None:
        """The trial of a point at a stage, running or ended with a result; None: there is none."""
        return self._keys.get(self.key(point, stage))

    def median_s(self, stage: int) -> float | None:
        """Median duration of the trials of a stage that have ended by themselves; None: there is none."""
        seconds = self._seconds[stage]
        return 0.5 * (seconds[len(seconds) // 2] + seconds[(len(seconds) - 1) // 2]) if seconds else None

    def repeatable(self) -> dict[int, str]:
        """Trials that failed, were infeasible or were stopped, and whose points have no result since; with status."""
        again = {trial.again for trial in self.trials}
        return {
            trial.number: trial.status.value
            for trial in self.trials
            if trial.status in _WITHOUT_RESULT
            and not trial.known
            and trial.number not in again
            and self._keys.get(trial.key) in (None, trial)
        }

    # What happens.

    def add(self, trial: Trial) -> None:
        """A trial was submitted."""
        trial.allocation = self.pool.take(trial.resources)
        self.trials.append(trial)
        self.submitted += trial.again is None
        self.statuses[TrialStatus.RUNNING] += 1
        self.running[trial.uid] = trial
        self._keys[trial.key] = trial

    def release(self, trial: Trial) -> None:
        """Its place is free; the first one that waits takes it if it fits."""
        if trial.allocation is not None:
            self.pool.release(trial.allocation)
            trial.allocation = None
        for other in self.running.values():
            if other is not trial and other.allocation is None and not other.elsewhere:
                other.allocation = self.pool.take(other.resources)

    def move(self, trial: Trial, away: bool) -> None:
        """A trial is made elsewhere, or here after all."""
        trial.elsewhere = away
        if away:
            self.release(trial)
        elif trial.allocation is None:
            trial.allocation = self.pool.take(trial.resources)

    def ended(self, trial: Trial) -> None:
        """A trial has ended; a point that gave no result may be tried again."""
        self.running.pop(trial.uid, None)
        self.statuses[TrialStatus.RUNNING] -= 1
        self.statuses[trial.status] += 1
        if trial.status in (TrialStatus.DONE, TrialStatus.INFEASIBLE) and trial.seconds > 0.0:
            insort(self._seconds[trial.stage], trial.seconds)
        if trial.stage == self.counts and trial.status is TrialStatus.INFEASIBLE:
            self.infeasible += 1
        if trial.stage == self.counts:  # one evaluation, however often it was made
            self.infeasible -= self._counts_already(trial)
        self.fruitless = 0 if trial.assessment is not None else self.fruitless + 1
        self._book(trial)

    def know(self, trial: Trial) -> None:
        """A trial was made elsewhere, before."""
        self.trials.append(trial)
        self.statuses[trial.status] += 1
        self._keys[trial.key] = trial
        self._book(trial)

    def _book(self, trial: Trial) -> None:
        if trial.status in (TrialStatus.FAILED, TrialStatus.STOPPED):
            self._keys.pop(trial.key, None)
        elif trial.stage == self.counts and trial.assessment is not None:
            self._points.setdefault(trial.key, []).append(trial)
            self._counted = None

    def key(self, point: Floats, stage: int) -> tuple[int, ...]:
        """The same for all points with equal values of the parameters, different from those of other stages."""
        return (stage, *self.space.identities(point[None])[0])
