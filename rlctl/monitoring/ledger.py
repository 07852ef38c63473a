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
from typing import TypeVar

from rlctl.monitoring.timeline import Attempt, Timeline


class Purpose(StrEnum):
    """What an allocated second was for."""

    BOOT = "boot"  # the controller, or a task's program, was starting
    QUEUE = "queue"  # free, but what waited did not fit
    USEFUL = "useful run"  # a task that ended DONE, or still runs
    WASTED = "wasted run"  # a task that failed, was cancelled, or was lost
    IDLE = "idle"  # free, and nothing waited
    CONTROLLER = "controller"  # free, while the controller decided and recorded


SHOWN = (Purpose.USEFUL, Purpose.WASTED, Purpose.BOOT, Purpose.QUEUE, Purpose.CONTROLLER, Purpose.IDLE)
"""The order in which people are told."""


@dataclass(frozen=True, slots=True)
class AllocationLedger:
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


_Key = TypeVar("_Key", bound=str)


def percentages(seconds: Mapping[_Key, float]) -> dict[_Key, int]:
    """Whole percentages that add up to 100: rounded down, and the largest remainders get what is left.

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
    """The ledger for people; nothing before any time has passed.

    >>> ledger_line({"useful run": 97.0, "boot": 2.0, "idle": 1.0}, {})
    'cores: 97 % useful, 2 % boot, 1 % idle'
    """
    parts = []
    for what, seconds in (("cores", core_seconds), ("GPUs", gpu_seconds)):
        if math.fsum(seconds.values()) > 0.0:
            shares = percentages(seconds)
            told = (f"{shares[p]} % {p.value.removesuffix(' run')}" for p in SHOWN if p in shares)
            parts.append(f"{what}: {', '.join(told)}")
    return "; ".join(parts)


def account(timeline: Timeline, end_s: float | None = None) -> AllocationLedger:
    """Add up a timeline until ``end_s``; None: as far as the allocation is charged."""
    end_s = timeline.charged_s if end_s is None else end_s
    capacity = timeline.capacity
    totals = (float(capacity.total_cores), float(capacity.total_gpus))
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
    return AllocationLedger(cores, gpus, totals[0] * end_s, totals[1] * end_s)


def utilisation(timeline: Timeline, end_s: float | None = None) -> float:
    """Share of the allocated core-seconds that attempts of tasks held, whatever came of them, until ``end_s``."""
    end_s = timeline.charged_s if end_s is None else end_s
    held = math.fsum(
        len(attempt.cores) * max(min(end_s if attempt.ended_s is None else attempt.ended_s, end_s) - since_s, 0.0)
        for attempt in timeline.attempts
        if (since_s := attempt.launched_s) is not None
    )
    allocated = timeline.capacity.total_cores * end_s
    return held / allocated if allocated > 0.0 else 0.0


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
