"""When a campaign stops itself: which failures count, which do not, and what is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlctl.config.schema import SteerSection
from rlctl.core.errors import StoppedError
from rlctl.core.records import Record
from rlctl.core.task import Event, Failure, TaskId, TaskResult, TaskState, event_from_json, event_to_json
from rlctl.steering.failure_limit import FailureLimit


class Watched:
    """A brake, and a campaign's tasks as short words."""

    def __init__(self, *records: Record, **limits: int | None) -> None:
        run = Path("runs/a")
        self.brake = FailureLimit(SteerSection.model_validate(limits), run, run / "work", records)
        self.number = 0

    def ends(self, state: TaskState, failure: Failure | None = None, at_s: float = 0.0, began_s: float = 0.0) -> Event:
        self.number += 1
        uid = TaskId(f"task-{self.number}")
        self.brake.note(Event(began_s, uid, TaskState.RUNNING))
        event = Event(at_s, uid, state, 1, TaskResult(uid, state, 1, {}, failure, "said so"))
        self.brake.note(event)
        return event

    def fails(self, failure: Failure, count: int = 1) -> None:
        for _ in range(count):
            self.ends(TaskState.FAILED, failure)

    @property
    def stopped(self) -> bool:
        try:
            self.brake.check()
        except StoppedError:
            return True
        return False


@pytest.mark.parametrize("failure", sorted(set(Failure) - {Failure.DIVERGED, Failure.LOST}))
def test_three_at_the_beginning_are_enough_and_ten_later(failure: Failure) -> None:
    first = Watched()
    first.fails(failure, 2)
    assert not first.stopped
    first.fails(failure)
    assert first.stopped
    later = Watched()
    later.ends(TaskState.DONE)
    later.fails(failure, 9)
    assert not later.stopped
    later.fails(failure)
    assert later.stopped


def test_a_success_begins_the_count_anew_and_a_cancelation_does_not() -> None:
    campaign = Watched()
    for _ in range(20):
        campaign.fails(Failure.EXIT, 2)
        assert not campaign.stopped
        campaign.ends(TaskState.DONE)
    campaign.fails(Failure.EXIT, 9)
    for _ in range(30):
        campaign.ends(TaskState.CANCELED)
    assert not campaign.stopped
    campaign.fails(Failure.EXIT)
    assert campaign.stopped


def test_each_kind_is_counted_by_itself() -> None:
    campaign = Watched()
    for failure in (Failure.LAUNCH, Failure.EXIT, Failure.SIGNAL, Failure.GARBAGE):
        campaign.fails(failure, 2)
    assert not campaign.stopped
    campaign.fails(Failure.EXIT)
    with pytest.raises(StoppedError, match=r"3 failures in a row \(exit\), and no task .*; the last one: task-9: said"):
        campaign.brake.check()


def test_a_simulation_that_diverged_shows_that_its_program_works() -> None:
    campaign = Watched()
    campaign.fails(Failure.EXIT, 2)
    campaign.fails(Failure.DIVERGED, 9)
    campaign.fails(Failure.EXIT, 9)
    assert not campaign.stopped
    assert campaign.brake.failed == 20


def test_simulations_that_all_diverge_stop_the_campaign() -> None:
    campaign = Watched()
    campaign.fails(Failure.DIVERGED, 9)
    assert not campaign.stopped
    campaign.fails(Failure.DIVERGED)
    assert campaign.stopped


def test_a_node_that_takes_a_hundred_tasks_with_it_counts_once() -> None:
    campaign = Watched()
    for death in (10.0, 20.0):
        for i in range(100):
            campaign.ends(TaskState.FAILED, Failure.LOST, at_s=death + 0.001 * i, began_s=death - 5.0)
        assert not campaign.stopped
    campaign.ends(TaskState.FAILED, Failure.LOST, at_s=30.0, began_s=25.0)
    assert campaign.stopped


def test_attempts_that_a_task_repeats_by_itself_count() -> None:
    campaign = Watched()
    for attempt in (2, 3, 4):
        assert not campaign.stopped
        event = Event(1.0, TaskId("a"), TaskState.QUEUED, attempt, failure=Failure.EXIT, message="exit code 1")
        assert event_from_json(event_to_json(event)) == event
        campaign.brake.note(event)
    assert campaign.stopped


def test_limits_are_the_users() -> None:
    never = Watched(stop_after_failures=None)
    never.fails(Failure.LAUNCH, 1000)
    assert not never.stopped
    strict = Watched(stop_after_failures=1)
    strict.fails(Failure.LAUNCH)
    assert strict.stopped
    same = Watched(stop_after_first_failures=None)
    same.fails(Failure.LAUNCH, 9)
    assert not same.stopped
    same.fails(Failure.LAUNCH)
    assert same.stopped


def test_a_resumed_campaign_counts_afresh_and_remembers_that_something_has_succeeded() -> None:
    before = Watched()
    events = [before.ends(TaskState.DONE), *(before.ends(TaskState.FAILED, Failure.EXIT) for _ in range(10))]
    assert before.stopped
    resumed = Watched(*(Record(n, 0.0, "event", event_to_json(event)) for n, event in enumerate(events)))
    assert resumed.brake.failed == 10
    resumed.fails(Failure.EXIT, 9)
    assert not resumed.stopped
