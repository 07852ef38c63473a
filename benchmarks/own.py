"""What is measured of rlctl alone: ``python benchmarks/own.py MEASURE FOLDER DISK full|quick OUT``, a process for each.

Started by ``benchmarks/executor.py``; OUT receives the rows.
"""

from __future__ import annotations

import cProfile
import functools
import json
import os
import pstats
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import functions
import simulation
import tree
from rows import Row, row

from rlctl.core.machine import Capacity
from rlctl.core.task import TaskId, TaskSpec, TaskState
from rlctl.executors.event_log import Journal
from rlctl.executors.local.backend import LocalExecutor

RLCTL = "rlctl"


def programs(folder: Path, disk: Path, quick: bool) -> Iterator[Row]:
    """Programs that do nothing, as tasks of a campaign: own sessions, output in files, a result event each."""
    count = 50 if quick else 200
    values = []
    with LocalExecutor(Capacity(cores=2), folder / "programs", eager=True) as executor:
        for round_ in range(3 if quick else 6):
            specs = [TaskSpec(TaskId(f"true-{round_}-{i}"), executable="/bin/true") for i in range(count)]
            began = tree.cpu_s()
            for future in executor.submit_tasks(specs):
                future.result(60)
            values.append(1e3 * (tree.cpu_s() - began) / count)
            executor.wait(0.0)
    yield row("exec of /bin/true, CPU per task", RLCTL, values[1:], "ms", 1.5)


def cancelling(folder: Path, disk: Path, quick: bool) -> Iterator[Row]:
    """One core: a program runs, another waits for its place."""
    dead, reused = [], []
    executor = LocalExecutor(Capacity(cores=1), folder / "cancel", eager=True)
    try:
        executor.submit_task(_sleeper(0))
        _event(executor, "sleep-0", TaskState.RUNNING)
        for number in range(5 if quick else 20):
            executor.submit_task(_sleeper(number + 1))
            began = time.perf_counter()
            executor.cancel(TaskId(f"sleep-{number}"))
            _event(executor, f"sleep-{number}", TaskState.CANCELED)
            dead.append(1e3 * (time.perf_counter() - began))
            _event(executor, f"sleep-{number + 1}", TaskState.RUNNING)
            reused.append(time.perf_counter() - began)
            assert not _alive(f"{300 + number}"), "it was said to be dead"
    finally:
        executor.close()
    yield row("cancel of a running exec: confirmed dead", RLCTL, dead, "ms", 100.0)
    yield row("cancel of a running exec: slot reused", RLCTL, reused, "s", 1.0)


def deaths(folder: Path, disk: Path, quick: bool) -> Iterator[Row]:
    """A worker is killed, or its call is stopped."""
    noticed, reused = [], []
    with LocalExecutor(max_workers=1) as executor:
        for _ in range(3 if quick else 10):
            pid = executor.submit(os.getpid).result(60)
            future = executor.submit(functions.nap, 300.0)
            time.sleep(0.1)
            began = time.perf_counter()
            os.kill(pid, signal.SIGKILL)
            assert future.exception(60) is not None
            noticed.append(time.perf_counter() - began)
            future = executor.submit(functions.nap, 300.0)
            time.sleep(0.3)  # a new worker has to be at it
            began = time.perf_counter()
            future.stop()
            executor.submit(functions.echo, 0).result(60)
            reused.append(time.perf_counter() - began)
    yield row("death of a worker noticed", RLCTL, noticed, "s", 1.0)
    yield row("cancel of a running call: slot reused", RLCTL, reused, "s", 1.0)


def many(folder: Path, disk: Path, quick: bool) -> Iterator[Row]:
    """All submitted at once."""
    count = 5_000 if quick else 100_000
    with LocalExecutor(max_workers=2) as executor:
        executor.submit(functions.echo, 0).result()
        began = time.perf_counter()
        for future in [executor.submit(functions.echo, i) for i in range(count)]:
            future.result()
        wall_s = time.perf_counter() - began
    yield row(f"{count:,} calls", RLCTL, [wall_s], "s", 60.0 * count / 100_000)


def flat(folder: Path, disk: Path, quick: bool) -> Iterator[Row]:
    """A stream of calls, 10,000 outstanding: what the memory of the controller and its workers does."""
    count = 20_000 if quick else 1_000_000
    with LocalExecutor(max_workers=2) as executor:
        list(executor.map(functions.echo, range(100)))
        start_mb = most_mb = tree.resident_mb()
        began = time.perf_counter()
        outstanding: deque[object] = deque()
        for number in range(count):
            outstanding.append(executor.submit(functions.echo, number))
            if len(outstanding) == 10_000:
                outstanding.popleft().result()  # type: ignore[attr-defined]
            if number % 10_000 == 9_999:
                most_mb = max(most_mb, tree.resident_mb())
        for future in outstanding:
            future.result()  # type: ignore[attr-defined]
        rate = count / (time.perf_counter() - began)
    yield row(f"{count:,} calls, 10,000 outstanding: memory above start", RLCTL, [most_mb - start_mb], "MB", 150.0)
    yield row(f"{count:,} calls, 10,000 outstanding: rate", RLCTL, [rate], "1/s")


