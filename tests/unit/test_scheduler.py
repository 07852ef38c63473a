"""The queue and the states of tasks, whatever is asked in whatever order; the clock is the test's own."""

from __future__ import annotations

import contextlib
import heapq
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlctl.core.errors import LaunchError
from rlctl.core.machine import Capacity, NodeState, Scoring
from rlctl.core.task import Event, Failure, Resources, TaskId, TaskSpec, TaskState
from rlctl.executors.backend import AttemptOutcome
from rlctl.executors.node_share import core_numbers
from rlctl.executors.pool import NodePool
from rlctl.executors.scheduler import Scheduler
from rlctl.executors.task_state import NODE_FAILURES, Task

S = TaskState
WAITING = {S.QUEUED, S.HELD}
FOLLOWS = {
    S.NEW: {S.QUEUED, S.LAUNCHING},
    S.QUEUED: {S.HELD, S.SCHEDULED, S.CANCELED},
    S.HELD: {S.QUEUED, S.CANCELED},
    S.SCHEDULED: {S.LAUNCHING, S.CANCELED, S.PREEMPTED, S.FAILED, S.QUEUED, S.DONE},
    S.LAUNCHING: {S.RUNNING, S.CANCELED, S.PREEMPTED, S.FAILED, S.QUEUED, S.DONE},
    S.RUNNING: {S.SUSPENDED, S.CANCELED, S.PREEMPTED, S.FAILED, S.QUEUED, S.DONE},
    S.SUSPENDED: {S.RUNNING, S.CANCELED, S.PREEMPTED, S.FAILED, S.QUEUED, S.DONE},
    S.PREEMPTED: {S.QUEUED},
    S.DONE: set(),
    S.FAILED: set(),
    S.CANCELED: set(),
}


def queued(books: Scheduler) -> list[Task]:
    """All tasks in the queue, in no particular order."""
    heaps = [heap for of_kind in books._queue._heaps.values() for heap in of_kind.values()]
    return [task for heap in heaps for _, _, task, ticket in heap if task.ticket == ticket]


class World:
    """A scheduler, what it has said, and an engine that does at once what it is told."""

    def __init__(self, capacity: Capacity, backfill: bool = True, scoring: Scoring | None = None) -> None:
        self.capacity = capacity
        self.time_s = 0.0
        self.events: list[Event] = []
        self.pool = NodePool(capacity, scoring)
        chosen = None if backfill else ()
        self.books = Scheduler([self.pool], lambda task, event, outcome: self.events.append(event), chosen)

    def submit(self, uid: str, need: Resources = Resources(), **options: Any) -> Task:  # noqa: B008
        spec = TaskSpec(TaskId(uid), executable="true", resources=need, **options)
        self.pool.check(spec)
        task = self.books.new(spec, self.books.pools)
        self.books.submit(task, self.time_s)
        return task

    def update(self, uid: TaskId, priority: float | None, need: Resources | None) -> Task | None:
        task = self.books.tasks.get(uid)
        if task is None:
            return None
        if need is not None:
            self.pool.check(replace(task.spec, resources=need))
        return self.books.update(task, priority, need, task.pools)

    def lose(self, node: int) -> list[Task]:
        """A node has gone; the tasks on it."""
        self.pool.use(node, False)
        return [t for t in self.books.running.values() if any(share.node == node for share in t.allocation)]

    def start(self) -> list[str]:
        placed = self.books.schedule(self.time_s)
        for task in placed:
            self.books.enter(task, S.LAUNCHING, self.time_s)
            self.books.enter(task, S.RUNNING, self.time_s)
        return [task.uid for task in placed]

    def end(self, task: Task, outcome: AttemptOutcome | None = None) -> None:
        self.books.ended(task, outcome or AttemptOutcome(), self.time_s)

    def states(self, uid: str) -> list[TaskState]:
        return [event.state for event in self.events if event.uid == uid]

    def check(self) -> None:
        """What must hold at every moment."""
        used: dict[int, list[int]] = defaultdict(list)
        for task in self.books.running.values():
            for share in task.allocation:
                used[share.node] += core_numbers(share.cores)
        for cores in used.values():
            assert len(cores) == len(set(cores)) <= self.capacity.cores
        assert sum(task.state is S.HELD for task in self.books.tasks.values()) == self.books.held
        assert sum(task.state is S.QUEUED for task in self.books.tasks.values()) == self.books.waiting
        assert {task.uid for task in queued(self.books)} == {
            task.uid for task in self.books.tasks.values() if task.state is S.QUEUED
        }

    def judge(self) -> None:
        """What must hold of all that was said."""
        assert [event.seq for event in self.events] == list(range(1, len(self.events) + 1))
        assert all(a.time_s <= b.time_s for a, b in zip(self.events, self.events[1:], strict=False))
        for uid in {event.uid for event in self.events}:
            mine = [event for event in self.events if event.uid == uid]
            for before, after in zip([None, *mine], mine, strict=False):
                assert after.state in FOLLOWS[before.state if before else S.NEW], (before, after)
                if before is not None:
                    more = before.state not in WAITING and after.state is S.QUEUED
                    assert after.attempt == before.attempt + more
                assert (after.result is not None) == after.state.final
                if after.result is not None:
                    assert (after.result.state, after.result.attempt) == (after.state, after.attempt)
                    assert (after.result.failure is not None) == (after.state is S.FAILED)
                    assert after.result.started_s <= after.result.ended_s == after.time_s


