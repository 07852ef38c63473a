"""What the driver does with the journal of a campaign that was interrupted."""

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
import pytest

from rlctl.core.campaign import Action, Campaign, Cancel, Command, Decision, Outcome, Start
from rlctl.core.driver import Driver
from rlctl.core.errors import JournalError
from rlctl.core.machine import Capacity, Machine
from rlctl.core.records import Record
from rlctl.core.task import Event, TaskId, TaskResult, TaskSpec, TaskState, event_from_json, event_to_json


class Pair(Campaign):
    """Starts two tasks; the third answer cancels the first task; ends when either is done."""

    observation_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    reward_scale = 1.0
    deadline_s = 100.0

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.events: list[Event] = []

    def begin(self, capacity: Capacity) -> None: ...

    def on_time(self, time_s: float) -> None: ...

    def on_event(self, event: Event) -> None:
        self.events.append(event)

    def decision(self) -> Decision | None:
        if len(self.answers) == 3:
            return None
        return Decision("pair", 0.0, {}, np.zeros(1, np.float32), np.ones(2, np.bool_))

    def apply(self, action: Action) -> list[Command]:
        assert not isinstance(action, Mapping)
        self.answers.append(int(action[0]))
        number = len(self.answers)
        return [Cancel(TaskId("1"))] if number == 3 else [Start(TaskSpec(TaskId(str(number)), executable="true"))]

    def outcome(self) -> Outcome:
        done = sum(event.state is TaskState.DONE for event in self.events)
        return Outcome(ended=done > 0, reached=done > 0, successes=done)


class Listening:
    """An executor that notes what it is asked and reports nothing."""

    capacity = Capacity()
    deterministic = True

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, int]] = []
        self.time_s = 0.0

    def now(self) -> float:
        return self.time_s

    def submit_task(self, spec: TaskSpec, attempt: int = 1) -> None:
        self.asked.append(("submit", spec.uid, attempt))

    def cancel(self, uid: TaskId, grace_s: float = 5.0) -> None:
        self.asked.append(("cancel", uid, 0))

    def wait(self, timeout_s: float | None = None, *, idle: bool = False) -> list[Event]:
        raise InterruptedError

    def machine(self) -> Machine:
        return Machine(1, frozenset(), 1)

    def shutdown(self) -> None: ...


def done(uid: str, time_s: float) -> Mapping[str, Any]:
    result = TaskResult(TaskId(uid), TaskState.DONE, 1, started_s=0.0, ended_s=time_s, cores=1)
    return event_to_json(Event(time_s, TaskId(uid), TaskState.DONE, 1, result))


def journal(entries: Sequence[tuple[str, float, Mapping[str, Any]]]) -> list[Record]:
    return [Record(i + 1, time_s, kind, data) for i, (kind, time_s, data) in enumerate(entries)]


def answer(number: int) -> tuple[str, float, Mapping[str, Any]]:
    return "decision", 0.0, {"number": number, "action": [0]}


def test_what_has_no_recorded_end_is_submitted_as_the_next_attempt() -> None:
    driver, executor = Driver(Pair(), Listening()), Listening()
    driver.executor = executor
    decision = driver.replay(journal([answer(0), answer(1)]), {TaskId("1"): 2})
    assert decision is not None
    assert decision.number == 2
    assert executor.asked == [("submit", "1", 3), ("submit", "2", 1)]


def test_a_task_whose_cancel_was_decided_but_not_confirmed_is_canceled_again() -> None:
    executor = Listening()
    driver = Driver(Pair(), executor)
    with pytest.raises(InterruptedError):
        driver.replay(journal([answer(0), answer(1), answer(2)]), {TaskId("1"): 1, TaskId("2"): 1})
    assert executor.asked == [("submit", "1", 2), ("cancel", "1", 0), ("submit", "2", 2)]


def test_what_was_recorded_after_the_end_is_paid_for_but_changes_nothing() -> None:
    campaign, executor = Pair(), Listening()
    driver = Driver(campaign, executor)
    ended = [answer(0), answer(1), ("event", 2.0, done("1", 2.0)), ("event", 5.0, done("2", 5.0))]
    assert driver.replay(journal(ended), {}) is None
    assert driver.outcome().successes == 1
    assert driver.ledger.node_seconds == 5.0
    assert driver.ledger.core_seconds == 7.0
    assert executor.asked == []


def test_an_interrupt_after_the_end_is_paid_for_and_the_campaign_is_not_told() -> None:
    class Timed(Pair):
        told_s = 0.0

        def on_time(self, time_s: float) -> None:
            self.told_s = time_s

    campaign = Timed()
    driver = Driver(campaign, Listening())
    records = journal([answer(0), ("time", 1.0, {}), ("event", 2.0, done("1", 2.0)), ("time", 3.0, {})])
    assert driver.replay(records, {}) is None
    assert driver.ledger.node_seconds == 3.0
    assert campaign.told_s == 2.0


def test_what_comes_with_the_event_that_ends_a_campaign_counts_as_in_its_replay() -> None:
    class Both(Listening):
        def wait(self, timeout_s: float | None = None, *, idle: bool = False) -> list[Event]:
            return [event_from_json(done("1", 2.0)), event_from_json(done("2", 2.0))]

    driver = Driver(Pair(), Both())
    assert driver.begin() is not None
    assert driver.step(np.array([0])) is not None
    assert driver.step(np.array([0])) is not None
    assert driver.step(np.array([0])) is None
    assert driver.outcome().successes == 1
    assert driver.ledger.core_seconds == 4.0


def test_attempts_that_are_repeated_have_held_cores_too() -> None:
    def event(time_s: float, state: str, attempt: int) -> tuple[str, float, dict[str, object]]:
        return ("event", time_s, {"time_s": time_s, "uid": "1", "state": state, "attempt": attempt})

    driver = Driver(Pair(), Listening())
    life = [answer(0), event(1.0, "running", 1), event(1.5, "running", 1), event(4.0, "queued", 2)]
    last = done("1", 9.0)
    last["result"] |= {"started_s": 5.0}
    end = [answer(1), event(5.0, "running", 2), ("event", 9.0, last), ("event", 9.0, done("2", 9.0))]
    assert driver.replay(journal([*life, *end]), {}) is None
    assert driver.ledger.core_seconds == 3.0 + 4.0 + 9.0


def test_a_journal_of_another_campaign_is_refused() -> None:
    with pytest.raises(JournalError, match="another campaign or version"):
        Driver(Pair(), Listening()).replay(journal([answer(1)]), {})