def recovery(folder: Path, disk: Path, quick: bool) -> Iterator[Row]:
    """From the file to an executor that knows what has ended."""
    events = 40_000 if quick else 1_000_000
    path = disk / "recovery.db"
    with Journal.create(path, {}) as journal:
        for chunk in _chunks(events // 4):
            with journal.batch():
                for i in chunk:
                    uid = {"uid": f"task-{i}", "attempt": 1}
                    journal.append("submitted", i * 1e-3, {**uid, "parameters": {"temperature": 1.5, "seed": i}})
                    journal.append("launching", i * 1e-3, {**uid, "cores": [0], "gpus": {}, "nodes": [0]})
                    event = {**uid, "time_s": i * 1e-3}
                    where = {"pid": 4711, "starttime": i, "host": "a", "boot_id": "b"}
                    journal.append("event", i * 1e-3, {**event, "state": "running", **where})
                    result = {"values": {"energy": -1.0}, "failure": None, "message": ""}
                    journal.append("event", i * 1e-3, {**event, "state": "done", "result": result})
    values = []
    for number in range(1 if quick else 3):
        began = time.perf_counter()
        with Journal.open(path) as journal, LocalExecutor(Capacity(cores=1), folder / f"recovery-{number}") as executor:
            executor.attach(journal)
            future = executor.submit_task(TaskSpec(TaskId("task-7"), function="functions:echo"))
            assert future.result(60) == {"energy": -1.0}
            values.append(time.perf_counter() - began)
    yield row(f"recovery of a journal of {events:,} events", RLCTL, values, "s", 10.0 * events / 1_000_000)


def profile(folder: Path, disk: Path, quick: bool) -> Iterator[Row]:
    """Prints where the time of a call goes: in the thread that submits, and in the thread that hears the workers."""
    count = 2_000 if quick else 10_000
    serve = LocalExecutor._serve
    for who in ("the thread that submits", "the executor's thread"):
        profiler = cProfile.Profile()
        submitting = who == "the thread that submits"
        if not submitting:

            def profiled(self: LocalExecutor, profiler: cProfile.Profile = profiler) -> None:
                profiler.runcall(serve, self)

            LocalExecutor._serve = profiled  # type: ignore[method-assign]
        with LocalExecutor(max_workers=2) as executor:
            list(executor.map(functions.echo, range(100)))
            run = functools.partial(list, (executor.submit(functions.echo, i) for i in range(count)))
            futures = profiler.runcall(run) if submitting else run()
            for future in futures:
                future.result()
        LocalExecutor._serve = serve  # type: ignore[method-assign]
        print(f"{count} calls, {who}:")
        pstats.Stats(profiler).strip_dirs().sort_stats("tottime").print_stats(18)
    return
    yield


MEASURES: dict[str, Callable[[Path, Path, bool], Iterator[Row]]] = {
    "programs": programs,
    "cancelling": cancelling,
    "deaths": deaths,
    "many": many,
    "flat": flat,
    "recovery": recovery,
    "simulated": simulation.measure,
    "profile": profile,
}


def _chunks(count: int) -> Iterator[range]:
    return (range(i, min(i + 10_000, count)) for i in range(0, count, 10_000))


def _sleeper(number: int) -> TaskSpec:
    return TaskSpec(TaskId(f"sleep-{number}"), executable="/bin/sleep", arguments=(f"{300 + number}",))


def _event(executor: LocalExecutor, uid: str, state: TaskState) -> None:
    """Until it comes; those that came with it are looked at as well."""
    heard = executor.__dict__.setdefault("heard", set())
    while (uid, state) not in heard:
        heard.update((event.uid, event.state) for event in executor.wait(10.0))


def _alive(argument: str) -> bool:
    """Whether a living process of ours has this last argument."""
    for pid, fields in tree.tree().items():
        if fields[0] != "Z" and (tree.PROC / str(pid) / "cmdline").read_bytes().split(b"\0")[1:2] == [
            argument.encode()
        ]:
            return True
    return False


def main() -> None:
    name, folder, disk, size, out = sys.argv[1:]
    tree.adopt_orphans()
    try:
        found = list(MEASURES[name](Path(folder), Path(disk), size == "quick"))
        Path(out).write_text(json.dumps([asdict(one) for one in found]))
    finally:
        tree.end_all()


if __name__ == "__main__":
    main()