resources = st.builds(
    Resources,
    ranks=st.integers(1, 4),
    cores_per_rank=st.integers(1, 2),
    gpus_per_rank=st.sampled_from([0.0, 0.0, 0.3, 1.0]),
    nodes=st.none() | st.integers(1, 2),
)
failures = st.sampled_from([None, None, Failure.EXIT, Failure.LOST])
operations = st.sampled_from(
    ["submit", "submit", "start", "start", "end", "end", "end", "cancel", "hold", "release", "update", "resize", "die"]
)


@settings(deadline=None)
@given(st.lists(operations, max_size=60), st.booleans(), st.data())
def test_whatever_is_asked_the_books_are_right_and_every_task_ends_once(
    asked: Sequence[str], backfill: bool, data: st.DataObject
) -> None:
    world = World(Capacity(nodes=2, cores=4, gpus=1), backfill=backfill)
    books, stopping = world.books, dict[TaskId, Task]()

    def some() -> TaskId:
        return data.draw(st.sampled_from(sorted({event.uid for event in world.events})))

    def to_stop(task: Task | None) -> None:
        if task is not None:
            assert task.uid in books.running
            assert task.uid not in stopping, "told twice to stop it"
            stopping[task.uid] = task

    for number, operation in enumerate(asked):
        world.time_s += data.draw(st.sampled_from([0.0, 0.5, 3.0]))
        running = [task for task in books.running.values() if task.uid not in stopping]
        if operation == "submit":
            need = data.draw(resources)
            try:
                world.submit(
                    f"t{number}",
                    need,
                    priority=data.draw(st.integers(0, 2)),
                    retries=data.draw(st.integers(0, 1)),
                    walltime_s=data.draw(st.none() | st.floats(0.5, 9.0)),
                )
            except LaunchError:
                assert not NodePool(Capacity(world.pool.nodes, 4, 1)).take(need)
        elif operation == "start":
            world.start()
        elif operation == "resize":
            for task in books.resize(world.pool, data.draw(st.integers(1, 3))):
                to_stop(task)
            world.capacity = Capacity(nodes=3, cores=4, gpus=1)
        elif operation == "end" and running:
            failure = data.draw(failures)
            world.end(data.draw(st.sampled_from(running)), AttemptOutcome(failure=failure, message=str(failure or "")))
        elif operation == "die" and stopping:
            task = stopping.pop(data.draw(st.sampled_from(sorted(stopping))))
            world.end(task, AttemptOutcome(stopped=data.draw(st.booleans()), failure=data.draw(failures)))
        elif world.events and operation == "cancel":
            to_stop(books.cancel(some(), world.time_s))
        elif world.events and operation == "hold":
            task = books.hold(some(), world.time_s)
            if task is not None:
                books.enter(task, S.SUSPENDED, world.time_s)
        elif world.events and operation == "release":
            task = books.unhold(some(), world.time_s)
            if task is not None:
                books.enter(task, S.RUNNING, world.time_s)
        elif world.events and operation == "update":
            need = data.draw(st.none() | resources)
            try:
                to_stop(world.update(some(), data.draw(st.none() | st.integers(0, 9)), need))
            except LaunchError:
                assert need is not None
        world.check()

    for task in books.resize(world.pool, 2):
        to_stop(task)
    for uid in list(books.tasks):
        task = books.cancel(uid, world.time_s)
        to_stop(task)
    for task in stopping.values():
        world.end(task, AttemptOutcome(stopped=True))
    assert not books.tasks
    assert (books.waiting, books.held, len(books.running)) == (0, 0, 0)
    assert list(world.pool.states()) == list(NodePool(Capacity(nodes=2, cores=4, gpus=1)).states())
    world.judge()
    for uid in {event.uid for event in world.events}:
        assert sum(state.final for state in world.states(uid)) == 1
        assert world.states(uid)[-1].final


