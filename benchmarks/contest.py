"""One system's turn, in a process of its own: ``python benchmarks/contest.py SYSTEM FOLDER DISK SIZES OUT``.

Started by ``benchmarks/executor.py``. SIZES are how many calls, round trips, naps and programs, separated by commas.
"""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import functions
import tree
from peers import SYSTEMS, WORKERS, System

NAP_S = 0.05
PATIENCE_S = 300.0


def batch(system: System, function: Any, arguments: list[Any]) -> tuple[float, float]:
    """Seconds of the clock and of the processors from the first submission to the last result."""
    cpu_s, began = tree.cpu_s(), time.perf_counter()
    futures: list[Future[Any]] = [system.submit(function, argument) for argument in arguments]
    for future in futures:
        future.result(timeout=PATIENCE_S)
    wall_s = time.perf_counter() - began
    return wall_s, tree.cpu_s() - cpu_s


def round_trips(system: System, count: int) -> list[float]:
    """Milliseconds from submission to result, one at a time; sorted."""
    seconds = []
    for number in range(count):
        began = time.perf_counter()
        system.submit(functions.echo, number).result(timeout=PATIENCE_S)
        seconds.append(time.perf_counter() - began)
    return sorted(1e3 * s for s in seconds)


def turn(kind: type[System], folder: Path, disk: Path, sizes: list[int]) -> dict[str, float]:
    """All figures of one system."""
    calls, trips, naps, programs = sizes
    began = time.perf_counter()
    system = kind(folder, disk)
    try:
        # Both workers have to be there: short naps occupy both, then some calls warm up what is compiled or cached.
        batch(system, functions.nap, [0.01] * (4 * WORKERS))
        start_s = time.perf_counter() - began
        batch(system, functions.echo, list(range(100)))
        wall_s, cpu_s = batch(system, functions.echo, list(range(calls)))
        found = {"start_s": start_s, "wall_s": wall_s, "rate": calls / wall_s, "cpu_ms": 1e3 * cpu_s / calls}
        milliseconds = round_trips(system, trips)
        found |= {"p50_ms": milliseconds[trips // 2], "p99_ms": milliseconds[int(0.99 * trips)]}
        found["peak_mb"] = tree.peak_mb()
        wall_s, _ = batch(system, functions.nap, [NAP_S] * naps)
        found["busy"] = 100.0 * naps * NAP_S / (WORKERS * wall_s)
        _, cpu_s = batch(system, functions.program, list(range(programs)))
        found["program_ms"] = 1e3 * cpu_s / programs
    finally:
        system.close()
    return found


def main() -> None:
    name, folder, disk, sizes, out = sys.argv[1:]
    tree.adopt_orphans()
    kind = next(system for system in SYSTEMS if system.name == name)
    try:
        found = turn(kind, Path(folder), Path(disk), [int(size) for size in sizes.split(",")])
        Path(out).write_text(json.dumps(found))
    finally:
        tree.end_all()


if __name__ == "__main__":
    main()
