"""What a controller knows of a film and of its material."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

BINS = 8
"""Temperature bins of the memory, over [T_MIN, T_MAX]."""
RECENT = 4
"""Measurements of a film that are remembered."""


@dataclass(slots=True)
class Measurement:
    """One measurement, with the segment before it."""

    temperature: float
    steps: int
    q: float
    amplitude: float
    bands: tuple[float, ...]
    wavenumber: float

    @classmethod
    def read(cls, values: Mapping[str, Any], temperature: float, steps: int) -> Measurement:
        """From a segment's result; KeyError, TypeError or ValueError if it is not one of this program."""
        bands = tuple(float(b) for b in values["bands"])
        seen = cls(
            temperature, steps, float(values["q"]), float(values["amplitude"]), bands, float(values["wavenumber"])
        )
        if len(bands) != 5 or not all(abs(x) < 1e6 for x in (seen.q, seen.amplitude, seen.wavenumber, *bands)):
            raise ValueError("the measurement is not finite or has not five bands")
        return seen


@dataclass(slots=True)
class Film:
    """A film in progress.

    Attributes:
        temperature: that of its last measured segment; None while it is fresh.
        age: time steps of its measured segments.
        segments, measured: segments started, and those of them that gave a measurement.
        failures: failed segments since the last measurement.
        recent: the last measurements, oldest first.
    """

    number: int
    temperature: float | None = None
    age: int = 0
    segments: int = 0
    measured: int = 0
    failures: int = 0
    recent: list[Measurement] = field(default_factory=list)
    highest_q: float = 0.0

    @property
    def subject(self) -> str:
        """Its name in decisions, and of its tasks and files."""
        return f"film{self.number:03d}"

    @property
    def fresh(self) -> bool:
        """Whether nothing was measured of it yet."""
        return not self.recent

    def add(self, seen: Measurement) -> None:
        """Add a measurement."""
        self.failures = 0
        self.temperature = seen.temperature
        self.measured += 1
        self.age += seen.steps
        self.highest_q = max(self.highest_q, seen.q)
        self.recent = [*self.recent[1 - RECENT :], seen]


class EndReason(StrEnum):
    """Why a film ended."""

    GOOD = "good"
    GIVEN_UP = "given_up"
    DIVERGED = "diverged"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class FinishedFilm:
    """A film that ended; nothing happens to it any more."""

    film: Film
    why: EndReason


@dataclass(slots=True)
class _Bin:
    count: float = 0.0
    gain: float = 0.0
    amplitude: float = 0.0
    q: float = 0.0


@dataclass(slots=True)
class MaterialHistory:
    """What all films of the material have shown so far."""

    bins: list[_Bin] = field(default_factory=lambda: [_Bin() for _ in range(BINS)])
    largest_amplitude: float = 0.0
    good: int = 0
    given_up: int = 0
    steps: int = 0
    last_good: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
    last_given_up: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
    ended: list[FinishedFilm] = field(default_factory=list)
    rate: dict[int, float] = field(default_factory=dict)
    """Measured steps per second, by ranks."""

    def measured(self, seen: Measurement, q_before: float, low: float, high: float) -> None:
        """Update the running means at a segment's temperature, with a memory of about 30 segments."""
        b = self.bins[min(BINS - 1, max(0, int((seen.temperature - low) / (high - low) * BINS)))]
        b.count += 1.0
        weight = 1.0 / min(b.count, 30.0)
        b.gain += weight * ((seen.q - q_before) * 80.0 / seen.steps - b.gain)
        b.amplitude += weight * (seen.amplitude - b.amplitude)
        b.q += weight * (seen.q - b.q)
        self.largest_amplitude = max(self.largest_amplitude, seen.amplitude)
        self.steps += seen.steps

    def timed(self, ranks: int, steps: int, seconds: float) -> None:
        """Update the rate of steps by a segment's duration: exponential mean over about five."""
        rate = steps / max(seconds, 1e-9)
        known = self.rate.get(ranks)
        self.rate[ranks] = rate if known is None else known + 0.2 * (rate - known)

    def end(self, film: Film, why: EndReason) -> None:
        """Add a film that was finished or abandoned."""
        self.ended.append(FinishedFilm(film, why))
        good = why is EndReason.GOOD
        q, amplitude = (film.recent[-1].q, film.recent[-1].amplitude) if film.recent else (0.0, 0.0)
        summary = (1.0, film.temperature or 0.0, film.age / 4000.0, q if not good else amplitude)
        if good:
            self.good += 1
            self.last_good = summary
        else:
            self.given_up += 1
            self.last_given_up = summary