def test_the_larger_priority_starts_first_and_equal_ones_in_order_of_submission() -> None:
    world = World(Capacity(nodes=1, cores=1))
    for uid, priority in (("a", 0.0), ("b", 0.0), ("c", 2.0), ("d", 1.0)):
        world.submit(uid, priority=priority)
    order = []
    while started := world.start():
        order += started
        world.end(world.books.tasks[TaskId(started[0])])
    assert order == ["c", "d", "a", "b"]


def test_a_task_released_or_updated_keeps_its_place_in_the_order_of_submission() -> None:
    world = World(Capacity(nodes=1, cores=1))
    for uid in "abc":
        world.submit(uid)
    world.books.hold(TaskId("a"), 0.0)
    world.books.unhold(TaskId("a"), 0.0)
    world.update(TaskId("b"), None, Resources(cores_per_rank=1, memory_per_rank_mb=1))
    assert world.start() == ["a"]
    world.end(world.books.tasks[TaskId("a")])
    assert world.start() == ["b"]


def test_without_backfill_nobody_overtakes_the_first() -> None:
    world = World(Capacity(nodes=1, cores=2), backfill=False)
    world.submit("running")
    assert world.start() == ["running"]
    world.submit("wide", Resources(ranks=2))
    world.submit("narrow", walltime_s=0.1)
    assert world.start() == []


def test_a_gap_is_filled_by_what_ends_before_the_first_can_start_and_by_nothing_without_a_walltime() -> None:
    world = World(Capacity(nodes=1, cores=2))
    world.submit("running", walltime_s=10.0)
    assert world.start() == ["running"]
    world.submit("wide", Resources(ranks=2), walltime_s=1.0)
    world.submit("long", walltime_s=20.0)
    world.submit("unknown")
    world.submit("short", walltime_s=10.0)
    assert world.start() == ["short"]


def test_other_nodes_than_the_reserved_ones_are_filled_by_whatever_fits() -> None:
    world = World(Capacity(nodes=2, cores=2))
    world.submit("first", walltime_s=5.0)
    world.submit("second", walltime_s=9.0)
    world.submit("third", Resources(cores_per_rank=2), walltime_s=50.0)
    assert world.start() == ["first", "second", "third"]
    world.submit("wide", Resources(cores_per_rank=2))
    world.submit("narrow")
    assert world.start() == [], "both were on one node, which is kept"


jobs = st.lists(
    st.tuples(st.integers(1, 8), st.floats(1.0, 50.0), st.floats(0.05, 1.0), st.floats(0.0, 20.0)),
    min_size=2,
    max_size=25,
)


