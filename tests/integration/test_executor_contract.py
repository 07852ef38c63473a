"""What every executor promises, whatever stands behind it: one suite for all engines, eager and in ``wait`` only.

Another engine joins by a line in ``ENGINES``. Its tasks are programs whose ``parameters`` say to a simulation what the
program does to a machine, see ``task``.
"""

from __future__ import annotations

import asyncio
import concurrent.futures as cf
import functools
import importlib
import itertools
import math
import os
import signal
import subprocess
import sys
import threading
import time
import unittest
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import slurm_bed
from parsl_workers import needs_parsl, shared

from rlctl.core.errors import JournalError, LaunchError, RequestError
from rlctl.core.machine import Capacity, NodeState
from rlctl.core.simulation import Launch, Simulated
from rlctl.core.task import Event, Failure, Resources, TaskId, TaskSpec, TaskState
from rlctl.executors import LocalExecutor, TaskFailed, TaskFuture
from rlctl.executors.engine import Executor
from rlctl.executors.event_log import Journal
from rlctl.executors.factory import PoolPlan
from rlctl.executors.functions.large_results import fetch
from rlctl.executors.local.backend import LocalBackend
from rlctl.executors.local.options import LocalOptions

S = TaskState
PATIENCE_S = 120.0


class Says:
    """The model of the simulated machine: tasks do what their ``parameters`` say, functions take 10 ms."""

    def outcomes(self, launches: Sequence[Launch]) -> list[Simulated]:
        return [self._outcome(launch.spec, launch.attempt) for launch in launches]

    def _outcome(self, spec: TaskSpec, attempt: int) -> Simulated:
        if spec.function is not None:
            return Simulated(math.inf if spec.function.endswith(":forever") else 0.01)
        does = spec.parameters
        if attempt <= does["fails"]:
            return Simulated(0.01, failure=Failure.EXIT, message="exit code 1")
        return Simulated(does["seconds"], does["values"])


def task(uid: str, does: str = "ends", **options: Any) -> TaskSpec:
    """A program, and in ``parameters`` what it does.

    ``ends``, ``hangs``, ``fails`` always, ``fails once``, or ``tells``: leaves the result ``{"told": uid}``.
    """
    program = {
        "ends": ("true",),
        "hangs": ("sleep", "300"),
        "fails": ("false",),
        "fails once": ("sh", "-c", f"test -e {uid}.tried || {{ touch {uid}.tried; exit 1; }}"),
        "tells": ("sh", "-c", f"""echo '{{"told": "{uid}"}}' > {uid}.json"""),
    }[does]
    parameters = {
        "seconds": math.inf if does == "hangs" else 0.01,
        "fails": {"fails": 100, "fails once": 1}.get(does, 0),
        "values": {"told": uid} if does == "tells" else {},
    }
    result_file = f"{uid}.json" if does == "tells" else None
    return TaskSpec(
        TaskId(uid),
        executable=program[0],
        arguments=program[1:],
        parameters=parameters,
        result_file=result_file,
        **options,
    )


Initial = tuple[Callable[..., object], tuple[Any, ...]] | None
"""Initializer of workers, with its arguments."""


def local(folder: Path, capacity: Capacity, eager: bool, initial: Initial = None) -> Executor:
    how = LocalOptions(lease_s=0.0, pin=False, oversubscribe=True)
    given = {} if initial is None else {"initializer": initial[0], "initargs": initial[1]}
    return LocalExecutor(capacity, folder / "work", eager=eager, backfill=eager, options=how, **given)


def pools(
    folder: Path,
    capacity: Capacity,
    eager: bool,
    initial: Initial = None,
) -> Executor:
    """Two on this machine; where there is one node only, the second pool has none."""
    second = capacity.nodes // 2
    how = LocalOptions(lease_s=0.0, pin=False, oversubscribe=True)

    def plan(name: str, nodes: int) -> PoolPlan:
        own = replace(capacity, nodes=nodes)
        backend = LocalBackend(own, folder / "work", how, pool=name, initializer=initial)
        return PoolPlan(backend, name, backfill=eager)

    return Executor([plan("first", capacity.nodes - second), plan("second", second)], eager=eager)


def simulated(folder: Path, capacity: Capacity, eager: bool) -> Executor:
    from rlctl.executors import SimulatedExecutor

    return SimulatedExecutor(capacity, Says(), eager=eager, backfill=eager)


def parsl(
    folder: Path,
    capacity: Capacity,
    eager: bool,
    initial: Initial = None,
) -> Executor:
    """As many workers per node as it has cores, of the six that all tests share."""
    from rlctl.executors.parsl.backend import ParslBackend
    from rlctl.executors.parsl.options import ParslOptions

    how = ParslOptions(workers_per_node=capacity.cores)
    backend = ParslBackend(shared.executor, capacity, folder / "work", how, initializer=initial)
    return Executor(backend, eager=eager)


def own(
    folder: Path,
    capacity: Capacity,
    eager: bool,
    initial: Initial = None,
) -> Executor:
    """The backend of ``docs/guides/own-backend.md``."""
    from child_processes.backend import ChildBackend

    return Executor(ChildBackend(capacity, folder / "work", initial), eager=eager)


@pytest.fixture(scope="module", autouse=True)
def workers_of_parsl() -> Iterator[None]:
    yield
    shared.stop()


def slurm(
    folder: Path,
    capacity: Capacity,
    eager: bool,
    initial: Initial = None,
) -> Executor:
    os.environ.update(slurm_bed.inside(slurm_bed.whole()))
    from rlctl.executors.slurm.backend import slurm_backend
    from rlctl.executors.slurm.options import SlurmOptions

    how = SlurmOptions(lease_s=0.0, poll_s=1.0)
    backend = slurm_backend(capacity, folder / "work", how, initializer=initial)
    return Executor([PoolPlan(backend, backfill=eager)], eager=eager)


@dataclass(frozen=True)
class Engine:
    """A kind of executor. ``processes``: functions run in workers, programs in processes of their own."""

    name: str
    make: Callable[..., Executor]
    eager: bool
    processes: bool
    marks: tuple[pytest.MarkDecorator, ...] = ()


ENGINES = [
    Engine("local", local, eager=True, processes=True, marks=(pytest.mark.quick,)),
    Engine("local, in wait", local, eager=False, processes=True, marks=(pytest.mark.quick,)),
    Engine("pools", pools, eager=True, processes=True),
    Engine("pools, in wait", pools, eager=False, processes=True),
    Engine("simulated", simulated, eager=True, processes=False, marks=(pytest.mark.quick,)),
    Engine("simulated, in wait", simulated, eager=False, processes=False, marks=(pytest.mark.quick,)),
    Engine("slurm", slurm, eager=True, processes=True, marks=(pytest.mark.slurm,)),
    Engine("slurm, in wait", slurm, eager=False, processes=True, marks=(pytest.mark.slurm,)),
    Engine("own", own, eager=True, processes=True),
    Engine("parsl", parsl, eager=True, processes=True, marks=(needs_parsl,)),
    Engine("parsl, in wait", parsl, eager=False, processes=True, marks=(needs_parsl,)),
]


def engines(processes: bool = False) -> list[Any]:
    """All, or those with processes, as parameters of a fixture."""
    return [pytest.param(e, id=e.name, marks=e.marks) for e in ENGINES if e.processes or not processes]


