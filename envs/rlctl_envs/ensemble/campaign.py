"""The campaign of an ensemble: which task next, on how much of the machine, and which to stop."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from rlctl.core.campaign import (
    Action,
    Campaign,
    Cancel,
    Command,
    Decision,
    Mask,
    Outcome,
    ResidualChoices,
    Start,
    Update,
    Wait,
)
from rlctl.core.machine import Capacity, Machine, Scoring
from rlctl.core.task import Event, TaskId, TaskSpec, TaskState
from rlctl_envs.ensemble import features, rigid_features
from rlctl_envs.ensemble.active_task import ActiveTask, TaskPhase
from rlctl_envs.ensemble.choices import WAITING, Choice, ChoiceKind, choice_mask, named_choice, preferred, shortlist
from rlctl_envs.ensemble.job_request import JobRequest, TaskShape
from rlctl_envs.ensemble.lifecycle import TaskLifecycle
from rlctl_envs.ensemble.nearest_choice import nearest_choice
from rlctl_envs.ensemble.next_job import NextJob
from rlctl_envs.ensemble.options import EnsembleOptions
from rlctl_envs.ensemble.state import EnsembleState, TrueDuration

Specify = Callable[[JobRequest, TaskShape, TaskId, int, float], TaskSpec]
"""The task that a start becomes: job, shape, name, number of the attempt, seconds between reports (0: none)."""


class EnsembleCampaign(Campaign):
    """Decides which task runs next, on how much of the machine, and which stops. Its one subject is ``ensemble``.

    Action: Discrete, a choice of ``choices.shortlist``; or named quantities: ``start`` (number of a task) with
    ``ranks`` and ``gpu``, ``stop`` (a number), ``resize`` (a number) with ``ranks`` and ``gpu``, or ``wait: True``. An
    answer that is not allowed becomes waiting, or, where nothing would happen then, the first start that is offered.

    A decision is due when a task arrives, ends or reports, or when nodes come or go, provided that anything but waiting
    is possible.

    Args:
        options: of the ensemble.
        jobs: every task that may ever arrive, by number; the policy learns of one when it arrives.
        specify: makes the task that a start becomes. A task has succeeded if it says that its ``quality`` is worth it,
            or says nothing of it.
        truth: what tasks really take, for rules that are there for comparison; None: hidden.
        scoring: which nodes tasks go to, as the executor has it.
        runs_s: what each job really takes, where slowdowns are over that.
    """

    def __init__(
        self,
        options: EnsembleOptions,
        jobs: Sequence[JobRequest],
        specify: Specify,
        truth: TrueDuration | None = None,
        scoring: Scoring | None = None,
        runs_s: Sequence[float] | None = None,
    ) -> None:
        self.options = options
        window = options.objective.window_s
        self.deadline_s = options.allocation_s if window is None else min(options.allocation_s, window[1])
        self.layout = self._layout = (rigid_features if options.rigid else features).layout(options)
        self._prior = self._layout.once + (self._layout.prior or 0)
        self.action_space = gymnasium.spaces.Discrete(options.slots)
        self.observation_space = gymnasium.spaces.Box(-5.0, 5.0, (self.layout.length,), np.float32)
        self.masked = 0
        self.resizes = 0
        self._jobs = jobs
        self._specify = specify
        self._truth = truth
        self._scoring = scoring
        self._runs_s = runs_s
        self._decision: Decision | None = None
        self._choices: list[Choice | None] | None = None
        self._begin(Capacity(), [])

    # The driver's calls.

    def begin(self, capacity: Capacity) -> None:
        """Take the machine's capacity, and let the first tasks arrive."""
        self._begin(capacity, self._jobs)
        self.tasks.arrivals() if self._next is None else self._next.follow_up()

    def _begin(self, capacity: Capacity, jobs: Sequence[JobRequest]) -> None:
        rigid = self.options.rigid
        self.state = EnsembleState(self.options, capacity, self._truth, self._scoring)
        self.tasks = TaskLifecycle(self.options, jobs, self.state, self._runs_s)
        self._next: NextJob | None = None
        if rigid in ("next", "next_backfilled"):
            self._next = NextJob(self.tasks, self.state, self._start, rigid == "next_backfilled")
        self.reward_scale = self.tasks.account.scale

    def on_time(self, time_s: float) -> None:
        """Advance the clock; tasks whose time has come arrive."""
        if time_s > self.state.now_s:
            self.state.now_s = time_s
            self.tasks.account.elapse(time_s)
        if self._next is None:
            self.tasks.arrivals()

    def follow_up(self) -> Sequence[Command]:
        """Starts of rigid jobs that a decision before has committed, or that fit in before these."""
        return () if self._next is None or self._stands()[1] else self._next.follow_up()

    @property
    def wake_s(self) -> float:
        """When the next task arrives."""
        return self.tasks.coming[-1][0] if self.tasks.coming else math.inf

    def on_machine(self, machine: Machine) -> None:
        """Take changes of nodes; tasks on nodes that went are placed anew."""
        self.tasks.account.paid_nodes = machine.paid
        for task in self.state.on_machine(machine):
            self.tasks.displaced(task)
        self.tasks.place_again()
        self.tasks.happened()
        if self._next is not None:
            self._next.look_again = True

    def on_event(self, event: Event) -> None:
        """Take a start, report, loss or end of a task."""
        task = self.tasks.uids.get(event.uid)
        if task is None or task.uid != event.uid:
            return
        if event.progress is not None:
            self.tasks.progressed(task, event)
        elif event.result is not None:
            (self.tasks if self._next is None else self._next).ended(task, event)
        elif event.state is TaskState.RUNNING:
            self.tasks.runs(task, event)
        elif event.state is TaskState.PREEMPTED and not task.resizing:
            self.tasks.displaced(task)

    def decision(self) -> Decision | None:
        """The open decision, if something has happened and anything but waiting is possible."""
        if self._decision is None and (self.tasks.changed or self._next) and not self._stands()[1]:
            more = bool(self.state.running or self.tasks.coming) or not self._whole()
            self.state.may_wait = more and self._next is None
            if self._possible():
                state = self.state
                fields = {
                    "state": state,  # what rules read; the rest is for curves
                    "waiting": len(state.waiting),
                    "blocked": len(state.blocked),
                    "running": len(state.running),
                    "ended": len(state.ended),
                    "free_cores": state.free_cores,
                    "free_gpus": state.free_gpus,
                }
                self._choices = None
                self._decision = Decision(
                    "ensemble", state.now_s, fields, observe=self._observe, residual=self._residual_choices,
                    nearest=lambda named: nearest_choice(self._offered(), self._named(named)),
                )  # fmt: skip
            else:
                self.tasks.changed = False
        return self._decision

    def apply(self, action: Action) -> list[Command]:
        """Start, stop or change a task, or wait."""
        choice = self._chosen(action)
        if choice is None:
            self.masked += 1
            choice = self._default()
        self._decision, self._choices = None, None
        if choice.task is None:
            self.tasks.changed, self.state.reported = False, None
            return [Wait()]
        if choice.kind is ChoiceKind.STOP:
            return self._stop(choice.task)
        if choice.kind is ChoiceKind.RESIZE:
            return self._resize(choice.task, choice.shape)
        if self._next is not None:
            return self._next.commit(choice.task) or [Wait()]
        return self._start(choice.task, choice.shape)

    def outcome(self) -> Outcome:
        """The result so far; it ends when the goal is reached, nothing is left, or the allocation or window ends."""
        state, account, goal = self.state, self.tasks.account, self.options.objective.goal
        reached, ended = self._stands()
        extra = {
            "masked_actions": float(self.masked),
            "tasks": float(len(state.tasks)),
            "tasks_failed": float(state.counts[TaskPhase.FAILED]),
            "tasks_stopped": float(state.counts[TaskPhase.STOPPED]),
            "attempts_failed": float(self.tasks.failures),
            "resizes": float(self.resizes),
            "occupancy": account.occupied_s / max(account.watched_s, 1e-9),
            "work": account.work,
            "full": account.full_s / max(account.watched_s, 1e-9),
        }
        potential = account.potential(reached or (ended and goal is not None))  # then what is missing has its price
        return Outcome(ended, reached, account.successes, potential, extra, account.cost(ended))

    def _stands(self) -> tuple[bool, bool]:
        """Whether the goal is reached, and whether the campaign has ended."""
        state, objective = self.state, self.options.objective
        left = bool(state.waiting or state.running or state.blocked or self.tasks.coming)
        if objective.goal is not None:
            reached = self.tasks.account.successes >= objective.goal
        else:
            reached = not left and objective.window_s is None and state.counts[TaskPhase.DONE] > 0
        return reached, reached or not left or state.now_s >= self.deadline_s

    def named(self, action: Action) -> Mapping[str, Any]:
        """The task that the answer starts, stops or resizes, or that it waits."""
        return (self._chosen(action) or self._default()).named()

    # Decisions.

    def _whole(self) -> bool:
        return not self.state.pool.absent and self.state.pool.nodes == self.state.capacity.nodes

    def _possible(self) -> bool:
        """Whether anything but waiting is possible."""
        state = self.state
        if self.tasks.again:
            return False  # it is the executor's first in the queue: nothing may overtake it
        if self._next is not None:
            return self._next.due
        if state.startable_now:
            return True
        task = state.reported
        if task is not None and task.settled and (self.options.stop or (self.options.resize and state.wider(task))):
            return True
        if self.options.resize and state.free_cores > 0 and not state.waiting:
            return any(s.ranks > t.shape.ranks for t in state.running.values() for s in state.wider(t))
        return False

    def _offered(self) -> list[Choice | None]:
        if self._choices is None:
            self._choices = shortlist(self.state)
        return self._choices

    def _observe(self) -> tuple[NDArray[np.float32], Mask]:
        choices = self._offered()
        return self._features(choices), choice_mask(choices)

    def _features(self, choices: Sequence[Choice | None]) -> NDArray[np.float32]:
        if self.options.rigid is not None:
            return rigid_features.observe(self.state, choices)
        return features.observe(self.state, choices, self._goal_left())

    def _residual_choices(self, proposal: Mapping[str, Any]) -> ResidualChoices:
        """The same choices, with the rule's own among them and marked; or those that it prefers, if it says so."""
        decision, queue, stride = self._decision, self.state.queue, self._layout.sets[0][1]
        assert decision is not None
        wanted = self._named(proposal) or self._default()
        preferences = proposal.get("preferences")
        if queue is not None and len(queue) and preferences is not None:
            choices, prior = preferred(self.state, queue, preferences, self.options.slots - 1)
            if wanted.task is None:
                prior[0] = 1.0
            observation, mask = self._features(choices), choice_mask(choices)
            observation[self._prior + np.arange(len(choices)) * stride] = prior
            return ResidualChoices((), mask, lambda indices: named_choice(choices, indices), observation)
        choices = list(self._offered())
        if wanted in choices:
            index = choices.index(wanted)
            observation, mask = decision.observation.copy(), decision.mask
        else:  # in place of the last start
            index = len(choices) - 1 if None not in choices[1:] else 1 + choices[1:].index(None)
            choices[index] = wanted
            observation, mask = self._features(choices), choice_mask(choices)
        observation[self._prior + index * stride] = 1.0
        return ResidualChoices((), mask, lambda indices: named_choice(choices, indices), observation)

    def _goal_left(self) -> float:
        goal = self.options.objective.goal
        return 0.0 if goal is None else 1.0 - self.tasks.account.successes / goal

    def _default(self) -> Choice:
        if self.state.may_wait:
            return WAITING
        if self._next is not None:
            return next(choice for choice in self._offered() if choice is not None)
        for group in self.state.startable():
            task = next(iter(group.values()))
            return Choice(ChoiceKind.START, task, self.state.fitting(task)[0])
        return WAITING

    def _chosen(self, action: Action) -> Choice | None:
        """The choice that an action selects; None if it is not allowed."""
        if isinstance(action, Mapping):
            return self._named(action)
        index, offered = int(np.asarray(action).reshape(-1)[0]), self._offered()
        return offered[index] if 0 <= index < len(offered) else None

    def _named(self, named: Mapping[str, Any]) -> Choice | None:
        state = self.state
        if named.get("wait"):
            return WAITING if state.may_wait else None
        if "stop" in named:
            task = state.running.get(named["stop"])
            allowed = task is not None and self.options.stop and task.settled
            return Choice(ChoiceKind.STOP, task) if allowed else None
        shape = TaskShape(int(named.get("ranks", 1)), bool(named.get("gpu", False)))
        if "start" in named:
            task = state.waiting.get(named["start"])
            if task is not None and state.queue is not None:
                shape = task.shapes[0]
            if task is not None and self._next is not None:
                return Choice(ChoiceKind.START, task, shape)
            fits = task is not None and shape in task.shapes and state.fits(task, shape)
            return Choice(ChoiceKind.START, task, shape) if fits else None
        task = state.running.get(named.get("resize", -1))
        if task is None or not self.options.resize or shape not in state.wider(task):
            return None
        return Choice(ChoiceKind.RESIZE, task, shape)

    # What is done.

    def _start(self, task: ActiveTask, shape: TaskShape) -> list[Command]:
        if not self.tasks.start(task, shape):  # the ranks fit, but not so on these nodes
            self.tasks.changed = False
            return [Wait()]
        number, attempt = task.job.number, task.starts - 1
        task.uid = TaskId(f"task{number:05d}-{attempt:02d}")
        self.tasks.uids[task.uid] = task
        reports = self.options.workload.reports
        # Of all of its work: one that goes on must not report ever sooner, and be stopped ever sooner.
        every_s = self.state.whole_seconds(task, shape) / (reports + 1) if reports else 0.0
        return [Start(self._specify(task.job, shape, task.uid, attempt, every_s))]

    def _stop(self, task: ActiveTask) -> list[Command]:
        assert task.uid is not None
        task.stopping = True
        self.state.reported = None
        return [Cancel(task.uid)]

    def _resize(self, task: ActiveTask, shape: TaskShape) -> list[Command]:
        assert task.uid is not None
        self.state.reported = None
        self.tasks.changed = self.tasks.resize(task, shape)
        if not self.tasks.changed:
            return [Wait()]
        self.resizes += 1
        return [Update(task.uid, task.job.need(shape))]
