"""What rlctl adds to Slurm: its programs against a bare ``srun``, its calls against both.

Runs inside a job with at least one node (``salloc``, ``sbatch``), or on a Slurm of two nodes that it starts by
``scripts/slurm-testbed.sh``. The kinds of program take turns. Processor time is that of this process and of what it has
started, ``srun`` included; Slurm's daemons are not in it.

``python benchmarks/slurm.py [--quick] [--json FILE]``
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import functions
import tree
from rows import Row, machine, parser, report, row

from rlctl.core.machine import Capacity
from rlctl.core.task import TaskId, TaskSpec
from rlctl.executors.engine import Executor
from rlctl.executors.local.backend import LocalExecutor
from rlctl.executors.local.options import LocalOptions
from rlctl.executors.slurm.backend import slurm_backend
from rlctl.executors.slurm.options import SlurmOptions, SubmitOptions

TESTBED = Path(__file__).parents[1] / "scripts" / "slurm-testbed.sh"
SRUN = ["srun", "--overlap", "--cpu-bind=none", "--gres=none", "--nodes=1", "--ntasks=1", "true"]
BARE, OURS, LOCAL = "srun", "rlctl on Slurm", "rlctl on this machine"


@contextmanager
def slurm(folder: Path) -> Iterator[bool]:
    """A Slurm; whether it was made for us."""
    if "SLURM_JOB_ID" in os.environ:
        yield False
        return
    if shutil.which("slurmctld", path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None:
        sys.exit("benchmarks/slurm.py needs Slurm: run it in a job, or install what scripts/slurm-testbed.sh names")
    os.environ |= {"RLCTL_TESTBED": str(folder / "bed"), "TESTBED_NODES": "2", "TESTBED_CPUS": "4"}
    subprocess.run([TESTBED, "up"], check=True, stdout=subprocess.DEVNULL)
    os.environ["SLURM_CONF"] = str(folder / "bed" / "slurm.conf")
    try:
        yield True
    finally:
        subprocess.run([TESTBED, "down"], check=True)


def first_task(folder: Path, runs: int) -> Iterator[Row]:
    """From the request for an allocation to the end of a first program on it, while nodes are free."""
    seconds = []
    for number in range(runs):
        began = time.perf_counter()
        how = SlurmOptions(submit=SubmitOptions(time_limit="0:05:00"), poll_s=0.2, lease_s=0.0)
        executor = Executor(slurm_backend(Capacity(cores=2), folder / f"first-{number}", how), eager=True)
        try:
            executor.submit_task(TaskSpec(TaskId("first"), executable="true")).result(120)
            seconds.append(time.perf_counter() - began)
        finally:
            executor.close()
        while subprocess.run(["squeue", "--noheader", "--me"], capture_output=True, check=True).stdout:
            time.sleep(0.1)
    yield row("from the request for nodes to the first result", OURS, seconds, "s")


def one_by_one(run: Callable[[int], object], count: int) -> tuple[list[float], float]:
    """Milliseconds of the clock of each, and of the processors for all."""
    milliseconds, cpu_s = [], tree.cpu_s()
    for number in range(count):
        began = time.perf_counter()
        run(number)
        milliseconds.append(1e3 * (time.perf_counter() - began))
    return milliseconds, 1e3 * (tree.cpu_s() - cpu_s) / count


def bare(number: int) -> None:
    subprocess.run(SRUN, check=True, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def programs(folder: Path, rounds: int, count: int) -> Iterator[Row]:
    """``true`` as a program, one after the other, and four at a time."""
    walls: dict[str, list[float]] = {BARE: [], OURS: [], LOCAL: []}
    cpus: dict[str, list[float]] = {BARE: [], OURS: [], LOCAL: []}
    rates: dict[str, list[float]] = {BARE: [], OURS: []}
    capacity = Capacity(cores=4)
    here = LocalOptions(lease_s=0.0, enforce_memory=False, oversubscribe=True)
    with (
        Executor(slurm_backend(capacity, folder / "programs", SlurmOptions(lease_s=0.0)), eager=True) as ours,
        LocalExecutor(capacity, folder / "local", eager=True, options=here) as local,
        ThreadPoolExecutor(4) as threads,
    ):

        def true(executor: Executor, name: str) -> object:
            return executor.submit_task(TaskSpec(TaskId(name), executable="true"))

        for round_ in range(rounds):
            ways: dict[str, Callable[[int], object]] = {
                BARE: bare,
                OURS: lambda n, r=round_: true(ours, f"{r}-{n}").result(60),  # type: ignore[misc, attr-defined]
                LOCAL: lambda n, r=round_: true(local, f"{r}-{n}").result(60),  # type: ignore[misc, attr-defined]
            }
            for name, way in ways.items():
                wall_ms, cpu_ms = one_by_one(way, count)
                walls[name].append(sorted(wall_ms)[count // 2])
                cpus[name].append(cpu_ms)
            began = time.perf_counter()
            list(threads.map(bare, range(2 * count)))
            rates[BARE].append(2 * count / (time.perf_counter() - began))
            began = time.perf_counter()
            for future in [true(ours, f"many-{round_}-{n}") for n in range(2 * count)]:
                future.result(60)  # type: ignore[attr-defined]
            rates[OURS].append(2 * count / (time.perf_counter() - began))
    for measure, values, unit in (
        ("program, one at a time: start to end, median", walls, "ms"),
        ("program, one at a time: CPU, without Slurm's daemons", cpus, "ms"),
        ("programs, four at a time", rates, "1/s"),
    ):
        for name, found in values.items():
            yield row(measure, name, found, unit)
    extra = [a - b for a, b in zip(walls[OURS], walls[BARE], strict=True)]
    yield row("program: what rlctl adds to a bare srun", OURS, extra, "ms")


def calls(folder: Path, rounds: int, count: int) -> Iterator[Row]:
    """Round trips of calls, one at a time, small and of ten kilobytes."""
    middle: dict[tuple[str, str], list[float]] = {}
    high: dict[tuple[str, str], list[float]] = {}
    with (
        Executor(slurm_backend(Capacity(cores=2), folder / "calls", SlurmOptions(lease_s=0.0)), eager=True) as ours,
        LocalExecutor(max_workers=2) as local,
    ):
        for executor in (ours, local):
            list(executor.map(functions.echo, range(20)))
        for _ in range(rounds):
            for name, executor in ((OURS, ours), (LOCAL, local)):
                for size, argument in (("small", b"x"), ("10 KB", b"x" * 10_000)):
                    wall_ms, _ = one_by_one(
                        lambda n, e=executor, a=argument: e.submit(functions.echo, a).result(60), count
                    )  # type: ignore[misc]
                    middle.setdefault((size, name), []).append(sorted(wall_ms)[count // 2])
                    high.setdefault((size, name), []).append(sorted(wall_ms)[int(0.99 * count)])
    for (size, name), values in sorted(middle.items(), key=lambda item: item[0][0], reverse=True):
        yield row(f"call, {size}: round trip, median", name, values, "ms")
    for (size, name), values in sorted(high.items(), key=lambda item: item[0][0], reverse=True):
        yield row(f"call, {size}: round trip, p99", name, values, "ms")


def main() -> None:
    arguments = parser(__doc__).parse_args()
    tree.adopt_orphans()
    before, rows = machine(), []
    rounds, count = (1, 10) if arguments.quick else (5, 40)
    with tempfile.TemporaryDirectory(prefix="rlctl-bench-") as temporary:
        folder = Path(temporary)
        with slurm(folder) as made:
            if made:
                rows += first_task(folder, rounds)
                said = subprocess.run(
                    ["sbatch", "--parsable", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep infinity"],
                    check=True,
                    capture_output=True,
                    text=True,
                )
                os.environ["SLURM_JOB_ID"] = said.stdout.strip()
                while b"RUNNING" not in subprocess.run(["squeue", "-h", "-o%T"], capture_output=True).stdout:
                    time.sleep(0.1)
            rows += programs(folder, rounds, count)
            rows += calls(folder, rounds, 5 * count)
            if made:
                subprocess.run(["scancel", os.environ.pop("SLURM_JOB_ID")], check=True)
    report(f"rlctl and Slurm; at the beginning: {before}; at the end: {machine()}", rows, arguments.json)


if __name__ == "__main__":
    main()
