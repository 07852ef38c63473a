"""The campaign of a search: which point next, at which stage, on what resources, and which run to stop."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from rlctl.core.campaign import Action, Campaign, Cancel, Command, Decision, Mask, Outcome, Start, Wait
from rlctl.core.errors import ConfigError
from rlctl.core.machine import Capacity, Machine
from rlctl.core.task import Event, Failure, Resources, TaskId, TaskSpec, TaskState
from rlctl_envs.search.answers import Evaluate, Pause, Stop, understood
from rlctl_envs.search.objective import Assessment, SearchObjective
from rlctl_envs.search.options import SearchOptions
from rlctl_envs.search.proposals import LAYOUT, Proposal, observe, offered
from rlctl_envs.search.search_state import SearchState, Space
from rlctl_envs.search.trials import Trial, TrialStatus

Specify = Callable[[Trial], TaskSpec]
"""The task of a trial."""

LATE = (1.5, 3.0, 6.0, 12.0, 24.0)
"""A decision asks whether to stop a run when it has taken so many times the median of its stage."""

_MOST_REPEATED = 10
_MOST_ON_TWIN = 1000
"""Points that a search on a twin evaluates at most, should it be without end."""

_USUAL_S, _USUAL_EVALUATIONS = 60.0, 50


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
    """

    def __init__(
        self,
        options: SearchOptions,
        space: Space,
        objective: SearchObjective,
        resources: Sequence[Sequence[Resources]],
        specify: Specify,
        walltimes: Sequence[float | None],
        consequence: Callable[[int, Failure], str] = lambda stage, failure: "fail",
        seed: int = 0,
    ) -> None:
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
        until, options = self.options.until, self.options
        budget = until.node_seconds if until.node_hours is None else 3600.0 * until.node_hours
        allocation_s = math.inf if options.allocation_s is None else options.allocation_s
        self.deadline_s = min(allocation_s, math.inf if budget is None else budget / capacity.nodes)
        state = SearchState(
            options, self._space, self._objective, self._resources, capacity, self._walltimes, self._seed
        )
        self.state = state
        state.deadline_s = self.deadline_s
        self.reward_scale = 1.0 / (capacity.nodes * min(self.deadline_s, self._usual_s(state)))
        self._decision: Decision | None = None
        self._offered: list[Proposal | None] | None = None
        self._changed = True
        self._subjects: dict[TaskId, Trial] = {}
        self._asked: dict[TaskId, int] = {}
        self._in_a_row = 0
        self._stopped_by = ""
        self._goals: list[bool] = []

    def _usual_s(self, state: SearchState) -> float:
        """Seconds that a search takes about, to scale rewards where there is no budget in time."""
        need, walltime_s = state.resources[state.counts][0], self._walltimes[state.counts]
        parallel = max(1.0, state.capacity.nodes / max(state.nodes(need), 1e-9))
        each_s = _USUAL_S if walltime_s is None else 0.2 * walltime_s
        return each_s * max(1.0, (self.options.until.evaluations or _USUAL_EVALUATIONS) / parallel)

    def on_time(self, time_s: float) -> None:
        """The clock stands at ``time_s``; runs may be late."""
        state = self.state
        state.now_s = max(state.now_s, time_s)
        for trial in state.running.values():
            if state.now_s >= self._late_s(trial):
                self._asked[trial.uid] = self._asked.get(trial.uid, 0) + 1
                self._subjects[trial.uid] = trial

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
            self._subjects[trial.uid] = trial
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
            about = next((trial for uid, trial in self._subjects.items() if uid in state.running), None)
            if about is None:
                self._subjects.clear()
                if not (self._changed and self._startable()):
                    return None
            state.subject = about
            fields = {
                "state": state,
                "running": len(state.running),
                "ended": len(state.trials) - len(state.running),
                "best": None if state.best is None else state.best.number,
                "asks_about": None if about is None else about.number,
            }
            self._offered = None
            self._decision = Decision("search", state.now_s, fields, observe=self._observe)
        return self._decision

    def refuses(self, action: Action) -> str | None:
        """Why an action is not allowed at the open decision."""
        answer = understood(self.state, self._named(action))
        return answer if isinstance(answer, str) else None

    def excuses(self, event: Event) -> bool:
        """Whether a failure only says that a point cannot be evaluated."""
        trial = self.state.running.get(event.uid)
        if trial is None or event.result is None or event.result.failure is None:
            return False
        return self._consequence(trial.stage, event.result.failure) == "infeasible"

    def apply(self, action: Action) -> list[Command]:
        """Start an evaluation, stop a run, or wait."""
        state, about = self.state, self.state.subject
        answer = understood(state, self._named(action))
        self._decision, state.subject = None, None
        if about is not None:
            self._subjects.pop(about.uid, None)
        if isinstance(answer, str):
            self.masked += 1
            if about is not None:
                return [Wait()]
            answer = self._random() or Pause()
        if isinstance(answer, Stop):
            return [Cancel(answer.trial.uid)]
        if isinstance(answer, Evaluate):
            commands = self._evaluate(answer)
            if commands is not None:
                return commands
        self._changed = self._changed and about is not None
        return [Wait()]

    def outcome(self) -> Outcome:
        """How it stands."""
        state, until = self.state, self.options.until
        results = state.results
        feasible = [assessment for _, assessment in results if assessment.feasible]
        best = min((assessment.losses[0] for assessment in feasible if assessment.losses), default=math.inf)
        found = len(feasible) if self._objective.finds else 0
        reached = (
            (until.found is not None and found >= until.found)
            or (until.value is not None and best <= self._objective.signs[0] * until.value)
            or (self.goal is None and bool(self._goals) and all(self._goals))
        )
        if self._objective.finds:
            successes = found
        else:
            successes = int(reached) if until.value is not None or self._goals else len(feasible)
        over = (
            bool(self._stopped_by)
            or state.now_s >= self.deadline_s
            or (until.evaluations is not None and len(results) >= until.evaluations)
            or (until.no_improvement is not None and self._since_improvement() >= until.no_improvement)
            or (bool(self._goals) and state.started >= _MOST_ON_TWIN)
            or (not state.running and not self._startable())
        )
        counts = dict.fromkeys(TrialStatus, 0)
        for trial in state.trials:
            counts[trial.status] += 1
        extra = {f"evaluations_{status.value}": float(count) for status, count in counts.items()}
        extra |= {"masked_actions": float(self.masked), "repeated_points": float(self.repeated)}
        if math.isfinite(best):
            extra["best"] = self._objective.signs[0] * best
        return Outcome(reached or over, reached, successes, 0.0, extra)

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
            self._assess(trial, result.values)
        self.state.ended(trial)

    def _assess(self, trial: Trial, values: Mapping[str, Any]) -> None:
        """Say what results are worth; those of a twin say it themselves, and which goals they reach."""
        trial.results = values.get("outputs", {})
        try:
            if "losses" in values:
                trial.assessment = Assessment(tuple(values["losses"]), tuple(values["margins"]))
                self._goals = [old or new for old, new in zip_longest(self._goals, values["reached"], fillvalue=False)]
            else:
                trial.assessment = self._objective.assess({**trial.values, **trial.results})
            trial.status = TrialStatus.DONE
        except ConfigError as error:
            trial.status, trial.kind, trial.message = TrialStatus.FAILED, "read", str(error)

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
        return not self.state.exhausted and any(self.state.fitting(stage) for stage in range(len(self._resources)))

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

    def _random(self) -> Evaluate | None:
        """A random point that was not evaluated yet; None: nothing can start."""
        state = self.state
        stages = [state.counts, *range(len(state.stages))]
        stage = next((stage for stage in stages if state.fitting(stage)), state.counts)
        fitting = state.fitting(stage)
        point = state.untried(np.random.default_rng([self._seed, len(state.trials), self.masked, self.repeated]))
        return Evaluate(point, stage, fitting[0]) if fitting and point is not None else None

    def _evaluate(self, asked: Evaluate) -> list[Command] | None:
        """The commands that start an evaluation; None: the point was evaluated before, and it is waited instead."""
        state = self.state
        if not self.options.noisy and state.tried(asked.point, asked.stage) is not None:
            self.repeated += 1
            self._in_a_row += 1
            if state.running and self._in_a_row < _MOST_REPEATED:
                return None
            other = self._random()
            if other is None or state.tried(other.point, other.stage) is not None:
                return None
            asked = other
        self._in_a_row = 0
        return [Start(self._specify(self._trial(asked))) for _ in range(self.options.repeats)]

    def _trial(self, asked: Evaluate) -> Trial:
        number = len(self.state.trials)
        trial = Trial(
            number,
            asked.point,
            self.state.key(asked.point, asked.stage),
            self._space.values(asked.point),
            asked.stage,
            asked.need,
            TaskId(f"evaluation{number:05d}"),
            self.state.nodes(asked.need),
            self.state.now_s,
            walltime_s=asked.walltime_s,
        )
        self.state.add(trial)
        return trial
