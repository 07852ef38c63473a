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
from rlctl_envs.ensemble.account import Account
from rlctl_envs.ensemble.attempts import Attempts
from rlctl_envs.ensemble.choices import WAITING, Choice, Kind, shortlist
from rlctl_envs.ensemble.features import CHOICE, GLOBALS, layout, observe
from rlctl_envs.ensemble.job import Gpu, Job, Shape
from rlctl_envs.ensemble.live import Live, Report, Status
from rlctl_envs.ensemble.options import Options
from rlctl_envs.ensemble.scaling import Scaling
from rlctl_envs.ensemble.state import State, Truth
from rlctl_envs.ensemble.truth import WORTH

SOON = 1e-6
"""What is due within this share of the time that has passed is due now: clocks round."""

Specify = Callable[[Job, Shape, TaskId, int, float], TaskSpec]
"""The task that a start becomes: job, shape, name, number of the attempt, seconds between reports (0: none)."""


class EnsembleCampaign(Campaign):
    """Decides which task runs next, on how much of the machine, and which stops. Its one subject is ``ensemble``.

    Action: Discrete, a choice of ``choices.shortlist``; or named quantities: ``start`` (number of a task) with
    ``ranks`` and ``gpu``, ``stop`` (a number), ``resize`` (a number) with ``ranks`` and ``gpu``, or ``wait: True``. An
    answer that is not allowed becomes waiting, or, where nothing would happen then, the first start that is offered.

    A decision is due when a task arrives, ends or reports, or when nodes come or go, provided that anything but waiting
    is possible.

    Args:
        options: the game.
        jobs: every task that may ever arrive, by number; the policy learns of one when it arrives.
        specify: makes the task that a start becomes. A task has succeeded if it says that its ``quality`` is worth it,
            or says nothing of it.
        truth: what tasks really take, for rules that are there for comparison; None: nobody knows.
        scoring: which nodes tasks go to, as the executor has it.
    """

    def __init__(
        self,
        options: Options,
        jobs: Sequence[Job],
        specify: Specify,
        truth: Truth | None = None,
        scoring: Scoring | None = None,
    ) -> None:
        self.options = options
        window = options.objective.window_s
        self.deadline_s = options.allocation_s if window is None else min(options.allocation_s, window[1])
        self.layout = layout(options)
        self.action_space = gymnasium.spaces.Discrete(options.slots)
        self.observation_space = gymnasium.spaces.Box(-5.0, 5.0, (self.layout.length,), np.float32)
        self.masked = 0
        self.failures = 0
        self.resizes = 0
        self._jobs = jobs
        self._specify = specify
        self._truth = truth
        self._scoring = scoring
        self._references_s: list[float] = []  # estimated time of each job on the ranks that it was submitted for
        self._shapes: list[tuple[Shape, ...]] = []  # what each can ever be started on
        self._uids: dict[TaskId, Live] = {}
        self._coming: list[tuple[float, int]] = []  # arrivals, the next one last
        self._stirred = True
        self._decision: Decision | None = None
        self._choices: list[Choice | None] | None = None
        self.state = State(options, Capacity(), truth)
        self.account = Account(options.objective, self.state, [], [])
        self._attempts = Attempts(self.state, self.account)
        self.reward_scale = self.account.scale

    # The driver's calls.

    def begin(self, capacity: Capacity) -> None:
        """Learn the machine; those tasks arrive that are there at the beginning."""
        self.state = state = State(self.options, capacity, self._truth, self._scoring)
        w = self.options.workload
        power = float(capacity.total_cores)
        if w.gpus.need + w.gpus.gain > 0.0:
            power += capacity.total_gpus * math.sqrt(w.gpus.gains.low * w.gpus.gains.high)
        for job in self._jobs:
            if job.kind not in state.scalings:
                state.scalings[job.kind] = Scaling(w.serial, w.kappa, job.gain if job.gpu is not Gpu.NO else 1.0)
        # By what is believed before any has run: the price of waiting must not depend on what a policy measures.
        self._references_s = [
            state.scalings[job.kind].seconds(job.estimate_s, job.requested_ranks, job.gpu is Gpu.NEED)
            for job in self._jobs
        ]
        self._shapes = [state.shapes(job) for job in self._jobs]
        lives = [Live(job, 0.0, 0.0, shapes) for job, shapes in zip(self._jobs, self._shapes, strict=True)]
        areas, gpu_s = [state.least_area(task) for task in lives], [state.gpu_seconds(task) for task in lives]
        self.account = Account(self.options.objective, state, areas, gpu_s)
        self._attempts = Attempts(state, self.account)
        self.reward_scale = self.account.scale
        arrivals = [(job.arrives + job.offered / power, job.number) for job in self._jobs if job.parent is None]
        self._coming = sorted(arrivals, reverse=True)
        self._arrivals()

    def on_time(self, time_s: float) -> None:
        """The clock stands at ``time_s``; tasks may have arrived."""
        if time_s > self.state.now_s:
            self.state.now_s = time_s
            self.account.elapse(time_s)
        self._arrivals()

    @property
    def wake_s(self) -> float:
        """When the next task arrives."""
        return self._coming[-1][0] if self._coming else math.inf

    def on_machine(self, machine: Machine) -> None:
        """Nodes have come or gone. What was on those that went has to be placed anew."""
        self.account.paid(machine.paid)
        for task in self.state.on_machine(machine):
            self._attempts.displaced(task)
        self._attempts.place_again()
        self._stir()

    def on_event(self, event: Event) -> None:
        """A task started, reported, was lost, or ended."""
        task = self._uids.get(event.uid)
        if task is None or task.uid != event.uid:
            return
        if event.progress is not None:
            self._heard(task, event)
        elif event.result is not None:
            self._ended(task, event)
        elif event.state is TaskState.RUNNING:
            self._attempts.runs(task, event)
        elif event.state is TaskState.PREEMPTED and not task.resizing:
            self._attempts.displaced(task)

    def decision(self) -> Decision | None:
        """What next, while anything but waiting is possible and something has happened."""
        if self._decision is None and self._stirred and not self.outcome().ended:
            self.state.may_wait = bool(self.state.running or self._coming) or not self._whole()
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
                    "ensemble", self.state.now_s, fields, observe=self._look, residual=self._around
                )
            else:
                self._stirred = False
        return self._decision

    def apply(self, action: Action) -> list[Command]:
        """Start, stop or change a task, or wait."""
        choice = self._chosen(action)
        if choice is None:
            self.masked += 1
            choice = self._default()
        self._decision, self._choices = None, None
        if choice.task is None:
            self._stirred, self.state.reported = False, None
            return [Wait()]
        if choice.kind is Kind.STOP:
            return self._stop(choice.task)
        if choice.kind is Kind.RESIZE:
            return self._resize(choice.task, choice.shape)
        return self._start(choice.task, choice.shape)

    def outcome(self) -> Outcome:
        """How it stands; over when the goal is reached, nothing is left, or the allocation or the window ends."""
        state, account, goal = self.state, self.account, self.options.objective.goal
        left = bool(state.waiting or state.running or state.blocked or self._coming)
        window = self.options.objective.window_s
        all_done = not left and self.counts[Status.DONE] > 0
        reached = window is None and (all_done if goal is None else account.successes >= goal)
        ended = reached or not left or state.now_s >= self.deadline_s
        extra = {
            "masked_actions": float(self.masked),
            "tasks": float(state.works),
            "tasks_failed": float(self.counts[Status.FAILED]),
            "tasks_stopped": float(self.counts[Status.STOPPED]),
            "attempts_failed": float(self.failures),
            "resizes": float(self.resizes),
            "occupancy": account.occupied_s / max(account.watched_s, 1e-9),
            "work": account.work,
            "full": account.full_s / max(account.watched_s, 1e-9),
        }
        potential = account.potential(reached or (ended and goal is not None))  # then what is missing has its price
        return Outcome(ended, reached, account.successes, potential, extra, account.price(ended))

    @property
    def counts(self) -> Mapping[Status, int]:
        """Ended tasks by their state."""
        return self.state.counts

    # Decisions.

    def _whole(self) -> bool:
        return not self.state.pool.absent and self.state.pool.nodes == self.state.capacity.nodes

    def _possible(self) -> bool:
        """Whether anything but waiting is."""
        state = self.state
        if self._attempts.again:
            return False  # it is the executor's first in the queue: nothing may overtake it
        if state.free_cores > 0 and next(state.startable(), None) is not None:
            return True
        told = state.reported
        if told is not None and told.settled and (self.options.stop or (self.options.resize and state.wider(told))):
            return True
        if self.options.resize and state.free_cores > 0 and not state.waiting:
            return any(s.ranks > t.shape.ranks for t in state.running.values() for s in state.wider(t))
        return False

    def _offered(self) -> list[Choice | None]:
        if self._choices is None:
            self._choices = shortlist(self.state)
        return self._choices

    def _look(self) -> tuple[NDArray[np.float32], Mask]:
        choices = self._offered()
        return observe(self.state, choices, self._goal_left()), _mask(choices)

    def _around(self, proposal: Mapping[str, Any]) -> ResidualChoices:
        """The same choices, and what a rule would do among them and marked."""
        decision = self._decision
        assert decision is not None
        choices = list(self._offered())
        wanted = self._named(proposal) or self._default()
        if wanted in choices:
            index = choices.index(wanted)
            observation, mask = decision.observation.copy(), decision.mask
        else:  # in place of the last start
            index = len(choices) - 1 if None not in choices[1:] else 1 + choices[1:].index(None)
            choices[index] = wanted
            observation, mask = observe(self.state, choices, self._goal_left()), _mask(choices)
        observation[GLOBALS + (index + 1) * CHOICE - 1] = 1.0

        def named(indices: NDArray[np.int64]) -> Mapping[str, Any]:
            index = int(indices[0])
            choice = choices[index] if 0 <= index < len(choices) else None
            return {"choice": index} if choice is None else choice.named()

        return ResidualChoices((), mask, named, observation)

    def _goal_left(self) -> float:
        goal = self.options.objective.goal
        return 0.0 if goal is None else 1.0 - self.account.successes / goal

    def _default(self) -> Choice:
        if self.state.may_wait:
            return WAITING
        for group in self.state.startable():
            task = next(iter(group.values()))
            return Choice(Kind.START, task, self.state.fitting(task)[0])
        return WAITING

    def _chosen(self, action: Action) -> Choice | None:
        """What an answer means; None if it is not allowed."""
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
            return Choice(Kind.STOP, task) if allowed else None
        shape = Shape(int(named.get("ranks", 1)), bool(named.get("gpu", False)))
        if "start" in named:
            task = state.waiting.get(named["start"])
            fits = task is not None and shape in task.shapes and state.fits(task, shape)
            return Choice(Kind.START, task, shape) if fits else None
        task = state.running.get(named.get("resize", -1))
        if task is None or not self.options.resize or shape not in state.wider(task):
            return None
        return Choice(Kind.RESIZE, task, shape)

    # What is done.

    def _start(self, task: Live, shape: Shape) -> list[Command]:
        if not self._attempts.start(task, shape):  # the ranks fit, but not so on these nodes
            self._stirred = False
            return [Wait()]
        number, attempt = task.job.number, task.starts - 1
        task.uid = TaskId(f"task{number:05d}-{attempt:02d}")
        self._uids[task.uid] = task
        reports = self.options.workload.reports
        # Of all of its work: one that goes on must not report ever sooner, and be stopped ever sooner.
        every_s = self.state.whole_seconds(task, shape) / (reports + 1) if reports else 0.0
        return [Start(self._specify(task.job, shape, task.uid, attempt, every_s))]

    def _stop(self, task: Live) -> list[Command]:
        assert task.uid is not None
        task.stopping = True
        self.state.reported = None
        return [Cancel(task.uid)]

    def _resize(self, task: Live, shape: Shape) -> list[Command]:
        assert task.uid is not None
        self.state.reported = None
        self._stirred = self._attempts.resize(task, shape)
        if not self._stirred:
            return [Wait()]
        self.resizes += 1
        return [Update(task.uid, task.job.need(shape))]

    # What happens.

    def _arrivals(self) -> None:
        state = self.state
        while self._coming and self._coming[-1][0] <= state.now_s * (1.0 + SOON) + 1e-9:
            self._arrive(self._jobs[self._coming.pop()[1]])

    def _arrive(self, job: Job) -> None:
        state = self.state
        reference_s = self._references_s[job.number]
        due_s = state.now_s + job.due * reference_s if job.due > 0.0 else math.inf
        task = Live(job, state.now_s, reference_s, self._shapes[job.number], due_s, reference_s)
        state.arrive(task)
        state.tasks[job.number] = task
        self.account.arrived(task)
        before = [state.tasks[n] for n in job.after if n in state.tasks]
        if not task.shapes or any(other.status in (Status.FAILED, Status.STOPPED) for other in before):
            self._finish(task, Status.FAILED)
            return
        task.blockers = {other.job.number for other in before if not other.final}
        self._lengthen(task)
        if task.blockers:
            state.blocked[job.number] = task
        else:
            self._enqueue(task)

    def _lengthen(self, task: Live) -> None:
        """The paths of those that it waits for are as long as its own, and their own time, at least."""
        changed = [task]
        while changed:
            last = changed.pop()
            for other in (self.state.tasks[n] for n in last.job.after if n in self.state.tasks):
                if other.path_s < other.reference_s + last.path_s:
                    other.path_s = other.reference_s + last.path_s
                    changed.append(other)

    def _enqueue(self, task: Live) -> None:
        task.status, task.uid = Status.WAITING, None
        self.state.enqueue(task)
        self.account.queued(task)
        self._stir()

    def _stir(self) -> None:
        """Something has happened, other than that a task has reported."""
        self._stirred, self.state.reported = True, None

    def _heard(self, task: Live, event: Event) -> None:
        assert event.progress is not None
        fraction, value = event.progress.get("fraction"), event.progress.get("value")
        if event.attempt != task.attempt or not isinstance(fraction, int | float) or not 0.0 <= fraction <= 1.0:
            return
        good = isinstance(value, int | float) and math.isfinite(value)
        task.reports.append(Report(event.time_s, float(fraction), float(value) if good and value is not None else None))
        done = max(task.done, float(fraction)) if task.job.resizable else float(fraction)
        self._attempts.progressed(task, done)
        if self.options.stop or self.options.resize:
            self.state.reported, self._stirred = task, True

    def _ended(self, task: Live, event: Event) -> None:
        result = event.result
        assert result is not None
        asked = task.stopping
        self._attempts.leave(task)
        del self._uids[event.uid]
        self._stir()
        if result.state is TaskState.CANCELED:
            self._stopped(task, asked)
        elif result.state is TaskState.DONE and (read := self._read(result.values)) is not None:
            worth, children = read
            if event.attempt == 1 and (task.starts == 1 or not task.job.resizable):
                self.state.learn(task, result.ended_s - result.started_s)
            self._finish(task, Status.DONE, worth)
            for number in children:
                self._arrive(self._jobs[number])
        else:
            self.failures += 1
            task.failures += 1
            task.done = task.done if task.job.resizable else 0.0
            if task.failures > self.options.retries:
                self._finish(task, Status.FAILED)
            else:
                self._enqueue(task)
        self._attempts.place_again()

    def _stopped(self, task: Live, asked: bool) -> None:
        """Where all tasks have to end, one that the policy has stopped waits again; otherwise it is over."""
        objective = self.options.objective
        if asked and objective.goal is None and objective.window_s is None:
            task.done = task.done if task.job.resizable else 0.0
            self._enqueue(task)
        else:
            self._finish(task, Status.STOPPED)

    def _read(self, values: Mapping[str, Any]) -> tuple[bool, list[int]] | None:
        """Whether a result is worth having, and the tasks that it brings forth; None: it makes no sense."""
        try:
            quality = float(values.get("quality", 1.0))
            children = [int(number) for number in values.get("children", ())]
        except (TypeError, ValueError):
            return None
        new = all(0 <= n < len(self._jobs) and n not in self.state.tasks for n in children)
        return (quality >= WORTH, children) if new else None

    def _finish(self, task: Live, status: Status, worth: bool = True) -> None:
        state = self.state
        task.status, task.ended_s, task.uid = status, state.now_s, None
        task.worth = status is Status.DONE and worth
        self.account.ended(task, state.now_s)
        state.ended.append(task)
        state.counts[status] += 1
        for other in [t for t in state.blocked.values() if task.job.number in t.blockers]:
            other.blockers.discard(task.job.number)
            if status is not Status.DONE:
                del state.blocked[other.job.number]
                self._finish(other, Status.FAILED)
            elif not other.blockers:
                del state.blocked[other.job.number]
                self._enqueue(other)


def _mask(choices: Sequence[Choice | None]) -> Mask:
    return np.array([choice is not None for choice in choices], np.bool_)
