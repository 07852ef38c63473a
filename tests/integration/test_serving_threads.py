"""Threads that serve all tasks: what they did not expect ends the executor, with the reason, and nothing hangs."""

from __future__ import annotations

import concurrent.futures as cf
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
from child_processes.backend import ChildBackend
from parsl_workers import needs_parsl, shared
from steering_process import Steering

from rlctl.core.errors import RlctlError
from rlctl.core.machine import Capacity
from rlctl.core.simulation import Launch, Simulated
from rlctl.core.task import TaskId, TaskSpec, TaskState
from rlctl.executors import LocalExecutor, SimulatedExecutor
from rlctl.executors.engine import Executor
from rlctl.executors.event_log import Journal
from rlctl.executors.factory import PoolPlan
from rlctl.executors.futures import ExecutorBroken
from rlctl.executors.local.backend import LocalBackend
from rlctl.executors.local.options import LocalOptions
from rlctl.executors.local.supervisor_client import SupervisorClient

PATIENCE_S = 120.0
SETTINGS = LocalOptions(lease_s=0.0, pin=False, oversubscribe=True)
SLEEP = str(7 * 10**4 + os.getpid() % 10**4)
"""Seconds; no other process sleeps as long."""


def boom(*arguments: object) -> None:
    raise ZeroDivisionError("boom")


def backend_of(executor: Executor) -> LocalBackend:
    backend = executor._dispatch.pools[0].backend
    assert isinstance(backend, LocalBackend)
    return backend


def hanging(uid: str = "hangs") -> TaskSpec:
    return TaskSpec(TaskId(uid), executable="sleep", arguments=(SLEEP,))


def until(condition: Callable[[], Any]) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.01)


def sleeping() -> list[psutil.Process]:
    return [p for p in psutil.process_iter(["cmdline"]) if (p.info["cmdline"] or [])[1:] == [SLEEP]]


@pytest.fixture
def executor(tmp_path: Path) -> Iterator[LocalExecutor]:
    executor = LocalExecutor(Capacity(cores=2), tmp_path, eager=True, options=SETTINGS)
    yield executor
    executor.close()


def is_broken(executor: Executor, futures: Sequence[cf.Future[Any]], why: str) -> None:
    """Every future has the reason, as has everyone who asks; whatever is asked returns."""
    for future in futures:
        error = future.exception(PATIENCE_S)
        assert isinstance(error, ExecutorBroken)
        assert isinstance(error, cf.BrokenExecutor)
        assert why in str(error)
    for ask in (executor.wait, lambda: executor.submit(pow, 2, 3), lambda: executor.submit_task(hanging("more"))):
        with pytest.raises(ExecutorBroken, match=why):
            ask()
    for uid in (TaskId("hangs"), TaskId("unknown")):
        executor.cancel(uid)
        executor.signal(uid, signal.SIGTERM)
        executor.hold(uid)
        executor.release(uid)
    executor.status()
    executor.shutdown()
    executor.close()


def test_what_the_thread_did_not_expect_ends_the_executor(executor: LocalExecutor) -> None:
    futures = [executor.submit_task(hanging()), executor.submit(time.sleep, 600), executor.submit(pow, 2, 3)]
    until(sleeping)
    backend_of(executor).poll = boom  # type: ignore[method-assign, assignment]
    backend_of(executor).wake()
    is_broken(executor, futures, "ZeroDivisionError: boom")
    assert not sleeping(), "nothing of it runs on"


def test_what_is_done_when_a_record_is_written_ends_the_executor_and_not_the_journal(
    executor: LocalExecutor, tmp_path: Path
) -> None:
    with Journal.create(tmp_path / "journal.db", {}) as journal:
        executor.attach(journal)
        executor._dispatch._launch_recorded = boom  # type: ignore[method-assign]
        is_broken(executor, [executor.submit_task(hanging())], "ZeroDivisionError: boom")
        journal.write("time", 0.0, {}, boom)
        told: list[Any] = []
        journal.write("time", 1.0, {}, told.append)
        until(lambda: told == [None])
        journal.append("time", 2.0, {})
        assert [record.time_s for record in journal.records(kinds={"time"})] == [0.0, 1.0, 2.0]


