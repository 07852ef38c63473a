"""What a journal says of attempts that former controllers have started."""

from rlctl.core.machine import Capacity
from rlctl.core.records import Record
from rlctl.core.task import Event, Failure, Resources, TaskId, TaskResult, TaskState, event_to_json
from rlctl.executors.backend import AttemptOutcome
from rlctl.executors.recovery import History, Launched, allocation_of

A = TaskId("a")


def events(*events: Event) -> list[Record]:
    return [Record(2 + number, event.time_s, "event", event_to_json(event)) for number, event in enumerate(events)]


def test_a_record_tells_of_the_pool_and_its_nodes_are_numbered_through() -> None:
    data = {"uid": "a", "attempt": 2, "cores": [5, 6], "gpus": {"node3:1": 0.5}, "pool": "cluster"}
    launching = Record(1, 0.6, "launching", data)
    began = events(*(Event(at_s, A, TaskState.RUNNING, attempt) for at_s, attempt in ((0.5, 1), (0.7, 2), (9.0, 2))))
    launched = History.read([launching]).attempts[A]
    assert launched == Launched(2, (5, 6), (("node3:1", 0.5),), "cluster", 0.6)
    launched = History.read([launching, *began]).attempts[A]
    assert (launched.since_s, launched.cores) == (0.7, (5, 6))  # each controller that takes it over says it again
    cluster = allocation_of(launched, Capacity(nodes=3, cores=2, gpus=2), Resources(), first_node=1)
    assert cluster is not None
    assert [(share.node, share.cores, share.gpus) for share in cluster] == [(1, 0b10, ()), (2, 0b01, ((1, 500),))]
    assert allocation_of(launched, Capacity(nodes=1, cores=2, gpus=2), Resources()) is None


def test_how_tasks_ended_and_how_often_they_failed_before() -> None:
    lost = Event(1.0, A, TaskState.QUEUED, 2, failure=Failure.LOST, message="its node was lost")
    failed = Event(2.0, A, TaskState.QUEUED, 3, failure=Failure.EXIT, message="exit code 1")
    history = History.read(events(lost, failed))
    assert (history.failures, history.finished) == ({A: 1}, {}), "a lost node is not the task's fault"
    done = Event(3.0, A, TaskState.DONE, 3, TaskResult(A, TaskState.DONE, 3, {"x": 1}))
    assert History.read(events(done)).finished == {A: AttemptOutcome({"x": 1})}
    broken = Event(3.0, A, TaskState.FAILED, 3, TaskResult(A, TaskState.FAILED, 3, {}, Failure.EXIT, "exit code 1"))
    expected = AttemptOutcome(failure=Failure.EXIT, message="exit code 1")
    assert History.read(events(broken)).finished == {A: expected}
    stopped = Event(3.0, A, TaskState.CANCELED, 3, TaskResult(A, TaskState.CANCELED, 3))
    assert History.read(events(stopped)).finished[A].stopped