@settings(deadline=None, max_examples=150)
@given(jobs, st.integers(1, 3))
def test_backfill_never_delays_the_first_beyond_its_reservation_when_walltimes_are_kept(
    wanted: Sequence[tuple[int, float, float, float]], nodes: int
) -> None:
    """Each task takes a share of its walltime. What was promised to whoever was first is kept, whatever overtakes."""
    world = World(Capacity(nodes=nodes, cores=8 // nodes))
    books, ends, promised = world.books, dict[TaskId, float](), dict[TaskId, float]()
    arrivals = sorted((at_s, number) for number, (_, _, _, at_s) in enumerate(wanted))
    while arrivals or books.tasks:
        due = [*(end for end in ends.values()), *(at_s for at_s, _ in arrivals[:1])]
        world.time_s = max(world.time_s, min(due))
        while arrivals and arrivals[0][0] <= world.time_s:
            _, number = arrivals.pop(0)
            ranks, walltime_s, _, _ = wanted[number]
            if NodePool(world.capacity).take(Resources(ranks=ranks)):
                world.submit(str(number), Resources(ranks=ranks), walltime_s=walltime_s)
        for uid in [uid for uid, end_s in ends.items() if end_s <= world.time_s]:
            del ends[uid]
            world.end(books.tasks[uid])
        for uid in world.start():
            _, walltime_s, share, _ = wanted[int(uid)]
            ends[TaskId(uid)] = world.time_s + walltime_s * share
            if uid in promised:
                assert world.time_s <= promised[TaskId(uid)] + 1e-9, f"{uid} is late"
        first = min(queued(books), key=lambda task: task.order, default=None)
        if first is not None and first.uid not in promised:
            # Promised is when it would start if nobody else were let in: all that runs comes to its walltime.
            free, at_s = NodePool(world.capacity), math.inf
            for task in books.running.values():
                assert free.occupy(task.allocation)
            by_end = sorted(books.running.values(), key=lambda task: task.started_s + (task.spec.walltime_s or 0.0))
            for task in by_end:
                free.release(task.allocation)
                if free.copy().take(first.need) is not None:
                    at_s = task.started_s + (task.spec.walltime_s or 0.0)
                    break
            assert at_s < math.inf
            promised[first.uid] = at_s
    assert all(world.states(uid)[-1] is S.DONE for uid in {event.uid for event in world.events})


streams = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 9), st.booleans()), min_size=1, max_size=8)


