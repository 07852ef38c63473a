"""The ledger of an allocation: assigns every core-second and GPU-second to exactly one purpose.

A core that holds a task is booting until the program of the task starts; then it is a useful or a wasted run, depending
on how the attempt ends. A free core belongs to the controller while that is at work, to the queue while a waiting task
does not fit, and is idle otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from rlctl.monitoring.timeline import Timeline


class Purpose(StrEnum):
    """Use of an allocated second."""

    BOOT = "boot"  # the controller, or the program of a task, was starting
    QUEUE = "queue"  # free, while no waiting task fitted
    USEFUL = "useful run"  # a task that ended DONE, or still runs
    WASTED = "wasted run"  # a task that failed, was cancelled, or was lost
    IDLE = "idle"  # free, without waiting tasks
    CONTROLLER = "controller"  # free, while the controller decided and recorded


SHOWN = (Purpose.USEFUL, Purpose.WASTED, Purpose.BOOT, Purpose.QUEUE, Purpose.CONTROLLER, Purpose.IDLE)
"""Order in tables and texts."""


@dataclass(frozen=True, slots=True)
class AllocationLedger:
    """Seconds by purpose, over all cores and over all GPUs of the allocation.

    Attributes:
        cores, gpus: core-seconds and GPU-seconds by purpose; they add up to the allocated ones.
        allocated_cores, allocated_gpus: number of cores and of GPUs times elapsed seconds.
        held_cores: core-seconds that attempts of tasks held, successful or not.
    """

    cores: Mapping[Purpose, float]
    gpus: Mapping[Purpose, float]
    allocated_cores: float
    allocated_gpus: float
    held_cores: float

    @property
    def utilisation(self) -> float:
        """Share of the allocated core-seconds that tasks held."""
        return self.held_cores / self.allocated_cores if self.allocated_cores > 0.0 else 0.0

    def shares(self) -> dict[Purpose, float]:
        """Share of the core-seconds by purpose; they add up to 1, or are all 0 before any time has passed."""
        total = self.allocated_cores
        return {purpose: seconds / total if total else 0.0 for purpose, seconds in self.cores.items()}


_Key = TypeVar("_Key", bound=str)


def percentages(seconds: Mapping[_Key, float]) -> dict[_Key, int]:
    """Whole percentages that add up to 100, by the largest-remainder method.

    >>> percentages({"useful run": 2.0, "idle": 1.0, "boot": 0.0})
    {'useful run': 67, 'idle': 33, 'boot': 0}
    """
    total = math.fsum(seconds.values())
    if total <= 0.0:
        return dict.fromkeys(seconds, 0)
    exact = {key: 100.0 * max(value, 0.0) / total for key, value in seconds.items()}
    whole = {key: math.floor(value) for key, value in exact.items()}
    by_remainder = sorted(exact, key=lambda key: whole[key] - exact[key])
    for key in by_remainder[: 100 - sum(whole.values())]:
        whole[key] += 1
    return whole


def ledger_line(core_seconds: Mapping[str, float], gpu_seconds: Mapping[str, float]) -> str:
    """The ledger in one line; empty before any time has passed.

    >>> ledger_line({"useful run": 97.0, "boot": 2.0, "idle": 1.0}, {})
    'cores: 97 % useful, 2 % boot, 1 % idle'
    """
    parts = []
    for what, seconds in (("cores", core_seconds), ("GPUs", gpu_seconds)):
        if math.fsum(seconds.values()) > 0.0:
            shares = percentages(seconds)
            texts = (f"{shares[p]} % {p.value.removesuffix(' run')}" for p in SHOWN if p in shares)
            parts.append(f"{what}: {', '.join(texts)}")
    return "; ".join(parts)


def allocation_ledger(timeline: Timeline, end_s: float | None = None) -> AllocationLedger:
    """Add up a timeline until ``end_s``; None: until the end of the charged time."""
    end_s = timeline.charged_s if end_s is None else end_s
    machines = [*timeline.machines, (math.inf, timeline.capacity)]
    sums: list[dict[Purpose, list[float]]] = [{purpose: [] for purpose in Purpose} for _ in range(2)]
    held = [dict.fromkeys((Purpose.BOOT, Purpose.USEFUL, Purpose.WASTED), 0.0) for _ in range(2)]
    # Why a free core is free, and how often; the first one that applies counts.
    reasons = dict.fromkeys((Purpose.BOOT, Purpose.CONTROLLER, Purpose.QUEUE), 0)
    changes: list[tuple[float, int, _Span | None]] = []
    for span in _spans(timeline, end_s):
        if min(span.to_s, end_s) > span.from_s:
            changes += [(span.from_s, 1, span), (min(span.to_s, end_s), -1, span)]
    changes += [(until_s, 0, None) for until_s, _ in timeline.machines if until_s < end_s]
    since_s, held_cores, allocated = 0.0, [], [0.0, 0.0]
    for time_s, sign, change in [*sorted(changes, key=lambda change: change[0]), (end_s, 0, None)]:
        if time_s > since_s:
            while machines[0][0] <= since_s:
                machines.pop(0)
            totals = (float(machines[0][1].total_cores), float(machines[0][1].total_gpus))
            allocated = [sum_ + total * (time_s - since_s) for sum_, total in zip(allocated, totals, strict=True)]
            held_cores.append(math.fsum(held[0].values()) * (time_s - since_s))
            for total, of, into in zip(totals, held, sums, strict=True):
                for purpose, count in of.items():
                    into[purpose].append(count * (time_s - since_s))
                free = next((purpose for purpose, count in reasons.items() if count), Purpose.IDLE)
                into[free].append((total - math.fsum(of.values())) * (time_s - since_s))
            since_s = time_s
        if change is None:
            continue
        if change.held is None:
            reasons[change.purpose] += sign
        else:
            for of, count in zip(held, change.held, strict=True):
                of[change.purpose] += sign * count
    cores, gpus = ({purpose: math.fsum(parts) for purpose, parts in of.items()} for of in sums)
    return AllocationLedger(cores, gpus, allocated[0], allocated[1], math.fsum(held_cores))


@dataclass(frozen=True, slots=True)
class _Span:
    """Cores and GPUs that are held for a purpose; None: a reason why free cores are free."""

    from_s: float
    to_s: float
    purpose: Purpose
    held: tuple[float, float] | None = None


def _spans(timeline: Timeline, end_s: float) -> Iterable[_Span]:
    for spans, purpose in ((timeline.booting, Purpose.BOOT), (timeline.working, Purpose.CONTROLLER)):
        for from_s, to_s in spans:
            yield _Span(from_s, to_s, purpose)
    for attempt in timeline.attempts:
        ended_s = end_s if attempt.ended_s is None else attempt.ended_s
        launched_s = ended_s if attempt.launched_s is None else attempt.launched_s
        yield _Span(attempt.queued_s, launched_s, Purpose.QUEUE)
        if attempt.launched_s is not None:
            running_s = ended_s if attempt.started_s is None else attempt.started_s
            held = (float(len(attempt.cores)), math.fsum(attempt.gpus.values()))
            yield _Span(launched_s, running_s, Purpose.BOOT, held)
            yield _Span(running_s, ended_s, Purpose.USEFUL if attempt.useful else Purpose.WASTED, held)
