"""The twin's tasks: what each attempt would do, on the ranks that it is given, from where the last one stopped."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rlctl.core.simulation import Launch, Simulated
from rlctl.core.task import Failure, TaskId
from rlctl_envs.ensemble.options import EnsembleOptions
from rlctl_envs.ensemble.program.hidden_parameters import HiddenParameters, quality_signal
from rlctl_envs.ensemble.workload import Workload

MOST_REPORTS = 200
"""So many of one attempt come at equal times, later ones ever more seldom: one that is stuck for good would fill
memory. When they come must not tell how long it will take."""


class _Asked(NamedTuple):
    """An attempt, and what was known of its task before: the share that was done, and where it would have died."""

    number: int
    attempt: int
    done: float
    dying: float | None


class EnsembleTwin:
    """The task model of a workload; see ``rlctl.core.simulation.TaskModel`` and ``Checkpointing``."""

    def __init__(self, workload: Workload, options: EnsembleOptions, seed: int) -> None:
        self.workload = workload
        self._options = options
        self._seed = seed
        self._done: dict[int, float] = {}
        self._attempts: dict[int, int] = {}
        self._under_way: dict[TaskId, _Asked] = {}
        self._dying: dict[int, float] = {}

    def outcomes(self, launches: Sequence[Launch]) -> list[Simulated]:
        """Durations, reports, and in ``values`` the numbers of new tasks and what the task is worth."""
        return [self._outcome(launch) for launch in launches]

    def stopped(self, launch: Launch, ran_s: float, asked: bool) -> None:
        """Keep the work of a task's last checkpoint; one that was asked to stop writes one before it ends."""
        number, attempt, *_ = self._under_way.pop(launch.spec.uid)
        self._dying.pop(number, None)  # it would have, later
        self._done[number] = self._saved(launch, number, attempt, ran_s, asked)

    def withdrawn(self, uid: TaskId) -> None:
        """Undo an outcome of an attempt that does not take place."""
        asked = self._under_way.pop(uid)
        self._attempts[asked.number] = asked.attempt - 1
        self._done[asked.number] = asked.done
        if asked.dying is not None:
            self._dying[asked.number] = asked.dying
        else:
            self._dying.pop(asked.number, None)

    def _saved(self, launch: Launch, number: int, attempt: int, ran_s: float, asked: bool) -> float:
        """The share of the work from which the next attempt goes on."""
        if not self.workload.jobs[number].resizable:
            return 0.0
        start_up_s, whole_s = self._times(launch, number, attempt)
        worked_s = max(ran_s - start_up_s, 0.0)
        if not asked:
            worked_s -= math.fmod(worked_s, self._options.workload.checkpoint_s)
        return self.workload.truths[number].reached(self._done.get(number, 0.0), worked_s / whole_s)

    def _times(self, launch: Launch, number: int, attempt: int) -> tuple[float, float]:
        """Seconds to start up, and for all of the work."""
        need, truth = launch.spec.resources, self.workload.truths[number]
        whole_s = self.workload.duration_s(number, need.ranks, need.gpus_per_rank > 0.0)
        start_up_s = self._options.program.start_up(need.ranks)
        return start_up_s, whole_s * truth.slowness[attempt % len(truth.slowness)]

    def _outcome(self, launch: Launch) -> Simulated:
        spec = launch.spec
        number = int(spec.parameters["task"])
        truth = self.workload.truths[number]
        attempt = self._attempts[number] = self._attempts.get(number, -1) + 1
        self._under_way[spec.uid] = _Asked(number, attempt, self._done.get(number, 0.0), self._dying.get(number))
        if number in self._dying:  # so the last attempt has
            self._done[number] = self._dying.pop(number)
        done = self._done.get(number, 0.0)
        start_up_s, whole_s = self._times(launch, number, attempt)
        duration_s = start_up_s + whole_s * truth.time_at(done, 1.0)
        rate = self._options.workload.trouble.failures_per_rank_s * spec.resources.ranks
        dies_s = truth.luck[attempt % len(truth.luck)] / rate if rate > 0.0 else math.inf
        every_s = float(spec.parameters["report_s"])
        reports = self._reports(truth, number, done, start_up_s, whole_s, min(duration_s, dies_s), every_s)
        if dies_s < duration_s:
            self._dying[number] = self._saved(launch, number, attempt, dies_s, asked=False)
            return Simulated(dies_s, failure=Failure.SIGNAL, message="killed by SIGSEGV", progress=reports)
        values = {"children": list(truth.children), "quality": truth.quality}
        return Simulated(duration_s, values, progress=reports)

    def _reports(
        self,
        truth: HiddenParameters,
        number: int,
        done: float,
        start_up_s: float,
        whole_s: float,
        end_s: float,
        every_s: float,
    ) -> Sequence[tuple[float, Mapping[str, Any]]]:
        w = self._options.workload
        if every_s <= 0.0:
            return ()
        found = []
        worked_s, gap_s = every_s, every_s
        while start_up_s + worked_s < end_s:
            fraction = truth.reached(done, worked_s / whole_s)
            value = quality_signal(self._seed, number, fraction, truth.quality, w.noise)
            elapsed_s = start_up_s + worked_s
            found.append((elapsed_s, {"fraction": fraction, "elapsed_s": elapsed_s, "value": value}))
            gap_s *= 1.0 if len(found) < MOST_REPORTS else 1.5
            worked_s += gap_s
        return found