@settings(deadline=None, max_examples=150)
@given(streams, st.integers(1, 3), st.integers(2, 8), st.none() | st.integers(0, 2))
def test_the_first_starts_although_others_come_for_ever(
    stream: Sequence[tuple[int, int, bool]], nodes: int, wide: int, down: int | None
) -> None:
    """Some tell their walltimes, others do not, and one node may be away for a while."""
    world = World(Capacity(nodes=nodes, cores=8 // nodes))
    books, ends = world.books, dict[TaskId, float]()
    wide = min(wide, nodes * (8 // nodes))
    for second in range(120):
        world.time_s = float(second)
        if second == 6 and down is not None and down < nodes:
            for task in world.lose(down):
                ends.pop(task.uid)
                world.end(task, AttemptOutcome(failure=Failure.LOST))
        if second == 30 and down is not None and down < nodes:
            world.pool.use(down, True)
            books.touch()
        if second == 5:
            world.submit("wide", Resources(ranks=wide), priority=1.0)
        for number in range(3):
            ranks, seconds, told = stream[(3 * second + number) % len(stream)]
            if ranks <= wide and books.waiting < 50:
                with contextlib.suppress(LaunchError):
                    uid = f"{second}.{number}.{seconds}"
                    world.submit(uid, Resources(ranks=ranks), walltime_s=float(seconds) if told else None)
        for uid in [uid for uid, end_s in ends.items() if end_s <= second]:
            del ends[uid]
            world.end(books.tasks[uid])
        for name in world.start():
            if name == "wide":
                return
            ends[TaskId(name)] = second + float(name.rpartition(".")[2])
    raise AssertionError("it never started")


@pytest.mark.parametrize(
    ("need", "reason"),
    [
        (Resources(ranks=9), "needs 9 cores and 0 GPUs; the allocation has 8 cores and 4 GPUs"),
        (Resources(gpus_per_rank=5.0), "needs 1 cores and 5 GPUs"),
        (Resources(cores_per_rank=5), "1 ranks of 5 cores and 0 GPUs never fit on nodes of 4 cores"),
        (
            Resources(memory_per_rank_mb=101),
            "1 cores, 101 MiB and 0 GPUs never fit on nodes of 4 cores, 100 MiB and 2 GPUs",
        ),
        (Resources(ranks=3, nodes=3), "over 3 nodes never fit"),
        (Resources(ranks=4, gpus_per_rank=0.6, cores_per_rank=2), None),
    ],
)
def test_what_can_never_run_is_refused_with_the_reason(need: Resources, reason: str | None) -> None:
    world = World(Capacity(nodes=2, cores=4, gpus=2, memory_mb=100))
    if reason is None:
        world.submit("a", need)
        return
    with pytest.raises(LaunchError) as refused:
        world.submit("a", need)
    assert reason in str(refused.value)
    assert "\n" not in str(refused.value)
    assert world.events == []


def test_what_fits_after_the_allocation_has_grown_is_not_refused_any_more() -> None:
    world = World(Capacity(nodes=1, cores=2))
    with pytest.raises(LaunchError):
        world.submit("a", Resources(ranks=4))
    world.books.resize(world.pool, 2)
    world.submit("b", Resources(ranks=4))
    assert world.start() == ["b"]


def test_what_fits_on_nodes_that_are_away_waits_for_them() -> None:
    world = World(Capacity(nodes=2, cores=2))
    for node in (0, 1):
        world.pool.use(node, False)
    world.submit("a", Resources(ranks=4))
    assert world.start() == []
    for node in (0, 1):
        world.pool.use(node, True)
    world.books.touch()
    assert world.start() == ["a"]


def test_an_update_that_can_never_run_changes_nothing() -> None:
    world = World(Capacity(nodes=1, cores=2))
    task = world.submit("a")
    with pytest.raises(LaunchError):
        world.update(TaskId("a"), 5.0, Resources(ranks=3))
    assert (task.priority, task.need) == (0.0, Resources())


def test_a_task_that_is_canceled_while_it_fails_by_itself_is_not_tried_again() -> None:
    world = World(Capacity(nodes=1, cores=1))
    for failure in (Failure.EXIT, Failure.LOST):
        task = world.submit(failure.value, retries=3)
        world.start()
        assert world.books.cancel(task.uid, 0.0) is task
        world.end(task, AttemptOutcome(failure=failure, message="at the same time"))
        assert world.states(failure.value)[-1] is S.CANCELED
    assert world.start() == []


def test_a_task_that_was_stopped_without_anybody_asking_here_is_not_taken_for_done() -> None:
    """As when a lease was over, or a former controller stopped it."""
    world = World(Capacity(nodes=1, cores=1))
    task = world.submit("a")
    world.start()
    world.end(task, AttemptOutcome(stopped=True))
    assert world.states("a")[-2:] == [S.PREEMPTED, S.QUEUED]


def test_failed_attempts_are_repeated_as_often_as_asked_for_and_lost_ones_do_not_count() -> None:
    world = World(Capacity(nodes=1, cores=1))
    task = world.submit("a", retries=1)
    for failure in (Failure.LOST, Failure.EXIT, Failure.LOST, Failure.EXIT):
        assert world.start() == ["a"]
        world.end(task, AttemptOutcome(failure=failure, message="x"))
    assert world.states("a")[-1] is S.FAILED
    assert world.events[-1].attempt == 4


def test_a_task_that_loses_its_machine_again_and_again_is_failed() -> None:
    world = World(Capacity(nodes=1, cores=1))
    task = world.submit("a")
    for _ in range(NODE_FAILURES):
        assert world.start() == ["a"]
        world.end(task, AttemptOutcome(failure=Failure.LOST, message="gone"))
    assert world.states("a")[-1] is S.FAILED
    assert world.states("a").count(S.PREEMPTED) == NODE_FAILURES - 1


def test_a_result_tells_the_cores_that_were_occupied_not_those_asked_for_meanwhile() -> None:
    world = World(Capacity(nodes=1, cores=4))
    task = world.submit("a", Resources(ranks=1))
    world.start()
    assert world.update(TaskId("a"), None, Resources(ranks=4)) is task
    world.end(task)  # it came to its end before it could be stopped
    result = world.events[-1].result
    assert result is not None
    assert (result.state, result.cores) == (S.DONE, 1)


def test_a_running_task_with_other_resources_runs_again_with_these() -> None:
    world = World(Capacity(nodes=1, cores=4))
    task = world.submit("a")
    world.start()
    world.update(TaskId("a"), None, Resources(ranks=3))
    world.end(task, AttemptOutcome(stopped=True))
    assert world.start() == ["a"]
    assert sum(share.cores.bit_count() for share in task.allocation) == 3
    assert [s for s in world.states("a") if s not in (S.SCHEDULED, S.LAUNCHING)] == [
        S.QUEUED,
        S.RUNNING,
        S.PREEMPTED,
        S.QUEUED,
        S.RUNNING,
    ]


def test_nodes_that_go_take_their_tasks_along_and_only_those() -> None:
    world = World(Capacity(nodes=3, cores=1))
    tasks = [world.submit(str(i)) for i in range(3)]
    assert world.start() == ["0", "1", "2"]
    going = world.books.resize(world.pool, 2)
    assert going == [tasks[2]]
    assert world.books.resize(world.pool, 1) == [tasks[1]]
    for task in (tasks[1], tasks[2]):
        world.end(task, AttemptOutcome(stopped=True))
    assert world.start() == []
    world.end(tasks[0])
    assert world.start() == ["1"], "in order of submission"


class Last:
    def score(self, need: Resources, node: NodeState) -> float:
        return node.index


def test_the_scoring_decides_where_a_task_runs() -> None:
    world = World(Capacity(nodes=3, cores=2), scoring=Last())
    task = world.submit("a", Resources(ranks=2))
    world.start()
    assert [share.node for share in task.allocation] == [2]


def test_a_task_that_runs_already_is_taken_in_where_it_runs() -> None:
    world = World(Capacity(nodes=1, cores=2))
    allocation = world.pool.take(Resources(ranks=2))
    assert allocation is not None
    spec = TaskSpec(TaskId("a"), executable="true", resources=Resources(ranks=2))
    task = world.books.new(spec, world.books.pools, 3)
    world.books.adopt(task, world.pool, allocation, 1.0, 0.5)
    assert TaskId("a") in world.books.running
    assert [(e.state, e.attempt) for e in world.events] == [(S.LAUNCHING, 3)]
    world.end(task)
    assert [node.free_cores for node in world.pool.states()] == [2]


def test_what_is_withdrawn_leaves_nothing_behind_and_the_queue_is_not_sorted_again_for_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(Capacity(nodes=1, cores=1))
    tasks = [world.submit(str(number), priority=float(number % 7)) for number in range(5000)]
    plain, sorted_again = heapq.heapify, list[int]()
    monkeypatch.setattr(heapq, "heapify", lambda queue: (sorted_again.append(len(queue)), plain(queue)))
    for task in tasks[1:]:
        world.books.cancel(task.uid, 0.0)
    assert sum(sorted_again) < 2 * len(tasks)
    for priority in range(100):
        world.update(tasks[0].uid, float(priority), None)
    assert sum(len(heap) for heaps in world.books._queue._heaps.values() for heap in heaps.values()) <= 2
    assert world.start() == ["0"]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3)), max_size=40), st.data())
def test_any_mixture_of_kinds_starts_in_order_of_priority_then_of_submission(
    wanted: Sequence[tuple[int, int]], data: st.DataObject
) -> None:
    """The queue keeps one heap for each kind of task; together they are one queue."""
    world = World(Capacity(nodes=1, cores=1000), backfill=False)
    for number, (priority, ranks) in enumerate(wanted):
        world.submit(str(number), Resources(ranks=ranks), priority=float(priority))
    expected = sorted(range(len(wanted)), key=lambda number: (-wanted[number][0], number))
    assert world.start() == [str(number) for number in expected]