class Bench:
    """Opens executors of one kind; those that start tasks in ``wait`` only get a thread that waits for ever."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine = engine
        self.folder = folder
        self._opened: list[tuple[Executor, threading.Event, threading.Thread | None]] = []

    def open(self, cores: int = 1, nodes: int = 1, gpus: int = 0, *, driven: bool = True, **options: Any) -> Executor:
        capacity = Capacity(nodes=nodes, cores=cores, gpus=gpus)
        executor = self.engine.make(self.folder, capacity, self.engine.eager, **options)
        enough = threading.Event()
        thread = None
        if driven and not self.engine.eager:
            thread = threading.Thread(target=_drive, args=(executor, enough))
            thread.start()
        self._opened.append((executor, enough, thread))
        return executor

    def close(self) -> None:
        for executor, enough, thread in self._opened:
            executor.close()
            executor.close()
            enough.set()
            if thread is not None:
                thread.join(PATIENCE_S)
                assert not thread.is_alive()
            judge(executor.events())
        self._opened.clear()


def _drive(executor: Executor, enough: threading.Event) -> None:
    while not enough.is_set():
        if not executor.wait(0.02):
            enough.wait(0.001)


def judge(events: Sequence[Event]) -> None:
    """What holds of the events of every executor, whatever was asked of it."""
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert all(a.time_s <= b.time_s for a, b in itertools.pairwise(events)), "time runs back"
    for uid in {event.uid for event in events}:
        mine = [event for event in events if event.uid == uid]
        assert [event.state.final for event in mine] == [False] * (len(mine) - 1) + [True], mine
        assert [event.attempt for event in mine] == sorted(event.attempt for event in mine)
        assert [event.result is not None for event in mine] == [event.state.final for event in mine]


@pytest.fixture(params=engines())
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(request.param, tmp_path)
    yield bench
    bench.close()


@pytest.fixture(params=engines(processes=True))
def real(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """Engines with processes."""
    bench = Bench(request.param, tmp_path)
    yield bench
    bench.close()


def until(condition: Callable[[], Any], what: object = "") -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end_s, f"not within {PATIENCE_S} s: {what}"
        time.sleep(0.002)


def states(executor: Executor, uid: str) -> list[TaskState]:
    return [event.state for event in executor.events() if event.uid == uid]


def comes_to(executor: Executor, uid: str, state: TaskState, times: int = 1) -> None:
    until(lambda: states(executor, uid).count(state) >= times, lambda: (uid, state, states(executor, uid)))


def order_of_starts(executor: Executor) -> list[str]:
    return [event.uid for event in executor.events() if event.state is S.RUNNING]


def occupy(executor: Executor, uid: str = "occupies", **options: Any) -> TaskFuture:
    """A task that runs until it is stopped."""
    future = executor.submit_task(task(uid, "hangs", **options))
    comes_to(executor, uid, S.RUNNING)
    return future


def words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:  # it has gone
        return []


# Functions for ``submit``.


def forever() -> None:
    time.sleep(300.0)


def divide(a: float, b: float) -> float:
    return a / b


def shape(*args: object, **kwargs: object) -> tuple[object, object]:
    return args, kwargs


class Odd(Exception):
    """An exception with a constructor that pickle cannot call."""

    def __init__(self, one: int, *, other: int) -> None:
        super().__init__(f"{one} {other}")


def raise_odd() -> None:
    raise Odd(1, other=2)


# concurrent.futures


def test_a_future_gives_what_the_function_returned(bench: Bench) -> None:
    executor = bench.open(cores=2)
    futures = [executor.submit(pow, 2, n) for n in range(10)]
    assert [future.result(PATIENCE_S) for future in futures] == [2**n for n in range(10)]
    assert all(future.done() and not future.running() and not future.cancelled() for future in futures)
    assert executor.submit(shape, 1, fn=2, self=3).result(PATIENCE_S) == ((1,), {"fn": 2, "self": 3})


def test_a_future_raises_what_the_function_raised_with_its_traceback(bench: Bench) -> None:
    future = bench.open().submit(divide, 1, 0)
    with pytest.raises(ZeroDivisionError) as raised:
        future.result(PATIENCE_S)
    assert future.exception() is raised.value
    if bench.engine.processes:
        assert "in divide" in str(raised.value.__cause__)
    else:
        assert raised.value.__traceback__ is not None


def test_an_exception_that_cannot_be_pickled_arrives_as_one_that_can(real: Bench) -> None:
    executor = real.open()
    error = executor.submit(raise_odd).exception(PATIENCE_S)
    assert "1 2" in str(error)
    assert "raise_odd" in str(error.__cause__)
    assert executor.submit(pow, 2, 3).result(PATIENCE_S) == 8


def test_what_waits_can_be_canceled_and_its_callbacks_are_called(bench: Bench) -> None:
    executor = bench.open()
    occupied = occupy(executor)
    futures = [executor.submit(pow, 2, n) for n in range(3)]
    called: list[cf.Future[Any]] = []
    futures[1].add_done_callback(called.append)
    assert futures[1].cancel()
    assert futures[1].cancel(), "once more"
    assert futures[1].cancelled()
    assert called == [futures[1]]
    with pytest.raises(cf.CancelledError):
        futures[1].result(0)
    assert cf.wait([futures[1]], PATIENCE_S).not_done == set()
    occupied.stop(0.0)
    assert [futures[n].result(PATIENCE_S) for n in (0, 2)] == [1, 4]
    assert S.RUNNING not in states(executor, futures[1].uid)


def test_what_runs_cannot_be_withdrawn_but_stopped(bench: Bench) -> None:
    executor = bench.open()
    future = executor.submit(forever)
    until(future.running, "it runs")
    assert not future.cancel()
    assert not future.cancelled()
    future.stop(0.2)
    until(future.done, "it has stopped")
    assert future.cancelled()
    with pytest.raises(cf.CancelledError):
        future.result()
    assert executor.submit(pow, 2, 3).result(PATIENCE_S) == 8


def test_stopping_one_leaves_the_others_alone_whatever_they_are_called(bench: Bench) -> None:
    executor = bench.open(cores=4)
    calls = [executor.submit(forever) for _ in range(2)]
    tasks = [occupy(executor, uid) for uid in ("a", "a.1")]
    until(lambda: all(future.running() for future in calls), "all run")
    for victim, other in (calls, tasks):
        victim.stop(0.0)
        until(victim.done, "it has stopped")
        assert other.running()
    assert {running.uid for running in executor.status().running} == {calls[1].uid, "a.1"}
    for future in (calls[1], tasks[1]):
        future.stop(0.0)


def test_tasks_with_strange_names_are_told_apart(bench: Bench) -> None:
    executor = bench.open(cores=6)
    tasks = [occupy(executor, uid) for uid in ("a/b", "a_b", "a b", "ä%2Fb", ".", "long" * 80)]
    for number, future in enumerate(tasks):
        executor.signal(future.uid, signal.SIGKILL)
        assert isinstance(future.exception(PATIENCE_S), TaskFailed)
        assert all(other.running() for other in tasks[number + 1 :])


def test_as_completed_and_wait_tell_what_is_done(bench: Bench) -> None:
    executor = bench.open(cores=2)
    hanging = occupy(executor)
    done = [executor.submit(pow, 2, n) for n in range(5)]
    assert sorted(f.result() for f in cf.as_completed(done, PATIENCE_S)) == [1, 2, 4, 8, 16]
    first = cf.wait([hanging, done[0]], PATIENCE_S, cf.FIRST_COMPLETED)
    assert (first.done, first.not_done) == ({done[0]}, {hanging})
    wrong = executor.submit(divide, 1, 0)
    assert cf.wait([hanging, wrong], PATIENCE_S, cf.FIRST_EXCEPTION).done == {wrong}
    assert cf.wait([hanging, *done], 0.01).not_done == {hanging}
    with pytest.raises(cf.TimeoutError):
        list(cf.as_completed([hanging], 0.01))
    with pytest.raises(cf.TimeoutError):
        hanging.result(0.01)
    hanging.stop(0.0)
    assert cf.wait([hanging, *done, wrong], PATIENCE_S).not_done == set()


@pytest.mark.parametrize("chunksize", [1, 3, 100])
def test_map_keeps_the_order_whatever_the_chunks_are(bench: Bench, chunksize: int) -> None:
    executor = bench.open(cores=2)
    assert list(executor.map(pow, range(7), range(1, 9), chunksize=chunksize)) == [n ** (n + 1) for n in range(7)]
    assert list(executor.map(lambda n: -n, range(4), chunksize=chunksize)) == [0, -1, -2, -3]
    assert list(executor.map(pow, [], [], chunksize=chunksize)) == []


def test_map_raises_where_the_function_did(bench: Bench) -> None:
    results = bench.open(cores=2).map(divmod, [1, 1, 1, 1], [2, 3, 0, 5])
    assert [next(results), next(results)] == [(0, 1), (0, 1)]
    with pytest.raises(ZeroDivisionError):
        next(results)


@pytest.mark.parametrize("chunksize", [1, 2])
def test_map_that_takes_too_long_says_so_and_withdraws_what_waits(bench: Bench, chunksize: int) -> None:
    executor = bench.open()
    hanging = occupy(executor)
    results = executor.map(pow, range(6), range(6), timeout=0.05, chunksize=chunksize)
    with pytest.raises(cf.TimeoutError):
        list(results)
    until(lambda: executor.status().waiting == 0, "nothing waits")
    hanging.stop(0.0)
    calls = {event.uid for event in executor.events() if event.uid != "occupies"}
    assert len(calls) == 6 // chunksize
    for uid in calls:
        assert states(executor, uid)[-1] is S.CANCELED


def test_a_chunk_has_at_least_one_item(bench: Bench) -> None:
    with pytest.raises(ValueError, match="chunksize must be >= 1"):
        bench.open().map(pow, [1], [1], chunksize=0)


def test_shutdown_lets_everything_come_to_its_end(bench: Bench) -> None:
    executor = bench.open(cores=2)
    futures = [executor.submit(pow, 2, n) for n in range(6)]
    futures.append(executor.submit_task(task("a", "tells")))
    executor.shutdown()
    assert all(future.done() for future in futures)
    assert [future.result(0) for future in futures[:-1]] == [2**n for n in range(6)]
    assert futures[-1].result(0) == {"told": "a"}
    executor.shutdown()


def test_shutdown_that_does_not_wait_returns_at_once_and_everything_comes_to_its_end(bench: Bench) -> None:
    executor = bench.open()
    hanging = occupy(executor)
    future = executor.submit(pow, 2, 5)
    executor.shutdown(wait=False)
    assert not future.done()
    hanging.stop(0.0)
    assert future.result(PATIENCE_S) == 32


def test_shutdown_releases_what_is_held(bench: Bench) -> None:
    executor = bench.open()
    suspended = occupy(executor)
    held = executor.submit_task(task("held"))
    for uid in ("held", "occupies"):
        executor.hold(TaskId(uid))
    assert (held.state, suspended.state) == (S.HELD, S.SUSPENDED)
    executor.shutdown(wait=False)
    assert (held.state, suspended.state) == (S.QUEUED, S.RUNNING)
    suspended.stop(0.0)
    executor.shutdown()
    assert held.result(0) == {}


@pytest.mark.parametrize("wait", [True, False])
def test_shutdown_cancels_what_has_not_begun_if_asked_to_and_only_that(bench: Bench, wait: bool) -> None:
    executor = bench.open(cores=2)
    hanging, ends = occupy(executor), executor.submit(forever)
    until(ends.running, "both run")
    waiting = [executor.submit(pow, 2, n) for n in range(4)] + [executor.submit_task(task("a"))]
    held = executor.submit_task(task("held"))
    executor.hold(TaskId("held"))
    stopper = threading.Timer(0.2, lambda: (hanging.stop(0.0), ends.stop(0.0)))
    stopper.start()
    executor.shutdown(wait=wait, cancel_futures=True)
    if bench.engine.processes or bench.engine.eager:  # a clock that has nothing to move to does not wait
        assert hanging.done() is ends.done() is wait
    assert all(future.cancelled() for future in [*waiting, held])
    stopper.join()
    until(lambda: hanging.done() and ends.done(), "they are stopped")


def test_after_shutdown_nothing_more_is_taken(bench: Bench) -> None:
    executor = bench.open()
    executor.shutdown(wait=False)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(pow, 2, 3)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit_task(task("a"))
    executor.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.map(pow, [1], [2])


def test_the_end_of_a_with_block_waits(bench: Bench) -> None:
    with bench.open(cores=2) as executor:
        futures = [executor.submit(pow, 3, n) for n in range(4)]
    assert [future.result(0) for future in futures] == [1, 3, 9, 27]


def test_a_callback_may_submit_again(bench: Bench) -> None:
    executor = bench.open()
    results: list[int] = []
    over = threading.Event()

    def again(future: cf.Future[int]) -> None:
        results.append(future.result())
        if len(results) < 5:
            executor.submit(pow, 2, len(results)).add_done_callback(again)
        else:
            over.set()

    executor.submit(pow, 2, 0).add_done_callback(again)
    assert over.wait(PATIENCE_S)
    assert results == [1, 2, 4, 8, 16]


def test_a_callback_may_submit_tasks_again_and_cancel_others(bench: Bench) -> None:
    executor = bench.open()
    later: list[TaskFuture] = []
    victim = threading.Event()

    def again(future: cf.Future[Any]) -> None:
        later.append(executor.submit_task(task("later", "tells")))
        executor.cancel(TaskId("victim"))
        victim.set()

    hanging = occupy(executor)
    executor.submit_task(task("first")).add_done_callback(again)
    executor.submit_task(task("victim"))
    executor.hold(TaskId("victim"))
    hanging.stop(0.0)
    assert victim.wait(PATIENCE_S)
    assert later[0].result(PATIENCE_S) == {"told": "later"}
    comes_to(executor, "victim", S.CANCELED)


def test_a_callback_that_raises_does_no_harm(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    executor = bench.open()
    executor.submit(pow, 2, 2).add_done_callback(lambda future: 1 // 0)
    assert executor.submit(pow, 2, 3).result(PATIENCE_S) == 8


def test_functions_arrays_and_large_things_travel(bench: Bench) -> None:
    executor = bench.open(cores=2)
    factor = 3.0
    array = np.arange(300_000, dtype=float)
    assert np.array_equal(executor.submit(lambda a: factor * a, array).result(PATIENCE_S), factor * array)
    text = os.urandom(3_000_000)
    assert executor.submit(bytes.upper, text).result(PATIENCE_S) == text.upper()
    assert executor.submit(functools.partial(divide, b=4), 1).result(PATIENCE_S) == 0.25
    assert [f.result(PATIENCE_S) for f in [executor.submit(np.sum, array) for _ in range(4)]] == [array.sum()] * 4


def test_many_threads_may_submit_at_one_time(bench: Bench) -> None:
    executor = bench.open(cores=2)
    found: dict[int, list[int]] = {}

    def ask(number: int) -> None:
        futures = [executor.submit(pow, number, n) for n in range(10)]
        same = executor.submit_task(task("same", "tells"))
        found[number] = [future.result(PATIENCE_S) for future in futures]
        assert same.result(PATIENCE_S) == {"told": "same"}

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert found == {number: [number**n for n in range(10)] for number in range(6)}
    assert order_of_starts(executor).count("same") == 1


# Tasks.


def test_the_result_of_a_task_is_what_it_leaves(bench: Bench) -> None:
    future = bench.open().submit_task(task("a", "tells"))
    assert future.result(PATIENCE_S) == {"told": "a"}
    assert (future.state, future.attempt, future.uid) == (S.DONE, 1, "a")


def test_a_task_that_fails_raises_the_reason(bench: Bench) -> None:
    future = bench.open().submit_task(task("a", "fails"))
    with pytest.raises(TaskFailed, match="exit code 1") as failed:
        future.result(PATIENCE_S)
    assert (failed.value.result.state, failed.value.result.failure) == (S.FAILED, Failure.EXIT)


def test_a_known_uid_is_not_run_again(bench: Bench) -> None:
    executor = bench.open()
    future = executor.submit_task(task("a", "tells"))
    assert executor.submit_task(task("a", "fails")) is future
    future.result(PATIENCE_S)
    assert executor.submit_task(task("a", "tells")) is future
    assert executor.submit_tasks([task("a"), task("b")])[0] is future
    comes_to(executor, "b", S.DONE)
    assert order_of_starts(executor) == ["a", "b"]


def test_a_task_goes_through_its_states_in_order(bench: Bench) -> None:
    executor = bench.open()
    executor.submit_task(task("a")).result(PATIENCE_S)
    events = executor.events()
    assert [e.state for e in events] == [S.QUEUED, S.SCHEDULED, S.LAUNCHING, S.RUNNING, S.DONE]
    result = events[-1].result
    assert (result.uid, result.attempt, result.cores) == ("a", 1, 1)
    assert 0.0 <= result.started_s <= result.ended_s <= executor.now()


def test_the_larger_priority_starts_first_and_equal_ones_in_order(bench: Bench) -> None:
    executor = bench.open()
    hanging = occupy(executor)
    futures = [executor.submit_task(task(uid, priority=p)) for uid, p in (("a", 0), ("b", 0), ("c", 2), ("d", 1))]
    executor.update(TaskId("b"), priority=1.5)
    hanging.stop(0.0)
    cf.wait(futures, PATIENCE_S)
    assert order_of_starts(executor)[1:] == ["c", "b", "d", "a"]


def test_a_held_task_starts_when_it_is_released(bench: Bench) -> None:
    executor = bench.open()
    hanging = occupy(executor)
    a, b = executor.submit_tasks([task("a"), task("b")])
    executor.hold(TaskId("a"))
    executor.hold(TaskId("a"))
    assert (a.state, executor.status().held, executor.status().waiting) == (S.HELD, 1, 1)
    hanging.stop(0.0)
    b.result(PATIENCE_S)
    assert a.state is S.HELD
    executor.release(TaskId("a"))
    a.result(PATIENCE_S)
    assert order_of_starts(executor) == ["occupies", "b", "a"]
    assert S.HELD in states(executor, "a")


def test_a_suspended_task_keeps_its_place_and_goes_on_when_released(bench: Bench) -> None:
    executor = bench.open()
    hanging = occupy(executor)
    executor.hold(TaskId("occupies"))
    assert hanging.state is S.SUSPENDED
    assert [(r.uid, r.state) for r in executor.status().running] == [("occupies", S.SUSPENDED)]
    behind = executor.submit_task(task("behind"))
    assert executor.status().free_cores == 0
    executor.release(TaskId("occupies"))
    assert hanging.state is S.RUNNING
    executor.hold(TaskId("occupies"))
    hanging.stop(5.0)  # what is suspended can be stopped
    behind.result(PATIENCE_S)
    assert states(executor, "occupies")[-5:] == [S.RUNNING, S.SUSPENDED, S.RUNNING, S.SUSPENDED, S.CANCELED]


@pytest.mark.parametrize("recorded", [False, True])
def test_a_task_that_is_held_while_it_starts_is_suspended_when_it_runs(
    bench: Bench, tmp_path: Path, recorded: bool
) -> None:
    with Journal.create(tmp_path / "journal.db", {}) as journal:
        executor = bench.open()
        if recorded:
            executor.attach(journal)
        with executor._lock:
            future = executor.submit_task(task("a", "hangs"))
            executor.hold(TaskId("a"))
        until(lambda: future.state in (S.HELD, S.SUSPENDED), lambda: future.state)
        executor.release(TaskId("a"))
        until(lambda: future.state is S.RUNNING, lambda: future.state)
        bench.close()


def test_a_suspended_task_that_has_to_run_again_is_held_until_it_is_released(bench: Bench) -> None:
    executor = bench.open(nodes=2)
    occupy(executor, "first"), occupy(executor, "second")
    executor.hold(TaskId("second"))
    executor.resize(1)
    comes_to(executor, "second", S.HELD)
    executor.resize(2)
    assert executor.status().held == 1
    executor.release(TaskId("second"))
    comes_to(executor, "second", S.RUNNING, 2)
    for uid in ("first", "second"):
        executor.cancel(TaskId(uid), 0.0)


def test_a_suspended_program_really_stands_still(real: Bench) -> None:
    executor = real.open()
    program = f"import time  # {real.folder}\nfor n in range(10**6): print(n, flush=True); time.sleep(0.005)"
    executor.submit_task(TaskSpec(TaskId("a"), executable="python", arguments=("-c", program)))
    log = real.folder / "work" / "logs" / "a.1.out"
    until(lambda: log.exists() and log.stat().st_size, "it writes")
    comes_to(executor, "a", S.RUNNING)
    executor.hold(TaskId("a"))

    def stopped() -> bool:
        mine = [process for process in psutil.process_iter() if words(process)[2:3] == [program]]
        return bool(mine) and all(process.status() == psutil.STATUS_STOPPED for process in mine)

    until(stopped, "it is suspended")
    size = log.stat().st_size
    executor.release(TaskId("a"))
    until(lambda: log.stat().st_size > size, "it goes on")
    executor.cancel(TaskId("a"), 0.0)


def test_a_signal_reaches_a_running_task_and_nothing_else(bench: Bench) -> None:
    executor = bench.open()
    hanging = occupy(executor)
    waiting = executor.submit_task(task("waits"))
    for uid in ("waits", "nobody"):
        executor.signal(TaskId(uid), signal.SIGKILL)
    executor.signal(TaskId("occupies"), signal.SIGKILL)
    with pytest.raises(TaskFailed, match="SIGKILL") as failed:
        hanging.result(PATIENCE_S)
    assert failed.value.result.failure is Failure.SIGNAL
    assert waiting.result(PATIENCE_S) == {}


def test_a_running_task_that_gets_other_resources_runs_again_with_these(bench: Bench) -> None:
    executor = bench.open(cores=3)
    hanging = occupy(executor)
    executor.update(TaskId("occupies"), resources=Resources(cores_per_rank=3))
    comes_to(executor, "occupies", S.RUNNING, 2)
    shown = [e.state for e in executor.events() if e.state not in (S.SCHEDULED, S.LAUNCHING)]
    assert shown == [S.QUEUED, S.RUNNING, S.PREEMPTED, S.QUEUED, S.RUNNING]
    assert [e.attempt for e in executor.events() if e.state is S.RUNNING] == [1, 2]
    (running,) = executor.status().running
    assert (running.attempt, running.resources.cores, executor.status().free_cores) == (2, 3, 0)
    hanging.stop(0.0)


def test_a_waiting_task_can_ask_for_less_and_starts(bench: Bench) -> None:
    executor = bench.open(cores=2)
    hanging = occupy(executor)
    future = executor.submit_task(task("a", resources=Resources(cores_per_rank=2)))
    assert not future.done()
    executor.update(TaskId("a"), resources=Resources())
    assert future.result(PATIENCE_S) == {}
    assert future.attempt == 1
    hanging.stop(0.0)


def test_an_update_that_can_never_run_is_refused_and_changes_nothing(bench: Bench) -> None:
    executor = bench.open(cores=2)
    hanging = occupy(executor)
    with pytest.raises(LaunchError, match="needs 3 cores"):
        executor.update(TaskId("occupies"), resources=Resources(cores_per_rank=3))
    executor.update(TaskId("nobody"), resources=Resources(cores_per_rank=3), priority=1.0)
    assert executor.status().running[0].resources == Resources()
    assert hanging.state is S.RUNNING
    hanging.stop(0.0)


def test_tasks_on_nodes_that_go_are_queued_again_and_run_when_there_is_room(bench: Bench) -> None:
    executor = bench.open(cores=1, nodes=2)
    first, second = occupy(executor, "first"), occupy(executor, "second")
    executor.resize(1)
    comes_to(executor, "second", S.QUEUED, 2)
    status = executor.status()
    assert [r.uid for r in status.running] == ["first"]
    assert (status.nodes, status.waiting, status.free_cores) == (1, 1, 0)
    executor.resize(3)
    comes_to(executor, "second", S.RUNNING, 2)
    assert (executor.status().nodes, executor.status().free_cores) == (3, 1)
    assert states(executor, "first").count(S.RUNNING) == 1
    for future in (first, second):
        future.stop(0.0)


def test_ranks_are_spread_over_as_many_nodes_as_asked_for(bench: Bench) -> None:
    executor = bench.open(cores=4, nodes=2)
    spread = task("spread", "hangs", resources=Resources(cores_per_rank=2, nodes=1))
    executor.submit_task(spread)
    comes_to(executor, "spread", S.RUNNING)
    (running,) = executor.status().running
    assert list(running.nodes.values()) == [1]
    with pytest.raises(LaunchError, match="over 3 nodes never fit"):
        executor.submit_task(task("wide", resources=Resources(ranks=3, nodes=3)))
    executor.cancel(TaskId("spread"), 0.0)


def test_events_since_a_number_are_those_after_it(bench: Bench) -> None:
    executor = bench.open()
    assert executor.events() == []
    executor.submit_task(task("a")).result(PATIENCE_S)
    seq = executor.status().seq
    assert executor.events(seq) == []
    executor.submit_task(task("b")).result(PATIENCE_S)
    assert {event.uid for event in executor.events(seq)} == {"b"}
    assert executor.events()[:seq] + executor.events(seq) == executor.events()


def test_status_counts_what_runs_waits_and_is_free(bench: Bench) -> None:
    executor = bench.open(cores=2, gpus=1)
    hanging = occupy(executor, resources=Resources(gpus_per_rank=0.25))
    executor.submit_tasks([task("wide", resources=Resources(cores_per_rank=2)), task("held")])
    executor.hold(TaskId("held"))
    status = executor.status()
    assert (status.nodes, status.free_cores, status.free_gpus) == (1, 1, 0.75)
    assert status.waiting + status.held == 2
    assert status.seq == executor.events()[-1].seq
    (running,) = status.running
    assert (running.uid, running.attempt, running.state, running.nodes) == ("occupies", 1, S.RUNNING, {0: 1})
    assert 0.0 <= running.since_s <= status.time_s <= executor.now()
    hanging.stop(0.0)


def test_cancel_stops_whatever_state_a_task_is_in_and_ignores_the_rest(bench: Bench) -> None:
    executor = bench.open()
    ended = executor.submit_task(task("ended"))
    ended.result(PATIENCE_S)
    running = occupy(executor, "runs")
    waiting, held = executor.submit_tasks([task("waits"), task("held")])
    executor.hold(TaskId("held"))
    for uid in ("ended", "waits", "held", "runs", "runs", "nobody"):
        executor.cancel(TaskId(uid), 0.1)
    for future in (waiting, held, running):
        until(future.done, future.uid)
        assert future.cancelled()
        with pytest.raises(cf.CancelledError):
            future.result()
    assert ended.state is S.DONE
    assert [states(executor, uid)[-1] for uid in ("waits", "held", "runs")] == [S.CANCELED] * 3
    assert executor.status().free_cores == 1


def test_a_task_past_its_walltime_is_stopped(bench: Bench) -> None:
    future = bench.open().submit_task(task("a", "hangs", walltime_s=0.5))
    with pytest.raises(TaskFailed, match=r"stopped at its walltime of 0\.5 s") as failed:
        future.result(PATIENCE_S)
    assert failed.value.result.failure is Failure.TIMEOUT
    # On a busy machine the start is noted some time after the clock of the walltime began.
    assert failed.value.result.ended_s - failed.value.result.started_s >= 0.25


def test_a_failed_attempt_is_repeated_as_often_as_asked_for(bench: Bench) -> None:
    executor = bench.open()
    once = executor.submit_task(task("once", "fails once", retries=2))
    always = executor.submit_task(task("always", "fails", retries=2))
    assert once.result(PATIENCE_S) == {}
    assert once.attempt == 2
    with pytest.raises(TaskFailed):
        always.result(PATIENCE_S)
    assert always.attempt == 3
    assert states(executor, "always").count(S.RUNNING) == 3


@pytest.mark.parametrize(
    ("need", "reason"),
    [
        (Resources(ranks=5), "task a needs 5 cores and 0 GPUs; the allocation has 4 cores and 2 GPUs"),
        (Resources(gpus_per_rank=3.0), "task a needs 1 cores and 3 GPUs"),
        (Resources(cores_per_rank=3), "1 ranks of 3 cores and 0 GPUs never fit on nodes of 2 cores"),
        (Resources(gpus_per_rank=2.0), "never fit on nodes of 2 cores and 1 GPUs"),
    ],
)
def test_what_can_never_run_is_refused_with_the_reason(bench: Bench, need: Resources, reason: str) -> None:
    executor = bench.open(cores=2, nodes=2, gpus=1)
    with pytest.raises(LaunchError) as refused:
        executor.submit_task(task("a", resources=need))
    assert reason in str(refused.value)
    assert executor.events() == []
    assert executor.submit_task(task("a")).result(PATIENCE_S) == {}, "the name is still free"


# Journals.


def test_everything_is_written_before_it_takes_effect(bench: Bench, tmp_path: Path) -> None:
    with Journal.create(tmp_path / "journal.db", {}) as journal:
        executor = bench.open()
        executor.attach(journal)
        executor.submit_task(task("a", "tells")).result(PATIENCE_S)
        executor.submit_task(task("b", "fails once", retries=1)).result(PATIENCE_S)
        executor.submit(pow, 2, 3).result(PATIENCE_S)
        executor.shutdown()
        records = [record for record in journal.records() if record.data.get("state") != "running"]
    told = [(r.kind, r.data["attempt"], r.data.get("state")) for r in records if r.data["uid"] == "a"]
    assert told == [("submitted", 1, None), ("launching", 1, None), ("event", 1, "done")]
    told = [(r.kind, r.data["attempt"], r.data.get("state")) for r in records if r.data["uid"] == "b"]
    assert told == [
        ("submitted", 1, None),
        ("launching", 1, None),
        ("event", 2, "queued"),
        ("launching", 2, None),
        ("event", 2, "done"),
    ]
    ended = next(r.data for r in records if r.data["uid"] == "a" and r.kind == "event")
    assert ended["result"]["values"] == {"told": "a"}


def test_what_a_journal_knows_as_ended_is_not_run_again(bench: Bench, tmp_path: Path) -> None:
    tells, fails = task("tells", "tells"), task("fails", "fails", retries=1)
    with Journal.create(tmp_path / "journal.db", {}) as journal:
        executor = bench.open()
        executor.attach(journal)
        executor.submit_task(tells).result(PATIENCE_S)
        executor.submit_task(fails).exception(PATIENCE_S)
        occupy(executor, "stopped").stop(0.0)
        hanging = occupy(executor)
        waiting = executor.submit_task(task("withdrawn"))
        executor.submit_task(task("held"))
        executor.hold(TaskId("held"))
        for uid in ("withdrawn", "held"):
            executor.cancel(TaskId(uid))
        assert waiting.cancelled()
        hanging.stop(0.0)
        bench.close()
    with Journal.open(tmp_path / "journal.db") as journal:
        again = bench.open()
        again.attach(journal)
        assert again.submit_task(tells).result(PATIENCE_S) == {"told": "tells"}
        with pytest.raises(TaskFailed, match="exit code 1"):
            again.submit_task(fails).result(PATIENCE_S)
        for uid in ("stopped", "withdrawn", "held", "occupies"):
            future = again.submit_task(task(uid))
            until(future.done, uid)
            assert future.cancelled(), uid
        assert again.submit_task(task("new")).result(PATIENCE_S) == {}
        assert order_of_starts(again) == ["new"]
        bench.close()


def test_an_attempt_of_which_no_end_is_known_is_followed_by_the_next_one(bench: Bench, tmp_path: Path) -> None:
    with Journal.create(tmp_path / "journal.db", {}) as journal:
        journal.append("submitted", 0.0, {"uid": "a", "attempt": 1, "parameters": {}})
        journal.append("launching", 0.0, {"uid": "a", "attempt": 1, "cores": [0], "gpus": {}})
        executor = bench.open()
        executor.attach(journal)
        future = executor.submit_task(task("a", "tells"))
        assert future.result(PATIENCE_S) == {"told": "a"}
        assert future.attempt == 2
        bench.close()


@pytest.mark.parametrize("end", ["shutdown", "close", "full disk"])
def test_no_future_stays_open_when_the_end_comes_while_its_task_is_being_recorded(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    with Journal.create(tmp_path / "journal.db", {}) as journal:
        executor = bench.open()
        executor.attach(journal)
        recording, ended = threading.Event(), threading.Event()

        def slowly(*record: Any) -> None:
            recording.set()
            assert ended.wait(PATIENCE_S)
            if end == "full disk":
                raise JournalError("no space left")

        monkeypatch.setattr(journal, "append", slowly)
        with cf.ThreadPoolExecutor(1) as threads:
            submitted = threads.submit(executor.submit_task, task("a"))
            assert recording.wait(PATIENCE_S)
            future = executor.submit_task(task("a"))
            if end == "shutdown":
                executor.shutdown()
            elif end == "close":
                executor.close()
            ended.set()
            error = submitted.exception(PATIENCE_S)
        assert isinstance(error, JournalError if end == "full disk" else RuntimeError)
        assert future.exception(PATIENCE_S) is error
        assert order_of_starts(executor) == []
        bench.close()


# Who starts what, and when.


def test_tasks_start_by_themselves_or_in_wait_only(bench: Bench) -> None:
    executor = bench.open(driven=False)
    future = executor.submit_task(task("a", "tells"))
    if bench.engine.eager:
        assert future.result(PATIENCE_S) == {"told": "a"}
        return
    assert states(executor, "a") == [S.QUEUED]
    told: list[Event] = []
    while new := executor.wait(PATIENCE_S):
        told += new
    assert [(event.state, event.uid) for event in told] == [(S.RUNNING, "a"), (S.DONE, "a")]
    assert future.result(PATIENCE_S) == {"told": "a"}


def test_wait_returns_at_once_when_there_is_nothing_to_wait_for(bench: Bench) -> None:
    executor = bench.open(driven=False)
    assert executor.wait() == []
    executor.submit_task(task("held"))
    if not bench.engine.eager:
        executor.hold(TaskId("held"))
        assert executor.wait() == []
    executor.close()
    assert executor.wait(0.0) is not None


def test_wait_returns_nothing_when_its_time_is_over(bench: Bench) -> None:
    executor = bench.open(driven=False)
    executor.submit_task(task("a", "hangs"))
    told: list[Event] = []
    while not told:
        told += executor.wait(PATIENCE_S)
    before_s = executor.now()
    assert executor.wait(0.1) == []
    assert executor.now() - before_s >= 0.1 - 1e-9
    executor.cancel(TaskId("a"), 0.0)


# What only processes can do.


def initialize(text: str) -> None:
    os.environ["RLCTL_TEST_INITIALIZED"] = text


def initialized() -> str | None:
    return os.environ.get("RLCTL_TEST_INITIALIZED")


def fail_to_initialize() -> None:
    raise ValueError("no such data")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave() -> None:
    os._exit(3)


class Unpicklable:
    def __reduce__(self) -> Any:
        raise ZeroDivisionError("no pickles")


def unpicklable() -> Unpicklable:
    return Unpicklable()


def fails_to_load() -> None:
    raise OverflowError("it does not load")


class Unloadable:
    def __reduce__(self) -> Any:
        return fails_to_load, ()


def test_the_initializer_is_called_before_the_first_function_of_each_worker(real: Bench) -> None:
    executor = real.open(cores=2, initial=(initialize, ("hello",)))
    assert {future.result(PATIENCE_S) for future in [executor.submit(initialized) for _ in range(6)]} == {"hello"}
    with pytest.raises(TypeError, match="must be a callable"):
        real.open(initial=(7, ()))


def test_an_initializer_that_fails_fails_every_call_and_mixes_up_none(real: Bench) -> None:
    executor = real.open(initial=(fail_to_initialize, ()))
    for future in [executor.submit(pow, 2, n) for n in range(4)]:
        error = future.exception(PATIENCE_S)
        assert isinstance(error, cf.BrokenExecutor)
        assert "no such data" in str(error)


@pytest.mark.parametrize("how", [die, leave])
def test_the_death_of_a_worker_fails_its_call_only(real: Bench, how: Callable[[], None]) -> None:
    executor = real.open()
    futures = [executor.submit(pow, 2, 3), executor.submit(how), executor.submit(pow, 2, 4)]
    assert futures[0].result(PATIENCE_S) == 8
    assert isinstance(futures[1].exception(PATIENCE_S), cf.BrokenExecutor)
    assert futures[2].result(PATIENCE_S) == 16


def test_what_cannot_be_pickled_fails_its_call_only(real: Bench) -> None:
    executor = real.open()
    futures = [
        executor.submit(pow, 2, 3),
        executor.submit(len, Unpicklable()),
        executor.submit(unpicklable),
        executor.submit(len, Unloadable()),
        executor.submit(Unloadable),
        executor.submit(threading.Lock),
        executor.submit(pow, 2, 4),
    ]
    kinds = [type(future.exception(PATIENCE_S)) for future in futures]
    none = type(None)
    assert kinds == [none, ZeroDivisionError, ZeroDivisionError, OverflowError, OverflowError, TypeError, none]
    assert futures[-1].result(PATIENCE_S) == 16


def test_a_program_that_does_not_exist_fails_and_those_behind_it_start(real: Bench) -> None:
    executor = real.open()
    hanging = occupy(executor)
    missing = executor.submit_task(TaskSpec(TaskId("missing"), executable="no-such-program"))
    behind = executor.submit_task(task("behind", "tells"))
    hanging.stop(0.0)
    with pytest.raises(TaskFailed, match="no-such-program") as failed:
        missing.result(PATIENCE_S)
    assert failed.value.result.failure is Failure.LAUNCH
    assert behind.result(PATIENCE_S) == {"told": "behind"}


def test_with_a_journal_too_those_behind_a_program_that_does_not_exist_start(real: Bench, tmp_path: Path) -> None:
    with Journal.create(tmp_path / "journal.db", {}) as journal:
        executor = real.open()
        executor.attach(journal)
        hanging = occupy(executor)
        missing = executor.submit_task(TaskSpec(TaskId("missing"), executable="no-such-program"))
        behind = executor.submit_task(task("behind", "tells"))
        hanging.stop(0.0)
        assert isinstance(missing.exception(PATIENCE_S), TaskFailed)
        assert behind.result(PATIENCE_S) == {"told": "behind"}
        real.close()


MAIN = """
import sys
from rlctl.executors import LocalExecutor

