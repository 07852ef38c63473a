"""The campaign of a search: which point next, at which stage, on what resources, and which run to stop."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from rlctl.core.campaign import ENDLESS_S, Action, Campaign, Cancel, Command, Decision, Mask, Outcome, Start, Wait
from rlctl.core.errors import ConfigError
from rlctl.core.findings import Findings
from rlctl.core.machine import Capacity, Machine
from rlctl.core.task import Event, Failure, Resources, TaskId, TaskSpec, TaskState
from rlctl_envs.search.evaluation_rows import evaluation_row, findings, shown_choice
from rlctl_envs.search.objective import SearchObjective
from rlctl_envs.search.options import SearchOptions
from rlctl_envs.search.parameters import Floats, SearchSpace
from rlctl_envs.search.proposals import LAYOUT, Proposal, observe, offered
from rlctl_envs.search.search_state import SearchState
from rlctl_envs.search.trials import Trial, TrialStatus

Specify = Callable[[Trial], TaskSpec]
"""The task of a trial."""

LATE = (1.5, 3.0, 6.0, 12.0, 24.0)
"""A decision asks whether to stop a run when it has taken so many times the median of its stage."""

_MOST_REPEATED = 10


class SearchCampaign(Campaign):
    """Decides what to evaluate next, and which run to stop. Its one subject is ``search``.

    Action: Discrete, one of ``proposals.offered``; or named quantities: ``evaluate`` (a mapping of parameters) with
    ``stage`` (a name), ``ranks``, ``cores``, ``gpus`` and ``walltime_s``, where there is a choice; ``stop`` (number of
    a trial); or ``wait: True``. An answer that is not allowed becomes a random point and is counted.

    A decision is due when something has ended, or nodes have come, and there is room for an evaluation; or when a run
    has reported progress or takes long, which is then ``state.subject``.

    Args:
        options: of the search.
        space: of the points.
        objective: what results are worth.
        resources: for each stage, what an evaluation may occupy.
        specify: makes the task of a trial.
        walltimes: for each stage, seconds after which a run is stopped; None: never.
        consequence: what follows from a failure of a stage: ``fail``, ``infeasible`` (the point cannot be evaluated,
            which is a result) or ``stop``.
        seed: of the campaign.
        results: names of what the programs' readers find.
    """

    def __init__(
        self,
        options: SearchOptions,
        space: SearchSpace,
        objective: SearchObjective,
        resources: Sequence[Sequence[Resources]],
        specify: Specify,
        walltimes: Sequence[float | None],
        consequence: Callable[[int, Failure], str] = lambda stage, failure: "fail",
        seed: int = 0,
        results: Sequence[str] = (),
    ) -> None:
        self._results = tuple(results)
        self.options, self._space, self._objective, self._resources = options, space, objective, resources
        self._specify, self._walltimes, self._consequence, self._seed = specify, list(walltimes), consequence, seed
        self.layout = LAYOUT
        self.action_space = gymnasium.spaces.Discrete(LAYOUT.choices)
        self.observation_space = gymnasium.spaces.Box(-5.0, 5.0, (LAYOUT.length,), np.float32)
        self.goal = options.until.found or (1 if options.until.value is not None else None)
        self.masked = self.repeated = 0
        self.begin(Capacity())

    # The driver's calls.

    def begin(self, capacity: Capacity) -> None:
        """Learn the machine."""
        until = self.options.until
        budget = until.node_seconds if until.node_hours is None else 3600.0 * until.node_hours
        allocation_s = math.inf if self.options.allocation_s is None else self.options.allocation_s
        budget_s = math.inf if budget is None else budget / capacity.nodes
        self.deadline_s = min(allocation_s, budget_s, ENDLESS_S)
        self.reward_scale = 1.0 / (budget or self.deadline_s * capacity.nodes)
        self.state = SearchState(self.options, self._space, self._objective, self._resources, capacity, self._seed)
        self.state.deadline_s = self.deadline_s
        self._decision: Decision | None = None
        self._offered: list[Proposal | None] | None = None
        self._changed = True
        self._asked: dict[TaskId, int] = {}
        self._in_a_row = 0
        self._stopped_by = ""

    def on_time(self, time_s: float) -> None:
        """The clock stands at ``time_s``; runs may be late."""
        state = self.state
        state.now_s = max(state.now_s, time_s)
        for trial in state.running.values():
            if state.now_s >= self._late_s(trial) and state.subject is None:
                self._asked[trial.uid] = self._asked.get(trial.uid, 0) + 1
                state.subject = trial

    @property
    def wake_s(self) -> float:
        """When the next run is late."""
        return min(map(self._late_s, self.state.running.values()), default=math.inf)

    def on_machine(self, machine: Machine) -> None:
        """Nodes have come or gone."""
        self.state.pool.change(machine.down)
        self._changed = True

    def on_event(self, event: Event) -> None:
        """A run began, reported, or ended."""
        trial = self.state.running.get(event.uid)
        if trial is None:
            return
        if event.progress is not None:
            trial.progress.append((event.time_s, float(event.progress["progress"])))
            self.state.subject = trial
        elif event.result is not None:
            self._ended(trial, event)
        elif event.state is TaskState.RUNNING:
            trial.started_s = event.time_s
        elif event.state in (TaskState.QUEUED, TaskState.PREEMPTED):
            trial.started_s = None

    def decision(self) -> Decision | None:
        """What to do about a run, or what to start."""
        if self._decision is None and not self.outcome().ended:
            state = self.state
            if state.subject is not None and state.subject.uid not in state.running:
                state.subject = None
            if state.subject is None and not (self._changed and self._startable()):
                return None
            fields = {
                "state": state,
                "running": len(state.running),
                "ended": len(state.trials) - len(state.running),
                "best": None if state.best is None else state.best.number,
                "asks_about": None if state.subject is None else state.subject.number,
            }
            self._offered = None
            self._decision = Decision("search", state.now_s, fields, observe=self._observe)
        return self._decision

    def apply(self, action: Action) -> list[Command]:
        """Start an evaluation, stop a run, or wait."""
        state, about = self.state, self.state.subject
        self._decision, state.subject = None, None
        named = self._named(action)
        if "stop" in named:
            trial = next((t for t in state.running.values() if t.number == named["stop"]), None)
            if trial is not None:
                return [Cancel(trial.uid)]
            self.masked += 1
            return [Wait()]
        if "evaluate" in named:
            commands = self._evaluate(named)
            if commands is not None:
                return commands
        elif about is not None or state.running:  # to wait
            self._changed = self._changed and about is not None
            return [Wait()]
        self.masked += 1
        return self._evaluate({"evaluate": self._random()}) or [Wait()]

    def outcome(self) -> Outcome:
        """How it stands."""
        state, until = self.state, self.options.until
        results = state.results
        feasible = [assessment for _, assessment in results if assessment.feasible]
        best = (
            min((assessment.losses[0] for assessment in feasible), default=math.inf)
            if self._objective.names
            else math.inf
        )
        found = len(feasible) if self._objective.finds else 0
        reached = (until.found is not None and found >= until.found) or (
            until.value is not None and best <= self._objective.signs[0] * until.value
        )
        successes = found if self._objective.finds else int(reached) if until.value is not None else len(feasible)
        over = (
            bool(self._stopped_by)
            or state.now_s >= self.deadline_s
            or (until.evaluations is not None and len(results) >= until.evaluations)
            or (until.no_improvement is not None and self._since_improvement() >= until.no_improvement)
            or (not state.running and not self._startable())
        )
        counts = dict.fromkeys(TrialStatus, 0)
        for trial in state.trials:
            counts[trial.status] += 1
        extra = {f"evaluations_{status.value}": float(count) for status, count in counts.items()}
        extra |= {"masked_actions": float(self.masked), "repeated_points": float(self.repeated)}
        if math.isfinite(best) and len(self._objective.names) == 1:
            extra["best"] = self._objective.signs[0] * best
        return Outcome(reached or over, reached, successes, 0.0, extra)

    # What people see.

    def named(self, action: Action) -> Mapping[str, Any]:
        """Parameters of the point, or what else the answer is."""
        return shown_choice(self.state, self._named(action))

    def evaluations(self) -> list[dict[str, Any]]:
        """See ``evaluation_rows``."""
        ended = self.outcome().ended
        return [evaluation_row(self.state, trial, ended) for trial in self.state.trials]

    def findings(self) -> Findings:
        """Likewise."""
        return findings(self.state, self._results)

    # What happens to trials.

    def _ended(self, trial: Trial, event: Event) -> None:
        result = event.result
        assert result is not None
        trial.ended_s, trial.message = event.time_s, result.message
        if trial.started_s is None:  # it never began, or its beginning was not seen
            trial.started_s = max(result.started_s, trial.queued_s)
        self.state.release(trial)
        self._changed = True
        if event.state is TaskState.CANCELED:
            trial.status = TrialStatus.STOPPED
        elif result.failure is not None:
            trial.kind = result.failure.value
            self._no_result(trial, self._consequence(trial.stage, result.failure))
        elif "then" in result.values:
            trial.kind, trial.message = str(result.values["kind"]), str(result.values["message"])
            self._no_result(trial, result.values["then"])
        else:
            trial.results = result.values["outputs"]
            try:
                trial.assessment = self._objective.assess({**trial.values, **trial.results})
                trial.status = TrialStatus.DONE
            except ConfigError as error:
                trial.status, trial.kind, trial.message = TrialStatus.FAILED, "read", str(error)
        self.state.ended(trial)

    def _no_result(self, trial: Trial, then: str) -> None:
        trial.status = TrialStatus.INFEASIBLE if then == "infeasible" else TrialStatus.FAILED
        if then == "stop":
            self._stopped_by = f"evaluation {trial.number}: {trial.kind}: {trial.message}"

    def _late_s(self, trial: Trial) -> float:
        """When a decision asks next whether to stop a run."""
        median_s, asked = self.state.median_s(trial.stage), self._asked.get(trial.uid, 0)
        if trial.started_s is None or median_s is None or asked == len(LATE):
            return math.inf
        return trial.started_s + LATE[asked] * median_s

    def _since_improvement(self) -> int:
        """Results that count since the best of them."""
        best, since = math.inf, 0
        for _, assessment in self.state.results:
            since += 1
            if assessment.feasible and assessment.losses and assessment.losses[0] < best:
                best, since = assessment.losses[0], 0
        return since

    # Decisions.

    def _startable(self) -> bool:
        """Whether any evaluation can start now."""
        return not self.state.exhausted and any(
            self.state.fitting(stage) and self._in_time(stage, None) for stage in range(len(self._resources))
        )

    def _in_time(self, stage: int, walltime_s: float | None) -> bool:
        """Whether a run would reach its walltime before the allocation ends."""
        limit_s = self._walltimes[stage] if walltime_s is None else walltime_s
        return self.options.start_late or limit_s is None or self.state.now_s + limit_s <= self.deadline_s

    def _observe(self) -> tuple[NDArray[np.float32], Mask]:
        rows = self._rows()
        return observe(self.state, rows), np.array([row is not None for row in rows], np.bool_)

    def _rows(self) -> list[Proposal | None]:
        if self._offered is None:
            self._offered = offered(self.state)
        return self._offered

    def _named(self, action: Action) -> Mapping[str, Any]:
        if isinstance(action, Mapping):
            return action
        index = int(np.asarray(action).reshape(-1)[0])
        row = self._rows()[index] if 0 <= index < LAYOUT.choices else None
        return {} if row is None else row.named(self.state)

    def _random(self) -> Mapping[str, Any]:
        """A random point that was not evaluated yet."""
        rng = np.random.default_rng([self._seed, len(self.state.trials), self.masked])
        points = self._space.sample(rng, 100)
        new = [point for point in points if self.state.tried(point, self.state.counts) is None]
        return self._space.values(new[0] if new else points[0])

    def _evaluate(self, named: Mapping[str, Any]) -> list[Command] | None:
        """The commands that start an evaluation; None: it is not possible."""
        state = self.state
        try:
            point = self._space.point(named["evaluate"])
            stage = state.stages.index(str(named.get("stage", state.stages[state.counts])))
        except (ConfigError, ValueError, TypeError):
            return None
        fitting = state.fitting(stage)
        need = next((need for need in fitting if _meant(need, named)), None)
        walltime_s = named.get("walltime_s")
        if need is None or not self._space.allowed(named["evaluate"]) or not self._in_time(stage, walltime_s):
            return None
        if not self.options.noisy and state.tried(point, stage) is not None:
            self.repeated += 1
            self._in_a_row += 1
            return [Wait()] if self._in_a_row < _MOST_REPEATED and state.running else None
        self._in_a_row = 0
        return [Start(self._specify(self._trial(point, stage, need, walltime_s))) for _ in range(self.options.repeats)]

    def _trial(self, point: Floats, stage: int, need: Resources, walltime_s: float | None) -> Trial:
        number = len(self.state.trials)
        trial = Trial(
            number,
            point,
            self.state.key(point, stage),
            self._space.values(point),
            stage,
            need,
            TaskId(f"evaluation{number:05d}"),
            self.state.nodes(need),
            self.state.now_s,
            walltime_s=walltime_s,
        )
        self.state.add(trial)
        return trial


def _meant(need: Resources, named: Mapping[str, Any]) -> bool:
    """Whether an answer asks for these resources, as far as it says so."""
    asked = (("ranks", need.ranks), ("cores", need.cores_per_rank), ("gpus", need.gpus_per_rank))
    return all(named.get(name, value) == value for name, value in asked)
