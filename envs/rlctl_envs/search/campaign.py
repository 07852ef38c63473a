"""The campaign of a search: which point next, at which stage, on what resources, and which run to stop."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from rlctl.core.campaign import Action, Campaign, Cancel, Command, Decision, Mask, Outcome, Start, Wait
from rlctl.core.findings import Findings
from rlctl.core.machine import Capacity, Machine
from rlctl.core.task import Event, Failure, Resources, TaskId, TaskSpec, TaskState
from rlctl.surrogates.learned_process import LearnedProcess
from rlctl_envs.search.answers import Evaluate, Pause, Stop, understood
from rlctl_envs.search.evaluated_points import Space
from rlctl_envs.search.evaluation_rows import evaluation_row, findings, shown_choice
from rlctl_envs.search.known_results import learn_known
from rlctl_envs.search.objective import SearchObjective
from rlctl_envs.search.options import SearchOptions, usual_s
from rlctl_envs.search.proposals import LAYOUT, Proposal, nearest_proposal, observe, offered
from rlctl_envs.search.search_goal import SearchGoal
from rlctl_envs.search.search_state import SearchState
from rlctl_envs.search.trial_endings import end_trial
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
        prior: what earlier campaigns say, see ``SearchModel``.
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
        results: Sequence[str] = (),
        prior: Mapping[str, LearnedProcess] | None = None,
    ) -> None:
        self._results, self._prior = tuple(results), prior or {}
        self.options, self._space, self._objective, self._resources = options, space, objective, resources
        self._specify, self._walltimes, self._consequence, self._seed = specify, list(walltimes), consequence, seed
        self.layout = LAYOUT
        self.action_space = gymnasium.spaces.Discrete(LAYOUT.choices)
        self.observation_space = gymnasium.spaces.Box(-5.0, 5.0, (LAYOUT.length,), np.float32)
        self._goal = SearchGoal(options.until, objective)
        self.goal = self._goal.number
        self.masked = self.repeated = 0
        self.begin(Capacity())

    # The driver's calls.

    def begin(self, capacity: Capacity) -> None:
        """Learn the machine."""
        self._spent = 0.0, 0.0  # when the machine changed last, and node-seconds until then
        self.deadline_s = self.options.until.end_s(self.options.allocation_s, capacity.nodes)
        given = (self.options, self._space, self._objective, self._resources, capacity, self._walltimes, self._seed)
        self.state = state = SearchState(*given, prior=self._prior)
        state.deadline_s = self.deadline_s
        self.reward_scale = 1.0 / (capacity.nodes * min(self.deadline_s, self._usual_s(state)))
        self._decision: Decision | None = None
        self._offered: list[Proposal | None] | None = None
        self._changed = True
        self._subjects: dict[TaskId, Trial] = {}
        self._asked: dict[TaskId, int] = {}
        self._in_a_row = 0
        self._stopped_by = ""
        self._goal.forget()

    def _usual_s(self, state: SearchState) -> float:
        """Seconds that a search takes about, to scale rewards where there is no budget in time."""
        need, walltime_s = state.resources[state.counts][0], self._walltimes[state.counts]
        parallel = max(1.0, state.capacity.nodes / max(state.nodes(need), 1e-9))
        return usual_s(walltime_s) * max(1.0, self.options.usual_evaluations / parallel)

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
        elif event.state is TaskState.RUNNING and trial.started_s is None:  # not again when a controller takes it over
            trial.started_s = event.time_s
        elif event.state in (TaskState.QUEUED, TaskState.PREEMPTED):
            trial.started_s = None

    def decision(self) -> Decision | None:
        """What to do about a run, or what to start."""
        if self._decision is None:
            if any(self._standing()):  # what is repeated may still run
                return None
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
            self._decision = Decision(
                "search", state.now_s, fields, observe=self._observe,
                nearest=lambda named: nearest_proposal(self._rows(), understood(state, named)),
            )  # fmt: skip
        return self._decision

    def refuses(self, action: Action) -> str | None:
        """Why an action is not allowed at the open decision."""
        answer = understood(self.state, self._named(action))
        return answer if isinstance(answer, str) else None

    def excuses(self, event: Event) -> bool:
        """Whether a task only says that its point cannot be evaluated."""
        trial, result = self.state.running.get(event.uid), event.result
        if trial is None or result is None:
            return False
        if result.failure is None:
            return result.values.get("then") == "infeasible"
        return self._consequence(trial.stage, result.failure) == "infeasible"

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
        state, goal = self.state, self._goal
        reached, reason = self._standing()
        ended, counts = reached or bool(reason), dict(state.statuses)
        if ended and state.now_s < state.deadline_s:
            ended = all(trial.again is None for trial in state.running.values())
        if ended:  # the driver stops what runs
            counts[TrialStatus.STOPPED] += counts.pop(TrialStatus.RUNNING)
        if not counts[TrialStatus.KNOWN]:
            del counts[TrialStatus.KNOWN]
        extra = {f"evaluations_{status.value}": float(count) for status, count in counts.items()}
        extra |= {"masked_actions": float(self.masked), "repeated_points": float(self.repeated)}
        if len(self._objective.names) == 1 and (best := goal.best(state)) is not None:
            extra["best"] = best
        return Outcome(ended, reached, goal.successes(state), extra=extra, reason="" if reached else reason)

    def _standing(self) -> tuple[bool, str]:
        """Whether the goal is reached, and why the search ends otherwise; empty: it does not."""
        state = self.state
        reached, reason = self._goal.reached(state), self._stopped_by or self._goal.over(state)
        if not reason and not state.running and not self._startable():
            reason = "every point was evaluated" if state.exhausted else "no evaluation can start any more"
        return reached, reason

    def extend(self, other: Campaign, capacity: Capacity, time_s: float) -> None:
        """Go on with the budget, the goal, the walltimes, the resources and the programs of another search."""
        assert isinstance(other, SearchCampaign)
        since_s, spent = self._spent
        self._spent = time_s, spent + self.state.capacity.nodes * (time_s - since_s)
        self.options, self._resources, self._walltimes = other.options, other._resources, other._walltimes
        self._specify, self._consequence = other._specify, other._consequence
        self._goal = self._goal.moved(other.options.until)
        self.goal = self._goal.number
        self.deadline_s = self.options.until.end_s(self.options.allocation_s, capacity.nodes, *self._spent)
        self.state.extend(other.options, self._resources, self._walltimes, capacity, self.deadline_s)
        self._decision, self._offered, self._changed, self._stopped_by = None, None, True, ""

    def know(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Learn the rows of ``known_results.read_known``."""
        learn_known(self.state, rows)
        self._decision, self._offered, self._changed = None, None, True

    def rerun(self, numbers: Sequence[int]) -> list[Command]:
        """Start these again, at once, whatever the policy says."""
        self._stopped_by, self.state.fruitless = "", 0
        commands = list[Command]()
        for old in [self.state.trials[number] for number in numbers]:
            choices = self._resources[old.stage]
            need = old.resources if old.resources in choices else choices[0]
            commands.append(Start(self._specify(self.state.start(old.point, old.stage, need, again=old.number))))
        return commands

    def repeatable(self) -> dict[int, str]:
        """Those that failed, were infeasible or were stopped, and whose points have no result since."""
        return self.state.repeatable()

    def elsewhere(self, numbers: Sequence[int], away: bool = True) -> None:
        """These hold nothing of the machine, or wait for it after all."""
        for number in numbers:
            self.state.move(self.state.trials[number], away)
        self._changed = True

    def open_evaluations(self) -> dict[int, TaskId]:
        """Those that are queued or run."""
        return {trial.number: trial.uid for trial in self.state.running.values()}

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

    def _ended(self, trial: Trial, event: Event) -> None:
        """A run has ended: say what came of it."""
        self.state.release(trial)
        self._changed = True
        reached, stopped_by = end_trial(trial, event, self._objective, self._consequence)
        if reached is not None:
            self._goal.note(reached)
        self._stopped_by = stopped_by or self._stopped_by
        self.state.ended(trial)

    def _late_s(self, trial: Trial) -> float:
        """When a decision asks next whether to stop a run."""
        asked = self._asked.get(trial.uid, 0)
        usual_s = self.state.usual_s(trial) if trial.started_s is not None and asked < len(LATE) else None
        return math.inf if usual_s is None else (trial.started_s or 0.0) + LATE[asked] * usual_s

    def _startable(self) -> bool:
        """Whether any evaluation can start now."""
        state, stages = self.state, range(len(self._resources))
        return not state.exhausted and self._goal.room(state) and any(state.fitting(stage) for stage in stages)

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
        how = (asked.point, asked.stage, asked.need, asked.walltime_s)
        return [Start(self._specify(state.start(*how))) for _ in range(self.options.repeats)]