OFFSET = 5

class Point:
    def __init__(self, x): self.x = x
    def moved(self): return Point(self.x + OFFSET)

def moved(point): return point.moved()

class Wrong(Exception): pass

def wrong(): raise Wrong("as expected")

if __name__ == "__main__":
    executor = LocalExecutor(max_workers=2)
    print([point.x for point in executor.map(moved, [Point(1), Point(2)])])
    print(executor.submit(lambda: [Point(3).moved().x for _ in range(2)]).result())
    try:
        executor.submit(wrong).result()
    except Wrong as error:
        print(error)
    executor.submit(print, "printed", flush=True).result()
    last = executor.submit(pow, 2, 10)
    last.add_done_callback(lambda future: print(future.result(), flush=True))
    # no shutdown: what was submitted is brought to its end all the same
"""


def test_functions_and_classes_of_a_script_travel_and_its_end_waits(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(MAIN)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n") == ["[6, 7]", "[8, 8]", "as expected", "printed", "1024", ""]
    assert done.stderr == ""


# Odd ends, and odd things that are asked for: each is one task's affair, or is refused.


class OddText(Exception):
    def __str__(self) -> str:
        raise ZeroDivisionError("no text")

    __repr__ = __str__


class OddReduced(Exception):
    def __reduce__(self) -> Any:
        return str, ("no exception",)


class OddLoaded(Exception):
    def __reduce__(self) -> Any:
        return sys.exit, (3,)


def raises(kind: type[BaseException]) -> None:
    raise kind


def returns(kind: type[BaseException]) -> object:
    return kind()


def dies_of(number: int) -> None:
    os.kill(os.getpid(), number)
    signal.pause()


def leaves(code: str) -> TaskSpec:
    """A program of Python that leaves the file ``r``, large or not."""
    return TaskSpec(TaskId("leaves"), executable="python", arguments=("-c", code), result_file="r")


@pytest.mark.parametrize("kind", [OddText, OddReduced, SystemExit, KeyboardInterrupt, GeneratorExit])
def test_whatever_a_function_raises_the_next_one_runs(bench: Bench, kind: type[BaseException]) -> None:
    executor = bench.open()
    error = executor.submit(raises, kind).exception(PATIENCE_S)
    assert isinstance(error, kind | RuntimeError)
    assert executor.submit(pow, 2, 4).result(PATIENCE_S) == 16


def test_what_cannot_be_loaded_fails_its_call_only(real: Bench) -> None:
    executor = real.open()
    errors = [executor.submit(does, OddLoaded).exception(PATIENCE_S) for does in (raises, returns)]
    assert None not in errors
    assert executor.submit(pow, 2, 4).result(PATIENCE_S) == 16


WRAPPER = """
import json, os, signal, subprocess, sys
signal.signal(signal.SIGTERM, lambda *_: None)
with open("wrapped.txt", "a") as file: file.write("once\\n")
code = subprocess.call(sys.argv[1:])
shown = sorted(name for name in os.environ if "TEST_VARIABLE" in name)
with open("wrapper.json", "w") as file: json.dump({"code": code, "shown": shown}, file)
sys.exit(41 if code == 3 else code)
"""


def wrapped(uid: str, script: str, **options: Any) -> TaskSpec:
    return TaskSpec(
        TaskId(uid),
        executable="sh",
        arguments=("-c", script),
        wrapper=("python", "-c", WRAPPER),
        result_file="wrapper.json",
        **options,
    )


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_wrapper_starts_its_program_once_whatever_its_ranks(real: Bench, ranks: int) -> None:
    """And variables of linker and Python, which are meant for the program, cannot harm its interpreter."""
    need, variables = Resources(ranks=ranks), {"LD_TEST_VARIABLE": "1", "PYTHON_TEST_VARIABLE": "1"}
    spec = wrapped("a", "echo rank >>ranks.txt", resources=need, environment=variables)
    values = real.open(cores=2).submit_task(spec).result(PATIENCE_S)
    hidden = ["RLCTL_PROGRAM_LD_TEST_VARIABLE", "RLCTL_PROGRAM_PYTHON_TEST_VARIABLE"]
    assert values == {"code": 0, "shown": hidden}
    work = real.folder / "work"
    assert (work / "wrapped.txt").read_text() == "once\n"
    assert (work / "ranks.txt").read_text() == "rank\n" * ranks


@pytest.mark.parametrize("ranks", [1, 2])
def test_the_exit_code_of_a_wrapper_is_that_of_its_task(real: Bench, ranks: int) -> None:
    codes = ((41, Failure.DIVERGED), (3, Failure.OUTPUT))
    spec = wrapped("a", "exit 3", resources=Resources(ranks=ranks), failure_codes=codes)
    with pytest.raises(TaskFailed) as failed:
        real.open(cores=2).submit_task(spec).result(PATIENCE_S)
    assert failed.value.result.failure is Failure.DIVERGED


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_program_in_a_wrapper_may_save_its_state_when_it_is_stopped(real: Bench, ranks: int) -> None:
    """And nothing of it is left."""
    script = f"trap 'echo saved >>saved; exit 0' TERM; echo >>ready; : {real.folder}; while :; do sleep 0.05; done"
    future = real.open(cores=2).submit_task(wrapped("a", script, resources=Resources(ranks=ranks)))
    ready, saved = (real.folder / "work" / name for name in ("ready", "saved"))
    until(lambda: ready.exists() and len(ready.read_text()) == ranks, "all ranks run")
    future.stop(30.0)
    with pytest.raises(cf.CancelledError):
        future.result(PATIENCE_S)
    assert saved.read_text() == "saved\n" * ranks
    assert not [process for process in psutil.process_iter() if script in words(process)]


@pytest.mark.parametrize("number", [signal.SIGRTMIN + 3, signal.SIGRTMAX, signal.SIGUSR1])
def test_a_worker_may_die_of_any_signal(real: Bench, number: int) -> None:
    executor = real.open()
    error = executor.submit(dies_of, number).exception(PATIENCE_S)
    assert isinstance(error, cf.BrokenExecutor)
    assert executor.submit(pow, 2, 4).result(PATIENCE_S) == 16


def test_a_program_may_die_of_any_signal(real: Bench) -> None:
    executor = real.open()
    code = f"import os, signal; os.kill(os.getpid(), {signal.SIGRTMIN + 3})"
    error = executor.submit_task(leaves(code)).exception(PATIENCE_S)
    assert isinstance(error, TaskFailed)
    assert executor.submit_task(task("next", "tells")).result(PATIENCE_S) == {"told": "next"}


@pytest.mark.parametrize(
    "code",
    [
        """open("r", "w").write('{"x": 1e999}')""",
        """open("r", "w").write('{"x": [1e999' + ", 1" * 40_000 + "]}")""",
        """open("r", "w").write('{"x": NaN}')""",
        """open("r", "w").write('{"x": ' + "9" * 5000 + "}")""",
        """open("r", "w").write('{"x": ' + "[" * 100_000 + "]" * 100_000 + "}")""",
        """open("r", "w").write('{"x": ' + "[" * 500 + "]" * 500 + "}")""",
        """open("r", "wb").write(b'{"x": "' + bytes([255, 254]) + b'"}')""",
        """import os; os.mkfifo("r")""",
        """import os; os.mkdir("r")""",
        """import os; os.symlink("r", "r")""",
        """open("r", "w").write("[]")""",
    ],
)
def test_a_result_that_is_no_json_fails_its_task_only(real: Bench, code: str) -> None:
    executor = real.open()
    error = executor.submit_task(leaves(code)).exception(PATIENCE_S)
    assert isinstance(error, TaskFailed)
    assert error.result.failure is Failure.GARBAGE
    assert error.result.message.startswith("r: ")
    assert executor.submit_task(task("next", "tells")).result(PATIENCE_S) == {"told": "next"}


def test_large_results_have_room_beside_a_file_that_is_called_as_their_folder(real: Bench) -> None:
    executor = real.open()
    code = "import json, sys; json.dump({'x': list(range(40_000))}, open(sys.argv[1], 'w'))"
    for name in ("results", "other"):
        spec = TaskSpec(TaskId(name), executable="python", arguments=("-c", code, name), result_file=name)
        values = executor.submit_task(spec).result(PATIENCE_S)
        assert fetch(values["x"], real.folder / "work") == list(range(40_000))


@pytest.mark.parametrize("walltime_s", [30 * 86_400.0, 1e12, math.inf])
def test_a_walltime_of_months_or_of_ages_is_kept(bench: Bench, walltime_s: float) -> None:
    executor = bench.open()
    assert executor.submit_task(task("a", walltime_s=walltime_s)).result(PATIENCE_S) == {}
    call = TaskSpec(TaskId("b"), function="platform:freedesktop_os_release", walltime_s=walltime_s)
    assert executor.submit_task(call).exception(PATIENCE_S) is None
    hanging = occupy(executor, walltime_s=walltime_s)
    executor.cancel(TaskId("occupies"), grace_s=walltime_s)
    with pytest.raises(cf.CancelledError):
        hanging.result(PATIENCE_S)


@pytest.mark.parametrize("number", [0, 100, -9, 2**70, 9.5, "TERM", None, True])
def test_a_signal_that_does_not_exist_is_refused(bench: Bench, number: Any) -> None:
    executor = bench.open()
    hanging = occupy(executor)
    for uid in ("occupies", "nobody"):
        with pytest.raises(RequestError, match="signal"):
            executor.signal(TaskId(uid), number)
    hanging.stop(0.0)
    assert executor.submit_task(task("next")).result(PATIENCE_S) == {}
    executor.signal(TaskId("next"), signal.SIGTERM)  # it has ended


def test_a_signal_without_a_name_arrives(real: Bench) -> None:
    executor = real.open()
    hanging = occupy(executor)
    executor.signal(TaskId("occupies"), signal.SIGRTMIN + 3)
    assert isinstance(hanging.exception(PATIENCE_S), TaskFailed)
    assert executor.submit_task(task("next")).result(PATIENCE_S) == {}


def test_what_no_executor_can_do_is_refused_and_changes_nothing(bench: Bench) -> None:
    executor = bench.open()
    hanging = occupy(executor)
    uid = TaskId("occupies")
    odd: list[Callable[[Any], object]] = [
        lambda value: executor.cancel(uid, value),
        lambda value: executor.update(uid, priority=value if value is not None else "x"),
        lambda value: executor.update(uid, resources=value if value is not None else 3),
        lambda value: executor.resize(value),
    ]
    for ask, value in itertools.product(odd, [math.nan, -1.5, "soon", None, True, [], 1j]):
        if ask is odd[1] and value == -1.5:
            continue  # a priority
        with pytest.raises(RequestError):
            ask(value)
    assert states(executor, "occupies")[-1] is S.RUNNING
    hanging.stop(0.0)
    assert executor.submit_task(task("next")).result(PATIENCE_S) == {}


class NoNode:
    """A rule of placement that fails for tasks of two cores."""

    def __init__(self, score: Any) -> None:
        self._score = score

    def score(self, need: Resources, node: NodeState) -> Any:
        if need.cores_per_rank == 1:
            return 0.0
        return 1 / 0 if self._score is None else self._score


@pytest.mark.parametrize("score", [None, math.nan, "high"])
def test_a_rule_of_placement_that_fails_fails_the_task(bench: Bench, score: Any) -> None:
    executor = bench.open(cores=2)
    executor.place_by(NoNode(score))
    two = Resources(cores_per_rank=2)
    futures = [executor.submit_task(task(uid, resources=two, retries=1)) for uid in ("a", "b")]
    for future in futures:
        with pytest.raises(TaskFailed, match=r"no node can be chosen: NoNode.score") as failed:
            future.result(PATIENCE_S)
        assert failed.value.result.failure is Failure.LAUNCH
    assert executor.submit_task(task("next")).result(PATIENCE_S) == {}
    assert executor.status().free_cores == 2


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, ZeroDivisionError])
def test_whatever_a_callback_raises_the_executor_goes_on(bench: Bench, kind: type[BaseException]) -> None:
    executor = bench.open()
    hanging = occupy(executor)
    future = executor.submit_task(task("a"))
    future.add_done_callback(lambda _: raises(kind))
    threading.Thread(target=hanging.stop, args=(0.0,)).start()
    assert future.result(PATIENCE_S) == {}
    assert executor.submit(pow, 2, 4).result(PATIENCE_S) == 16


def test_a_future_that_was_given_a_result_by_its_owner_harms_no_other(bench: Bench) -> None:
    executor = bench.open()
    hanging = occupy(executor)
    meddled = [executor.submit_task(task("a")), executor.submit(pow, 2, 3)]
    for future in meddled:
        future.set_result("mine")
    hanging.stop(0.0)
    assert executor.submit_task(task("next")).result(PATIENCE_S) == {}
    assert executor.submit(pow, 2, 4).result(PATIENCE_S) == 16


def test_progress_that_is_no_json_is_no_progress(real: Bench) -> None:
    executor = real.open()
    code = """