def test_a_journal_is_attached_while_its_thread_waits_for_the_executor(
    executor: LocalExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Journal.create(tmp_path / "journal.db", {}) as journal:
        read, lock, waits = journal.records, executor._dispatch.lock.news, threading.Event()
        had: list[bool] = []

        def written(error: RlctlError | None) -> None:
            waits.set()
            had.append(lock.acquire(timeout=10.0))
            if had[0]:
                lock.release()

        def records(**which: Any) -> Any:
            journal.write("time", 0.0, {}, written)
            assert waits.wait(PATIENCE_S)
            return read(**which)

        monkeypatch.setattr(journal, "records", records)
        executor.attach(journal)
        until(lambda: had)
        assert had == [True]


def test_a_record_that_cannot_be_written_in_this_form_fails_as_one_that_finds_no_room(tmp_path: Path) -> None:
    with Journal.create(tmp_path / "journal.db", {}) as journal:
        told: list[Any] = []
        journal.write("\ud800", 0.0, {}, told.append)
        until(lambda: told)
        assert isinstance(told[0], RlctlError)
        journal.append("time", 1.0, {})


class Fails:
    def outcomes(self, launches: Sequence[Launch]) -> list[Simulated]:
        if launches[0].attempt == 1 and launches[0].spec.uid == "first":
            return [Simulated(1.0)]
        raise ZeroDivisionError("boom")


def test_a_model_that_fails_on_the_clock_ends_the_executor() -> None:
    executor = SimulatedExecutor(Capacity(cores=1), Fails(), eager=True)
    submitted = threading.Event()
    first = executor.submit_task(TaskSpec(TaskId("first"), executable="a"))
    first.add_done_callback(lambda _: submitted.wait(PATIENCE_S))
    second = executor.submit_task(TaskSpec(TaskId("second"), executable="a"))
    submitted.set()
    assert first.result(PATIENCE_S) == {}
    error = second.exception(PATIENCE_S)
    assert "boom" in str(error)
    executor.shutdown()
    executor.close()


@pytest.mark.parametrize("seconds", [float("nan"), -1.0])
def test_a_model_says_how_long_things_take(seconds: float) -> None:
    with pytest.raises(ValueError, match="duration_s"):
        Simulated(seconds)


def test_a_pool_that_breaks_ends_the_campaign_with_the_reason(tmp_path: Path) -> None:
    backends = {name: LocalBackend(Capacity(cores=1), tmp_path, SETTINGS, pool=name) for name in ("first", "second")}
    with closing(Executor([PoolPlan(backend, name) for name, backend in backends.items()])) as executor:
        future = executor.submit_task(hanging())
        until(sleeping)
        backends["first"].poll = boom  # type: ignore[method-assign, assignment]
        backends["first"].wake()
        assert isinstance(future.exception(PATIENCE_S), ExecutorBroken)
        with pytest.raises(ExecutorBroken, match="boom"):
            executor.wait()


def test_wait_and_the_thread_of_the_journal_do_not_block_each_other(tmp_path: Path) -> None:
    """Attempts run as soon as ``start`` returns, so that one is reported while the next is still being recorded."""
    with Journal.create(tmp_path / "journal.db", {}) as journal:
        backend = ChildBackend(Capacity(cores=4), tmp_path / "work")
        executor = Executor(backend, journal, eager=False)
        done: list[str] = []

        def wait() -> None:
            while len(done) < 40:
                done.extend(event.uid for event in executor.wait() if event.result is not None)

        executor.submit_tasks(TaskSpec(TaskId(str(number)), "true") for number in range(40))
        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
        executor.close()


@needs_parsl
def test_threads_of_the_parsl_executor_are_guarded_too(tmp_path: Path) -> None:
    from rlctl.executors.parsl.backend import ParslBackend

    executor = Executor(ParslBackend(shared.executor, Capacity(cores=1), tmp_path))
    try:
        future = executor.submit_task(hanging())
        until(sleeping)
        backend = executor._dispatch.pools[0].backend
        assert isinstance(backend, ParslBackend)
        backend._control.beat = boom  # type: ignore[method-assign, assignment]
        is_broken(executor, [future], "ZeroDivisionError: boom")
    finally:
        executor.close()
        shared.stop()


# The supervisor.


def test_a_supervisor_that_cannot_start_tells_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHOME", "/nowhere")  # then no Python starts
    executor = LocalExecutor(Capacity(cores=1), tmp_path, eager=True, options=SETTINGS)
    error = executor.submit_task(hanging()).exception(PATIENCE_S)
    assert isinstance(error, ExecutorBroken)
    assert "dies again and again: ModuleNotFoundError: No module named 'encodings'" in str(error)
    executor.close()


def test_a_supervisor_that_is_killed_again_and_again_is_not_replaced_for_ever(executor: LocalExecutor) -> None:
    future = executor.submit_task(hanging())
    until(lambda: future.state is TaskState.RUNNING)
    while not future.done():
        process = backend_of(executor).programs.client._process
        assert process is not None
        process.send_signal(signal.SIGKILL)
        until(lambda process=process: future.done() or backend_of(executor).programs.client._process is not process)  # type: ignore[misc]
    is_broken(executor, [future], "dies again and again: killed by SIGKILL")


def test_a_bug_of_the_supervisor_is_told_by_its_last_line(executor: LocalExecutor) -> None:
    future = executor.submit_task(hanging())
    while not future.done():
        backend_of(executor).programs.client.send("no such thing")
        time.sleep(0.01)
    is_broken(executor, [future], "dies again and again: KeyError: 'no such thing'")


def test_a_program_that_the_supervisor_cannot_start_fails_alone(tmp_path: Path) -> None:
    supervision = SupervisorClient(tmp_path, dict(os.environ))
    heard: list[Any] = []

    def hear() -> list[Any]:
        messages = supervision.receive()
        assert messages is not None, "it lives"
        heard.extend(messages)
        return heard

    supervision.send("run", key="a.1", nonsense=1)
    supervision.send("run", key="b.1", command=["true"], environment={"x": 3}, outputs=["a", "b"], cores=None)
    until(lambda: len([message for message in hear() if message["event"] == "failed"]) == 2)
    supervision.close()


# The end of the interpreter.


def test_the_end_of_one_executor_does_not_make_the_interpreter_forget_the_others() -> None:
    script = """
from rlctl.executors import LocalExecutor
first, second = LocalExecutor(max_workers=1), LocalExecutor(max_workers=1)
last = second.submit(pow, 2, 10)
last.add_done_callback(lambda future: print(future.result(), flush=True))
first.shutdown()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE_S)
    assert (done.stdout, done.returncode) == ("1024\n", 0), done.stderr


# Real campaigns.


def test_a_task_that_no_program_can_be_given_ends_steering_in_one_line(steering: Steering) -> None:
    steering.configure(parts=1, environment={"N": None})
    code, _, err = steering.finish()
    assert code == 2
    assert err.splitlines()[-1].startswith("rlctl: task 'part-0': environment['N']: None could be written in several")
    assert "Traceback" not in err


def test_a_number_among_the_variables_of_a_task_is_given_as_text(steering: Steering) -> None:
    steering.configure(parts=1, environment={"N": 7})
    code, _, err = steering.finish()
    assert code == 0, err


# Interrupts and forks.


class Interrupts:
    """As if Ctrl-C came while it is pickled."""

    def __reduce__(self) -> Any:
        raise KeyboardInterrupt


def test_an_interrupt_while_arguments_are_pickled_leaves_the_executor_in_order() -> None:
    with LocalExecutor(max_workers=1) as executor:
        assert executor.submit(pow, 2, 1).result(PATIENCE_S) == 2
        with pytest.raises(KeyboardInterrupt):
            executor.submit(repr, Interrupts())
        assert executor.submit(pow, 2, 3).result(PATIENCE_S) == 8


def test_the_child_of_a_function_that_forks_answers_no_call() -> None:
    with LocalExecutor(max_workers=1) as executor:
        assert executor.submit(os.fork).result(PATIENCE_S) > 0
        assert [executor.submit(pow, 2, n).result(PATIENCE_S) for n in range(6)] == [1, 2, 4, 8, 16, 32]
