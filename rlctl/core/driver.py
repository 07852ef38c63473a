"""The driver: feeds events to a campaign, hands out its decisions, carries out its commands, and charges the time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from gymnasium.spaces import Box

from rlctl.core.campaign import (
    Action,
    Campaign,
    Cancel,
    Command,
    Decision,
    Outcome,
    Start,
    Update,
    action_from_json,
    action_to_json,
    require_campaign,
)
from rlctl.core.errors import ContractError, JournalError
from rlctl.core.machine import Capacity, Machine
from rlctl.core.node_ledger import Ledger
from rlctl.core.plugin_calls import asking
from rlctl.core.records import AMENDMENTS, Record, Recorder
from rlctl.core.runner import TaskRunner
from rlctl.core.task import Event, TaskId, TaskSpec, event_from_json

Changed = Callable[[Mapping[str, Any]], tuple[Campaign, Capacity]]
"""Makes, of a record ``config``, a fresh campaign of the changed configuration, and its machine."""


class Driver:
    """Couples a campaign to an executor: ``begin``, then ``step`` with the policy's answer while a decision is open.

    Attributes:
        ledger: allocated and occupied time so far.
        decisions: number of decisions answered so far.
        started: tasks that the last answer has started.
        commands: how many there were of each kind.
        open: tasks that were started and have not ended.
    """

    def __init__(
        self,
        campaign: Campaign,
        executor: TaskRunner,
        recorder: Recorder | None = None,
        wait: Callable[..., list[Event]] | None = None,
        *,
        capacity: Capacity | None = None,
        changed: Changed | None = None,
        held: Callable[[], bool] = lambda: False,
    ) -> None:
        """Couple them.

        Args:
            campaign: a fresh one, of the configuration that it began with.
            executor: of its tasks.
            recorder: takes the records.
            wait: is called in place of ``executor.wait``, with the same arguments.
            capacity: machine that the campaign began on; None: that of the executor.
            changed: reads the records of changed configurations.
            held: whether no decision is to be asked for at present.
        """
        require_campaign(campaign)
        self.campaign = campaign
        self._follows = type(campaign).follow_up is not Campaign.follow_up
        self.executor = executor
        self.recorder = recorder
        self._wait, self._changed, self._held = wait, changed, held
        self._capacity = capacity or executor.capacity
        self.ledger = Ledger(self._capacity.nodes)
        self._whole = self._machine = Machine(self._capacity.nodes, frozenset(), self._capacity.nodes)
        self.decisions = 0
        self.started: list[TaskId] = []
        self.commands: Counter[str] = Counter()
        self.open: dict[TaskId, TaskSpec] = {}
        self._canceled: set[TaskId] = set()
        self._unheard: list[Event] = []  # since the campaign ended
        self._charged = 0.0
        self._asked: Mapping[str, Any] = {}
        self._finished = False

    def begin(self) -> Decision | None:
        """Start the campaign and run to its first decision."""
        self.campaign.begin(self._capacity)
        self._look_at_machine()
        return self.advance()

    def step(self, action: Action) -> Decision | None:
        """Answer the open decision and run to the next one; None when the campaign has ended."""
        self.answer(action)
        return self.advance()

    def answer(self, action: Action) -> None:
        """Answer the open decision: record it, then carry out what the campaign makes of it."""
        if self.recorder is None:
            self._apply(action, submit=True)
            return
        data = {"number": self.decisions, "action": action_to_json(action), **self._asked}
        with asking("the campaign", "named()"):
            named = self.campaign.named(action)
        if named is not None and (shown := action_to_json(named)) != data["action"]:
            data["named"] = shown
        # Tasks start inside ``wait`` only, so the answer and the tasks that it submits can be written together.
        with self.recorder.batch():
            self.recorder.append("decision", self.executor.now(), data)
            self._apply(action, submit=True)

    def advance(self) -> Decision | None:
        """Run until a decision is open (its ``cost`` is what has elapsed since the previous one) or all is over."""
        while True:
            held = self._held()
            with asking("the campaign", "decision()"):
                ended = self.campaign.outcome().ended
                decision = None if ended or held else self.campaign.decision()
            if ended:
                break
            if decision is not None:
                decision.cost = self.ledger.node_seconds - self._charged
                decision.number = self.decisions
                self._charged = self.ledger.node_seconds
                if self.recorder is not None:
                    self._asked = {
                        "subject": decision.subject,
                        "asked_s": self.executor.now(),
                        "successes": self.campaign.outcome().successes,
                    }
                return decision
            wake_s = self.campaign.wake_s
            until_s = min(self.campaign.deadline_s, wake_s)  # when ``on_time`` is due at the latest
            whole = self._machine == self._whole
            idle = wake_s < math.inf or not whole or bool(self.open) or held
            wait = self._wait or self.executor.wait
            events = wait(max(until_s - self.executor.now(), 0.0), idle=idle)
            self.take(events)
            if not self._look_at_machine() and not events:
                if self.executor.now() < until_s and not self.open and not idle:
                    raise ContractError("decision() is None and no task runs, before deadline_s: nothing can come")
                self._time(self.executor.now())
        self._finish()
        return None

    def outcome(self) -> Outcome:
        """How the campaign stands."""
        return self.campaign.outcome()

    def uncharged(self) -> float:
        """Node-seconds elapsed since the last decision was handed out; after the end, what the last one cost."""
        return self.ledger.node_seconds - self._charged

    def replay(self, records: Iterable[Record], attempts: Mapping[TaskId, int]) -> Decision | None:
        """Rebuild a campaign from its journal, and go on to the first decision without a recorded answer.

        Tasks without a recorded end are submitted again. JournalError: the records do not fit the campaign.

        Args:
            records: what this driver's recorder has received so far, in order.
            attempts: for each task that was launched, its last attempt.
        """
        self.fold(records)
        return self.go_on(attempts)

    def go_on(self, attempts: Mapping[TaskId, int]) -> Decision | None:
        """After ``fold`` and ``amend``, submit the open tasks and run to the next decision; see ``replay``."""
        if not self.campaign.outcome().ended:
            for uid, spec in self.open.items():
                self.executor.submit_task(spec, attempts.get(uid, 0) + 1)
                if uid in self._canceled:
                    self.executor.cancel(uid)
            self._look_at_machine()
        else:
            self.open.clear()
        return self.advance()

    def amend(self, kind: str, data: Mapping[str, Any]) -> None:
        """Record one of ``AMENDMENTS`` and carry it out, after ``fold``.

        A campaign that had ended may go on after it, and hears what has happened to its tasks since.
        """
        self._record(kind, self.executor.now(), data)
        self._amend(kind, data, self.executor.now())

    def take(self, events: Sequence[Event]) -> None:
        """Inform the campaign of what has happened to its tasks."""
        for event in events:
            # As a replay does, which cannot know what came at one instant with the event that ended the campaign.
            (self._miss if self.campaign.outcome().ended else self._fold)(event)

    def fold(self, records: Iterable[Record]) -> None:
        """Bring a fresh campaign to where its journal ends, without an executor; see ``replay``."""
        self.campaign.begin(self._capacity)
        for record in records:
            if record.kind == "decision":
                decision = self.campaign.decision()
                if decision is None or record.data["number"] != self.decisions:
                    raise JournalError(
                        f"journal record {record.seq}: decision {record.data['number']} is answered, but the campaign "
                        f"stands at {self.decisions}: this journal belongs to another campaign or version"
                    )
                self._charged = self.ledger.node_seconds
                self._apply(action_from_json(record.data["action"]), submit=False)
            elif record.kind == "event" and self.campaign.outcome().ended:
                self._miss(event_from_json(record.data))
            elif record.kind == "event":
                self._fold(event_from_json(record.data), submit=False)
            elif record.kind in AMENDMENTS:
                self._amend(record.kind, record.data, record.time_s)
            elif record.kind == "machine":
                data = record.data
                machine = Machine(data["nodes"], frozenset(data["down"]), data["paid"])
                self._fold_machine(record.time_s, machine, submit=False)
            elif record.kind == "time":
                self.ledger.elapse(record.time_s)
                if not self.campaign.outcome().ended:  # else an interrupt, while the last tasks were being stopped
                    self.campaign.on_time(record.time_s)
                    self._follow_up(submit=False)

    def _apply(self, action: Action, *, submit: bool) -> None:
        self.decisions += 1
        box = self.campaign.action_space
        if isinstance(box, Box) and not isinstance(action, Mapping):
            # Of one type and within the bounds, whether the numbers come from a policy or from the journal.
            action = np.clip(np.asarray(action, box.dtype).reshape(box.shape), box.low, box.high)
        with asking("the campaign", f"apply() of decision {self.decisions - 1}"):
            commands = self.campaign.apply(action)
        self.started = [command.spec.uid for command in commands if isinstance(command, Start)]
        self._carry_out(commands, submit=submit)

    def _follow_up(self, *, submit: bool) -> None:
        """Carry out what follows from what has just happened."""
        if self._follows:
            with asking("the campaign", "follow_up()"):
                commands = self.campaign.follow_up()
            self._carry_out(commands, submit=submit)

    def _carry_out(self, commands: Sequence[Command], *, submit: bool) -> None:
        for command in commands:
            self.commands[type(command).__name__.lower()] += 1
            if isinstance(command, Start):
                self.open[command.spec.uid] = command.spec
                if submit:
                    self.executor.submit_task(command.spec)
            elif isinstance(command, Cancel):
                self._canceled.add(command.uid)
                if submit:
                    self.executor.cancel(command.uid)
            elif isinstance(command, Update):
                if command.uid in self.open:  # for a task that has to be submitted again
                    self.open[command.uid] = replace(self.open[command.uid], resources=command.resources)
                if submit:
                    self.executor.update(command.uid, resources=command.resources)

    def _amend(self, kind: str, data: Mapping[str, Any], time_s: float) -> None:
        campaign, commands = self.campaign, list[Command]()
        with asking("the campaign", f"what follows from {kind}"):
            if kind == "config" and data["extends"]:
                if self._changed is None:
                    raise JournalError("its configuration was changed, which this reader does not know of")
                self.ledger.elapse(time_s)
                other, capacity = self._changed(data)
                campaign.extend(other, capacity, time_s)
                self.ledger.nodes = capacity.nodes
                self._whole = self._machine = Machine(capacity.nodes, frozenset(), capacity.nodes)
                campaign.on_machine(self._machine)
            elif kind == "rerun":
                commands += campaign.rerun(data["evaluations"])
            elif kind == "known":
                campaign.know(data["rows"])
            elif kind == "asked":
                campaign.elsewhere(data["evaluations"], data.get("away", True))
        self._carry_out(commands, submit=False)
        if not campaign.outcome().ended:
            unheard, self._unheard, self._finished = self._unheard, [], False
            for event in unheard:
                self._hear(event, submit=False)

    def _miss(self, event: Event) -> None:
        """Book an event after the end of the campaign, which does not reach it unless it goes on."""
        self._settle(event)
        self._unheard.append(event)

    def _settle(self, event: Event) -> None:
        """Book an event in the ledger."""
        self.ledger.elapse(event.time_s)
        spec = self.open.get(event.uid)
        self.ledger.task(event, 0 if spec is None else spec.resources.cores)
        if event.state.final:
            self.open.pop(event.uid, None)

    def _fold(self, event: Event, *, submit: bool = True) -> None:
        self._settle(event)
        self._hear(event, submit=submit)

    def _hear(self, event: Event, *, submit: bool) -> None:
        with asking("the campaign", "on_event()"):
            self.campaign.on_time(event.time_s)
            self.campaign.on_event(event)
        self._follow_up(submit=submit)

    def _look_at_machine(self) -> bool:
        """Inform the campaign if nodes have come or gone."""
        machine = self.executor.machine()
        if machine == self._machine:
            return False
        now_s = self.executor.now()
        self._record("machine", now_s, {**machine._asdict(), "down": sorted(machine.down)})
        self._fold_machine(now_s, machine, submit=True)
        return True

    def _fold_machine(self, time_s: float, machine: Machine, *, submit: bool) -> None:
        self.ledger.elapse(time_s)
        self.ledger.nodes, self._machine = machine.paid, machine
        if not self.campaign.outcome().ended:
            self.campaign.on_time(time_s)
            self.campaign.on_machine(self._machine)
            self._follow_up(submit=submit)

    def _time(self, time_s: float) -> None:
        self._record("time", time_s, {})
        self.ledger.elapse(time_s)
        self.campaign.on_time(time_s)
        self._follow_up(submit=True)

    def _finish(self) -> None:
        """Cancel open tasks; the time until they have ended is part of the cost."""
        if self._finished:
            return
        self._finished = True
        for uid in list(self.open):
            self.executor.cancel(uid)
        wait = self._wait or self.executor.wait
        while self.open:
            events = wait(60.0)
            if not events:
                break
            for event in events:
                self._miss(event)

    def _record(self, kind: str, time_s: float, data: Mapping[str, Any]) -> None:
        if self.recorder is not None:
            self.recorder.append(kind, time_s, data)
