"""The ledger of an allocation: every core-second and GPU-second belongs to exactly one purpose.

A core that a task holds is booting until the task's program runs, and then a useful or a wasted run, by how the attempt
ended. A core that no task holds belongs to the controller while that is at work, to the queue while a task waits that
does not fit, and is idle otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from rlctl.monitoring.timeline import Attempt, Timeline


class Purpose(StrEnum):
    """What an allocated second was for."""

    BOOT = "boot"  # the controller, or a task's program, was starting
    QUEUE = "queue"  # free, but what waited did not fit
    USEFUL = "useful run"  # a task that ended DONE, or still runs
    WASTED = "wasted run"  # a task that failed, was cancelled, or was lost
    IDLE = "idle"  # free, and nothing waited
    CONTROLLER = "controller"  # free, while the controller decided and recorded


@dataclass(frozen=True, slots=True)
class Account:
    """Seconds by purpose, over all cores and over all GPUs of the allocation.

    Attributes:
        cores, gpus: core-seconds and GPU-seconds by purpose; they add up to ``allocated`` ones.
        allocated_cores, allocated_gpus: cores and GPUs times elapsed seconds.
    """

    cores: Mapping[Purpose, float]
    gpus: Mapping[Purpose, float]
    allocated_cores: float
    allocated_gpus: float

    def shares(self) -> dict[Purpose, float]:
        """Share of the core-seconds by purpose; they add up to 1, or are all 0 before any time has passed."""
        total = self.allocated_cores
        return {purpose: seconds / total if total else 0.0 for purpose, seconds in self.cores.items()}


def account(timeline: Timeline, end_s: float | None = None) -> Account:
    """Add up a timeline until ``end_s``; None: until its last record."""
    end_s = timeline.end_s if end_s is None else end_s
    capacity = timeline.capacity
    totals = (float(capacity.total_cores), float(capacity.nodes * capacity.gpus))
    sums: list[dict[Purpose, list[float]]] = [{purpose: [] for purpose in Purpose} for _ in totals]
    # What changes at which time: occupied cores and GPUs by purpose, and how many reasons there are for a free core.
    held = [dict.fromkeys((Purpose.BOOT, Purpose.USEFUL, Purpose.WASTED), 0.0) for _ in totals]
    reasons = dict.fromkeys((Purpose.BOOT, Purpose.CONTROLLER, Purpose.QUEUE), 0)
    changes = sorted(_changes(timeline, end_s), key=lambda change: change.time_s)
    since_s = 0.0
    for change in [*changes, _Change(end_s)]:
        seconds = change.time_s - since_s
        if seconds > 0.0:
            for total, of, into in zip(totals, held, sums, strict=True):
                for purpose, count in of.items():
                    into[purpose].append(count * seconds)
                free = next((purpose for purpose, count in reasons.items() if count), Purpose.IDLE)
                into[free].append((total - math.fsum(of.values())) * seconds)
            since_s = change.time_s
        if change.purpose is None:
            break
        if change.cores is None:
            reasons[change.purpose] += change.sign
        else:
            held[0][change.purpose] += change.sign * change.cores
            held[1][change.purpose] += change.sign * change.gpus
    cores, gpus = ({purpose: math.fsum(parts) for purpose, parts in of.items()} for of in sums)
    return Account(cores, gpus, totals[0] * end_s, totals[1] * end_s)


@dataclass(frozen=True, slots=True)
class _Change:
    """From ``time_s`` on, so much more (or less) is held for a purpose; without cores, a free core has that reason."""

    time_s: float
    purpose: Purpose | None = None
    sign: int = 1
    cores: int | None = None
    gpus: float = 0.0


def _changes(timeline: Timeline, end_s: float) -> Iterable[_Change]:
    for spans, purpose in ((timeline.booting, Purpose.BOOT), (timeline.working, Purpose.CONTROLLER)):
        for from_s, to_s in spans:
            yield from _span(from_s, to_s, end_s, purpose)
    for attempt in timeline.attempts:
        ended_s = end_s if attempt.ended_s is None else attempt.ended_s
        launched_s = ended_s if attempt.launched_s is None else attempt.launched_s
        yield from _span(attempt.queued_s, launched_s, end_s, Purpose.QUEUE)
        if attempt.launched_s is not None:
            yield from _held(attempt, attempt.launched_s, ended_s, end_s)


def _held(attempt: Attempt, launched_s: float, ended_s: float, end_s: float) -> Iterable[_Change]:
    running_s = ended_s if attempt.started_s is None else attempt.started_s
    cores, gpus = len(attempt.cores), math.fsum(attempt.gpus.values())
    run = Purpose.USEFUL if attempt.useful else Purpose.WASTED
    yield from _span(launched_s, running_s, end_s, Purpose.BOOT, cores, gpus)
    yield from _span(running_s, ended_s, end_s, run, cores, gpus)


def _span(
    from_s: float, to_s: float, end_s: float, purpose: Purpose, cores: int | None = None, gpus: float = 0.0
) -> Iterable[_Change]:
    from_s, to_s = min(from_s, end_s), min(to_s, end_s)
    if to_s > from_s:
        yield _Change(from_s, purpose, 1, cores, gpus)
        yield _Change(to_s, purpose, -1, cores, gpus)
