"""The ledger: every allocated second has one purpose, and the purposes add up."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlctl.core.driver import Driver
from rlctl.core.machine import Capacity
from rlctl.core.records import RecordList
from rlctl.core.task import Failure, TaskState
from rlctl.executors.simulated.backend import SimulatedExecutor
from rlctl.monitoring.ledger import Purpose, allocation_ledger
from rlctl.monitoring.timeline import TaskAttempt, Timeline
from rlctl.plugins.registry import campaign_factory, policy_factory

ONE_NODE = Capacity(nodes=1, cores=2, gpus=1)


def final(uid: str, attempt: int, state: str, ended_s: float, failure: str | None = None) -> dict[str, object]:
    result = {"values": {}, "failure": failure, "message": "", "started_s": 0.0, "ended_s": ended_s, "cores": 1}
    return {"time_s": ended_s, "uid": uid, "state": state, "attempt": attempt, "result": result}


def written() -> RecordList:
    """Two cores: a controller starts for 1 s; a waits 0.5 s for it, boots for 0.5 s and runs to 5 s; b needs both."""
    records = RecordList()
    records.append("epoch", 0.0, {})
    records.append("decision", 1.0, {"number": 0, "action": [0], "subject": "a", "asked_s": 1.0, "successes": 0})
    records.append("submitted", 1.5, {"uid": "a", "attempt": 1})
    records.append("submitted", 1.5, {"uid": "b", "attempt": 1})
    records.append("launching", 2.0, {"uid": "a", "attempt": 1, "cores": [0], "gpus": {"0": 0.5}})
    records.append("event", 2.5, {"time_s": 2.5, "uid": "a", "attempt": 1, "state": "running"})
    records.append("event", 5.0, final("a", 1, "done", 5.0))
    records.append("launching", 5.25, {"uid": "b", "attempt": 1, "cores": [0, 1], "gpus": {}})
    records.append("event", 5.5, {"time_s": 5.5, "uid": "b", "attempt": 1, "state": "running"})
    records.append("event", 7.0, final("b", 1, "failed", 7.0, "exit"))
    records.append("time", 8.0, {})
    return records


def holding(timeline: Timeline, time_s: float) -> list[TaskAttempt]:
    """The attempts that hold cores at a time."""
    held = [attempt for attempt in timeline.attempts if attempt.launched_s is not None]
    return [a for a in held if (a.launched_s or 0.0) <= time_s and (a.ended_s is None or a.ended_s > time_s)]


def test_each_second_is_booked_where_it_belongs() -> None:
    ledger = allocation_ledger(Timeline.read(written(), ONE_NODE))
    assert ledger.cores == {
        Purpose.BOOT: pytest.approx(2 * 1.0 + 0.5 + 2 * 0.25),
        Purpose.CONTROLLER: pytest.approx(2 * 1.0 + 2 * 0.25),
        Purpose.QUEUE: pytest.approx(3.0),
        Purpose.USEFUL: pytest.approx(2.5),
        Purpose.WASTED: pytest.approx(2 * 1.5),
        Purpose.IDLE: pytest.approx(2 * 1.0),
    }
    assert math.fsum(ledger.cores.values()) == pytest.approx(ledger.allocated_cores)
    assert ledger.gpus[Purpose.USEFUL] == pytest.approx(0.5 * 2.5)
    assert math.fsum(ledger.gpus.values()) == pytest.approx(ledger.allocated_gpus) == 8.0


def test_what_a_dead_controller_ran_is_lost_and_wasted() -> None:
    records = written()[:6]
    records = RecordList(records)
    records.append("epoch", 4.0, {})
    records.append("submitted", 6.0, {"uid": "a", "attempt": 2})
    timeline = Timeline.read(records, ONE_NODE)
    lost = timeline.attempts[0]
    assert (lost.state, lost.failure, lost.ended_s) == (TaskState.FAILED, Failure.LOST, 4.0)
    ledger = allocation_ledger(timeline)
    assert ledger.cores[Purpose.WASTED] == pytest.approx(1.5)
    assert ledger.cores[Purpose.BOOT] == pytest.approx(2.0 + 0.5 + 2 * 2.0)


def test_of_a_run_in_progress_the_running_task_counts_so_far() -> None:
    timeline = Timeline.read(RecordList(written()[:6]), ONE_NODE)
    assert [a.uid for a in holding(timeline, 2.4)] == ["a"]
    ledger = allocation_ledger(timeline, end_s=10.0)
    assert ledger.cores[Purpose.USEFUL] == pytest.approx(7.5)
    assert math.fsum(ledger.cores.values()) == pytest.approx(20.0)


@settings(max_examples=25, deadline=None)
@given(instance=st.integers(0, 10_000), nodes=st.integers(1, 9), until=st.floats(0.05, 1.0))
def test_purposes_add_up_to_the_allocation_of_any_simulated_campaign(instance: int, nodes: int, until: float) -> None:
    factory = campaign_factory("ensemble", {})
    policy = policy_factory("lpt")()
    capacity, records = Capacity(nodes=nodes, cores=1), RecordList()
    driver = Driver(
        factory.campaign(instance), SimulatedExecutor(capacity, factory.task_model(instance), records), records
    )
    decision = driver.begin()
    while decision is not None:
        decision = driver.step(policy.act(decision))
    timeline = Timeline.read(records, capacity)
    whole = allocation_ledger(timeline)
    assert whole.allocated_cores == pytest.approx(driver.ledger.node_seconds)
    assert whole.cores[Purpose.USEFUL] == pytest.approx(driver.ledger.core_seconds)
    part = allocation_ledger(timeline, until * timeline.end_s)
    for ledger in (whole, part):
        assert min(ledger.cores.values()) >= 0.0
        assert math.fsum(ledger.cores.values()) == pytest.approx(ledger.allocated_cores)
    assert len(timeline.decisions) == driver.decisions
    assert np.all(np.diff([answer.answered_s for answer in timeline.decisions]) >= 0)


def test_no_core_is_held_twice() -> None:
    factory = campaign_factory("block_copolymer", {"allocation_s": 60.0})
    records = RecordList()
    model = factory.task_model(3)
    driver = Driver(factory.campaign(3), SimulatedExecutor(Capacity(1, 2), model, records), records)
    policy = policy_factory("feedback")()
    decision = driver.begin()
    while decision is not None:
        decision = driver.step(policy.act(decision))
    timeline = Timeline.read(records, Capacity(1, 2))
    for attempt in timeline.attempts:
        held = [core for a in holding(timeline, attempt.launched_s or 0.0) for core in a.cores]
        assert len(held) == len(set(held)) <= 2
    assert len(timeline.attempts) > 10