import time
lines = ["[" * 99_999, '{"x": NaN}', '{"x": 1e999}', "\\udcff", "[]", '{"x": ' + "9" * 5000 + "}"]
for line in lines:
    with open("p", "ab") as file:
        file.write(line.encode(errors="surrogateescape") + b"\\n")
    time.sleep(0.3)
open("p", "a").write('{"x": 1}\\n')
time.sleep(300)
"""
    executor.submit_task(TaskSpec(TaskId("a"), executable="python", arguments=("-c", code), progress_file="p"))

    def told() -> list[Any]:
        if real.engine.eager:
            executor.wait(0.0)
        return [event.progress for event in executor.events() if event.progress is not None]

    until(told)
    assert told() == [{"x": 1}]
    executor.cancel(TaskId("a"), 0.0)


# Those who want an executor.


@pytest.fixture(scope="module")
def pool() -> Iterator[LocalExecutor]:
    with LocalExecutor(max_workers=2) as executor:
        yield executor


def rosenbrock(x: np.ndarray) -> float:
    return float(sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2))


def test_asyncio_runs_functions_in_it(pool: LocalExecutor) -> None:
    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        with pytest.raises(ZeroDivisionError):
            await loop.run_in_executor(pool, divide, 1, 0)
        slow = loop.run_in_executor(pool, forever)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(slow, 0.05)
        return await asyncio.gather(*(loop.run_in_executor(pool, divide, n, 2) for n in range(4)))

    assert asyncio.run(main()) == [0.0, 0.5, 1.0, 1.5]
    for running in pool.status().running:
        pool.cancel(running.uid, 0.0)


def test_scipy_optimizes_with_its_map(pool: LocalExecutor) -> None:
    from scipy.optimize import differential_evolution

    options: Mapping[str, Any] = {"seed": 3, "maxiter": 3, "popsize": 4, "polish": False, "updating": "deferred"}
    bounds = [(-2.0, 2.0)] * 3
    alone = differential_evolution(rosenbrock, bounds, **options)
    together = differential_evolution(rosenbrock, bounds, workers=pool.map, **options)
    assert np.array_equal(alone.x, together.x)


def word_counts(executor: cf.Executor, texts: Sequence[str]) -> dict[str, int]:
    """Written for any executor of the standard library."""
    with executor:
        parts = {executor.submit(str.split, text): text for text in texts}
        words = [word for future in cf.as_completed(parts) for word in future.result()]
        lengths = dict(zip(sorted(set(words)), executor.map(len, sorted(set(words)), chunksize=2), strict=True))
        done, not_done = cf.wait([executor.submit(words.count, word) for word in sorted(lengths)])
        assert not not_done
        assert sum(future.result() for future in done) == len(words)
    return lengths


@pytest.mark.parametrize("kind", [cf.ThreadPoolExecutor, cf.ProcessPoolExecutor, LocalExecutor])
def test_it_takes_the_place_of_a_pool_of_the_standard_library(kind: Callable[..., cf.Executor]) -> None:
    found = word_counts(kind(max_workers=2), ["a bb ccc", "bb dddd", "a"])
    assert found == {"a": 1, "bb": 2, "ccc": 3, "dddd": 4}


# CPython's own tests of executors, where the interpreter has them.


def cpython(module: str, name: str) -> Any:
    """A class of ``test.test_concurrent_futures``, a module up to Python 3.11 and a package since."""
    for path in (f"test.test_concurrent_futures.{module}", "test.test_concurrent_futures"):
        try:
            return getattr(importlib.import_module(path), name)
        except (ImportError, AttributeError, unittest.SkipTest):
            continue
    return None


class OfCPython(unittest.TestCase):
    """Gives the tests of the standard library the executor that they expect."""

    executor_type = LocalExecutor
    worker_count = 5

    def setUp(self) -> None:
        self.executor = LocalExecutor(max_workers=self.worker_count)

    def tearDown(self) -> None:
        self.executor.shutdown()
        del self.executor


def _adapted(module: str, name: str) -> type[unittest.TestCase]:
    mixin = cpython(module, name)
    if mixin is None:
        reason = "this Python comes without test.test_concurrent_futures"
        return unittest.skip(reason)(type(name, (unittest.TestCase,), {"test_skipped": lambda self: None}))
    return type(name, (mixin, OfCPython), {})


TestsOfExecutors = _adapted("executor", "ExecutorTest")
TestsOfAsCompleted = _adapted("test_as_completed", "AsCompletedTests")
TestsOfWait = _adapted("test_wait", "WaitTests")
