"""Which pool a task goes to, and what is recorded of it there."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from rlctl.executors.choice import FirstFree, PoolStatus

from rlctl.core.machine import Capacity
from rlctl.core.records import Record
from rlctl.core.task import Resources, TaskId, TaskSpec
from rlctl.executors.pool import Pool
from rlctl.executors.recovery import Launched, Past, placement_of
from rlctl.executors.scheduler import Scheduler

ANY = TaskSpec(TaskId("any"), executable="true")
HERE = PoolStatus("here", at_once=True, cores=2, free_cores=2, waiting_cores=0)
CLUSTER = PoolStatus("cluster", at_once=True, cores=64, free_cores=64, waiting_cores=0)


def scheduler(capacity: Capacity) -> Scheduler:
    return Scheduler(Pool(capacity), lambda task, event, ending: None)


def submit(books: Scheduler, uid: str, need: Resources) -> None:
    books.submit(books.new(TaskSpec(TaskId(uid), executable="true", resources=need)), 0.0)


def test_a_task_goes_to_the_first_pool_that_can_start_it() -> None:
    assert FirstFree().choose(ANY, [HERE, CLUSTER]) == "here"
    assert FirstFree().choose(ANY, [replace(HERE, at_once=False), CLUSTER]) == "cluster"


def test_a_task_that_has_to_wait_goes_where_the_least_work_per_core_waits() -> None:
    here = replace(HERE, at_once=False, waiting_cores=1)
    assert FirstFree().choose(ANY, [here, replace(CLUSTER, at_once=False, waiting_cores=31)]) == "cluster"
    assert FirstFree().choose(ANY, [here, replace(CLUSTER, at_once=False, waiting_cores=33)]) == "here"


def test_room_is_left_for_those_that_wait() -> None:
    books = scheduler(Capacity(nodes=2, cores=2))
    wide = replace(ANY, resources=Resources(ranks=2, nodes=1))
    assert books.at_once(wide)
    submit(books, "first", Resources())
    assert books.at_once(wide)
    submit(books, "second", Resources(cores_per_rank=2))
    assert not books.at_once(wide)
    assert books.at_once(ANY)
    books.schedule(0.0)
    assert books.at_once(ANY)
    assert not books.at_once(wide)


@given(st.lists(st.tuples(st.sampled_from(["submit", "cancel", "hold", "release", "schedule"]), st.integers(0, 5))))
def test_cores_that_are_waited_for_are_those_of_the_tasks_that_wait(steps: list[tuple[str, int]]) -> None:
    books = scheduler(Capacity(nodes=1, cores=3))
    for number, (what, which) in enumerate(steps):
        uids = list(books.tasks)
        if what == "submit":
            submit(books, str(number), Resources(cores_per_rank=1 + which % 3))
        elif what == "schedule":
            books.schedule(0.0)
        elif uids:
            getattr(books, what)(uids[which % len(uids)], 0.0)
        assert books.waiting_cores == sum(task.need.cores for task in books.queued())


def test_a_record_tells_of_the_pool_and_its_nodes_are_numbered_through() -> None:
    data = {"uid": "a", "attempt": 2, "cores": [5, 6], "gpus": {"node3:1": 0.5}, "pool": "cluster"}
    began = [
        Record(2, at_s, "started", {"uid": "a", "attempt": attempt}) for at_s, attempt in ((0.5, 1), (0.7, 2), (9.0, 2))
    ]
    launched = Past.read([Record(1, 0.6, "launching", data)]).attempts[TaskId("a")]
    assert launched == Launched(2, (5, 6), (("node3:1", 0.5),), "cluster", 0.6)
    launched = Past.read([Record(1, 0.6, "launching", data), *began]).attempts[TaskId("a")]
    assert (launched.since_s, launched.cores) == (0.7, (5, 6))  # each controller that takes it over says it again
    cluster = placement_of(launched, Capacity(nodes=3, cores=2, gpus=2), first_node=1)
    assert cluster is not None
    assert [(part.node, part.cores, part.gpus) for part in cluster] == [(1, 0b10, ()), (2, 0b01, ((1, 500),))]
    assert placement_of(launched, Capacity(nodes=1, cores=2, gpus=2)) is None
