"""Several pools of this machine in one executor: what goes where, and what is told of it."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from rlctl.core.errors import LaunchError
from rlctl.core.machine import Capacity
from rlctl.core.task import Resources, TaskId, TaskSpec, TaskState
from rlctl.executors.backend import Recovered
from rlctl.executors.engine import Executor
from rlctl.executors.event_log import Journal
from rlctl.executors.factory import PoolPlan
from rlctl.executors.local.backend import LocalBackend
from rlctl.executors.local.options import LocalOptions

PATIENCE_S = 120.0
ONE = Resources()


OPTIONS = LocalOptions(lease_s=0.0, pin=False, oversubscribe=True)


@contextlib.contextmanager
def opened(folder: Path, sizes: Sequence[int] = (1, 2), cores: int = 1) -> Iterator[Executor]:
    """Pools ``a``, ``b``, ... of so many nodes."""
    backends = [
        LocalBackend(Capacity(nodes=nodes, cores=cores), folder / "work", OPTIONS, pool=name)
        for name, nodes in zip("abc", sizes, strict=False)
    ]
    executor = Executor([PoolPlan(backend, name) for name, backend in zip("abc", backends, strict=False)])
    try:
        yield executor
    finally:
        executor.close()


def task(
    uid: str, need: Resources = ONE, pool: str | None = None, seconds: float = 300.0, priority: float = 0.0
) -> TaskSpec:
    arguments = (str(seconds),)
    return TaskSpec(TaskId(uid), executable="sleep", arguments=arguments, resources=need, pool=pool, priority=priority)


def until(condition: Callable[[], object], what: object = "") -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end_s, f"not within {PATIENCE_S} s: {what}"
        time.sleep(0.005)


def where(executor: Executor) -> dict[str, str]:
    """The pool of each task that has a place, by the numbers of its nodes: ``a`` has the first one."""
    return {run.uid: "a" if min(run.nodes) == 0 else "b" for run in executor.status().running}


def test_tasks_go_where_they_say_or_where_there_is_room(tmp_path: Path) -> None:
    with opened(tmp_path) as executor:
        executor.submit_task(task("named", pool="b"))
        executor.submit_tasks([task(f"t{i}") for i in range(5)])
        assert where(executor) == {"named": "b", "t0": "a", "t1": "b"}, "the first that has room"
        assert executor.status().waiting == 3
        running = executor.status().running
        assert {r.uid: dict(r.nodes) for r in running} == {"t0": {0: 1}, "named": {1: 1}, "t1": {2: 1}}


def test_a_waiting_task_goes_to_the_pool_that_has_room_first(tmp_path: Path) -> None:
    with opened(tmp_path) as executor:
        executor.submit_tasks([task(f"t{i}") for i in range(4)])
        executor.cancel(TaskId("t2"), 0.0)
        until(lambda: where(executor).get("t3") == "b", "a place in the second pool is free first")


def test_a_task_that_waits_for_a_pool_does_not_hold_up_those_for_another(tmp_path: Path) -> None:
    with opened(tmp_path) as executor:
        executor.submit_tasks([task("first", pool="a"), task("waits", pool="a", priority=1.0)])
        executor.submit_tasks([task("other", pool="b"), task("any")])
        assert where(executor) == {"first": "a", "other": "b", "any": "b"}


def test_a_task_that_fits_in_one_pool_only_goes_there(tmp_path: Path) -> None:
    with opened(tmp_path) as executor:
        executor.submit_task(task("wide", Resources(ranks=2, nodes=2)))
        assert where(executor) == {"wide": "b"}
        with pytest.raises(LaunchError, match=r"task no can run in no pool \(a: .* the allocation has 1 cores.*; b: "):
            executor.submit_task(task("no", Resources(ranks=3)))
        with pytest.raises(LaunchError, match="task no needs 4 cores and 0 GPUs; the allocation has 3 cores"):
            executor.submit_task(task("no", Resources(ranks=4)))
        with pytest.raises(LaunchError, match="the allocation has 1 cores"):
            executor.submit_task(task("no", Resources(ranks=2), pool="a"))
        with pytest.raises(LaunchError, match="task no names the pool 'c', which is not there; known: a, b"):
            executor.submit_task(task("no", pool="c"))
        assert executor.submit_task(task("no", seconds=0.0)).result(PATIENCE_S) == {}


def test_what_was_launched_and_is_not_there_any_more_runs_again(tmp_path: Path) -> None:
    with Journal.create(tmp_path / "journal.db", {}) as journal:
        journal.append("launching", 0.0, {"uid": "old", "attempt": 1, "cores": [1], "gpus": {}, "pool": "b"})
        journal.append("launching", 0.0, {"uid": "gone", "attempt": 1, "cores": [9], "gpus": {}, "pool": "z"})
        with opened(tmp_path) as executor:
            executor.attach(journal)
            futures = executor.submit_tasks([task("old"), task("gone")])
            assert where(executor) == {"old": "a", "gone": "b"}
            assert [future.attempt for future in futures] == [2, 2]


def test_records_number_cores_and_gpus_through(tmp_path: Path) -> None:
    with Journal.create(tmp_path / "journal.db", {}) as journal:
        with opened(tmp_path, cores=2) as executor:
            executor.attach(journal)
            executor.submit_task(task("x", pool="b", seconds=0.0)).result(PATIENCE_S)
        (record,) = [record for record in journal.records() if record.kind == "launching"]
    assert record.data == {"uid": "x", "attempt": 1, "cores": [2], "gpus": {}, "nodes": [1], "pool": "b"}


def test_calls_of_all_pools_have_different_names(tmp_path: Path) -> None:
    with opened(tmp_path) as executor:
        futures = [executor.submit(time.sleep, 0.05) for _ in range(6)]
        for future in futures:
            future.result(PATIENCE_S)
        assert len({future.uid for future in futures}) == 6
        events = executor.events()
        assert [event.seq for event in events] == list(range(1, len(events) + 1))


def test_nodes_that_go_are_the_last_ones_and_come_back_to_where_they_were(tmp_path: Path) -> None:
    with opened(tmp_path, (1, 1, 1)) as executor:
        executor.submit_tasks([task(f"t{i}") for i in range(3)])
        until(lambda: len(executor.status().running) == 3)
        sizes = []
        for nodes in (2, 1, 2, 3, 5):
            executor.resize(nodes)
            sizes.append([pool.nodes.nodes for pool in executor._dispatch.pools])
        assert sizes == [[1, 1, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1], [1, 1, 3]]
        until(lambda: sum(r.state is TaskState.RUNNING for r in executor.status().running) == 3)


def test_the_supervisor_of_one_pool_dies_and_no_other_pool_is_touched(tmp_path: Path) -> None:
    with opened(tmp_path, (1, 1)) as executor:
        executor.submit_tasks([task("first", pool="a"), task("second", pool="b")])
        until(lambda: sum(r.state is TaskState.RUNNING for r in executor.status().running) == 2)
        assert sorted(path.name for path in (tmp_path / "work").glob(".lease*")) == [".lease-a", ".lease-b"]
        backend = executor._dispatch.pools[1].backend
        assert isinstance(backend, LocalBackend)
        client = backend.programs.client
        first, before = client._process, executor.status().seq
        assert first is not None
        first.kill()
        until(lambda: client._process is not first)
        assert executor.status().seq == before
        executor.cancel(TaskId("second"), 0.0)
        assert executor.submit_task(task("third", pool="b", seconds=0.0)).result(PATIENCE_S) == {}
        assert {r.uid for r in executor.status().running} == {"first"}


def test_a_pool_that_cannot_be_opened_closes_the_others(tmp_path: Path) -> None:
    closed: list[str] = []

    class Closing(LocalBackend):
        def close(self, keep_outcomes: bool) -> None:
            closed.append("a")
            super().close(keep_outcomes)

    class Refusing(LocalBackend):
        def open(self, incarnation: int) -> Recovered:
            raise LaunchError("no machine today")

    first = Closing(Capacity(), tmp_path / "work", OPTIONS, pool="a")
    second = Refusing(Capacity(), tmp_path / "work", OPTIONS, pool="b")
    with pytest.raises(LaunchError, match="no machine today"):
        Executor([PoolPlan(first, "a"), PoolPlan(second, "b")])
    assert closed == ["a"]
