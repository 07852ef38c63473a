"""The simulated executor on 64 nodes of 16 cores and 4 GPUs: how busy it keeps them, how fast its books are.

The tasks: six of ten want one GPU and four cores, one of fifty four whole nodes (which makes three fifths of the work),
the others are functions on one core. Durations are log-normal, walltimes between the duration and three times that,
all wait from the beginning, in random order, and none may delay the first that does not fit. The makespan
is given in terms of its lower bound: the work divided by the cores, or the longest task if that is longer.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from rows import Row, row

from rlctl.core.machine import Capacity
from rlctl.core.simulation import Launch, Simulated
from rlctl.core.task import Event, Resources, TaskId, TaskSpec
from rlctl.executors.simulated.backend import SimulatedExecutor

CAPACITY = Capacity(nodes=64, cores=16, gpus=4)
KINDS = (
    (0.60, Resources(1, 4, 1.0), 100.0),
    (0.02, Resources(4, 16, 4.0, nodes=4), 300.0),
    (0.38, Resources(), 20.0),
)
"""Share of the tasks, resources, median seconds."""


class Durations:
    """A model that knows how long each task takes."""

    def __init__(self, seconds: dict[TaskId, float]) -> None:
        self._seconds = seconds

    def outcomes(self, launches: Sequence[Launch]) -> list[Simulated]:
        return [Simulated(self._seconds[launch.spec.uid]) for launch in launches]


def tasks(count: int, seed: int) -> tuple[list[TaskSpec], dict[TaskId, float]]:
    """Specifications in random order, and true durations."""
    rng = np.random.default_rng(seed)
    kinds = rng.choice(len(KINDS), size=count, p=[share for share, _, _ in KINDS])
    specs, seconds = [], {}
    for i, kind in enumerate(kinds):
        _, need, median = KINDS[kind]
        uid = TaskId(f"t{i}")
        seconds[uid] = median * float(np.exp(0.5 * rng.standard_normal()))
        what = {"function": "a:b"} if need.gpus_per_rank == 0.0 else {"executable": "a"}
        walltime_s = seconds[uid] * float(rng.uniform(1.0, 3.0))
        specs.append(TaskSpec(uid, resources=need, walltime_s=walltime_s, **what))
    return specs, seconds


def busy(events: Sequence[Event], begin: float, end: float) -> float:
    """Occupied part of the cores between two times, in per cent."""
    used = sum(
        max(0.0, min(r.ended_s, end) - max(r.started_s, begin)) * r.cores for e in events if (r := e.result) is not None
    )
    return 100.0 * used / ((end - begin) * CAPACITY.total_cores)


def measure(folder: Path, disk: Path, quick: bool) -> Iterator[Row]:
    count = 8_000 if quick else 20_000
    busies, rates, bounds = [], [], []
    for seed in range(1 if quick else 5):
        specs, seconds = tasks(count, seed)
        executor = SimulatedExecutor(CAPACITY, Durations(seconds), backfill=True)
        events: list[Event] = []
        began = time.process_time()
        executor.submit_tasks(specs)
        while new := executor.wait():
            events += new
        worked_s = time.process_time() - began
        ended = [e.result for e in events if e.result is not None]
        assert len(ended) == count
        assert all(result.failure is None for result in ended)
        makespan = max(result.ended_s for result in ended)
        area = sum(seconds[spec.uid] * spec.resources.cores for spec in specs) / CAPACITY.total_cores
        busies.append(busy(events, 0.1 * makespan, 0.9 * makespan))
        rates.append(executor.status().seq / worked_s)
        bounds.append(makespan / max(area, *seconds.values()))
        executor.close()
    yield row("simulated, 64 nodes: cores busy, middle 80 %", "rlctl", busies, "%", 99.0, least=True)
    yield row("simulated, 64 nodes: makespan over its lower bound", "rlctl", bounds, "")
    yield row("simulated, 64 nodes: changes of state per CPU-second", "rlctl", rates, "1/s", 50_000.0, least=True)
