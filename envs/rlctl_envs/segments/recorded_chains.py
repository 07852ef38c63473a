"""A twin from recorded segments: what comes next is drawn from what came next in segments like it.

A nearest-neighbour bootstrap (Lall and Sharma 1996, doi:10.1029/95WR02966): it keeps the waiting and the jumps of
nucleation, which models with normal errors would smooth away. Instances weigh the records differently (Rubin 1981, the
Bayesian bootstrap), so that a policy is trained for what the records leave open.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlctl.core.errors import ConfigError, one_line
from rlctl.core.simulation import Launch, Simulated
from rlctl.core.task import Failure
from rlctl_envs.segments.options import SegmentsOptions

Floats = NDArray[np.float64]

FEWEST = 20
"""Records that a twin is made of at least."""

_NEAREST = 6
_WIDTH_RESULT, _WIDTH_CONTROL, _WIDTH_LENGTH = 0.3, 0.1, 0.5
"""Distances at which records are alike: in standard deviations, shares of the range, and doublings."""

_OF_MACHINE = ("signal", "timeout", "lost", "launch")


@dataclass(frozen=True, slots=True)
class RecordedSegments:
    """Segments that have ended, as arrays.

    Attributes:
        inputs: results before, control values and length, in units of the widths, [segments, inputs]; zeros for results
            before a first segment.
        fresh: which are first segments, [segments].
        changes: of the results, per length, or for first segments the results, [segments, results].
        good: which ended with results, [segments].
        seconds: per length, [segments].
        cores: that they ran on, [segments].
        low, high: of the results, [results].
        spread: standard deviation of the results, [results].
        failing: share of segments that failed for reasons of the machine.
    """

    inputs: Floats
    fresh: NDArray[np.bool_]
    changes: Floats
    good: NDArray[np.bool_]
    seconds: Floats
    cores: NDArray[np.int64]
    low: Floats
    high: Floats
    spread: Floats
    failing: float

    @classmethod
    def read(cls, path: Path, options: SegmentsOptions, results: Sequence[str]) -> RecordedSegments:
        """Those of a table as ``evaluations.csv`` of a run is.

        Raises:
            ConfigError: the file cannot be read, lacks a column, or has too few segments.
        """
        try:
            with open(path, newline="") as file:
                rows = list(csv.DictReader(file))
        except (OSError, UnicodeDecodeError) as error:
            why = "there is no such file" if isinstance(error, FileNotFoundError) else one_line(str(error))
            raise ConfigError(f"{path}: {why}") from None
        needed = ["evaluation", "from", "status", "started_s", "ended_s", *options.controls, *results]
        needed += [options.length_name] if options.length_name else []
        missing = [name for name in needed if not rows or name not in rows[0]]
        if missing:
            raise ConfigError(f"{path}: there is no column {missing[0]}: give the evaluations.csv of a run")
        found = dict[str, Floats]()
        taken, failed = list[tuple[Any, ...]](), 0
        for line, row in enumerate(rows, 2):
            if row["status"] not in ("done", "infeasible", "failed"):
                continue
            if row.get("kind") in _OF_MACHINE:
                failed += 1
                continue
            try:
                taken.append(_transition(row, found, options, results))
            except (KeyError, ValueError, TypeError):
                raise ConfigError(f"{path}:{line}: a number is missing, or the segment that it began with") from None
        if len(taken) < FEWEST:
            raise ConfigError(f"{path} has {len(taken)} segments, a twin needs {FEWEST} at least")
        outcomes = np.array(list(found.values()))
        spread = np.maximum(outcomes.std(0), 1e-12)
        before, units, lengths, after, seconds, cores = zip(*taken, strict=True)
        fresh = np.array([b is None for b in before])
        good = np.array([a is not None for a in after])
        nothing = np.zeros(len(results))
        length = np.array(lengths, np.float64)
        inputs = [_inputs(b, u, n, spread) for b, u, n in zip(before, units, lengths, strict=True)]
        rise = [nothing if a is None else a - (nothing if b is None else b) for a, b in zip(after, before, strict=True)]
        changes = np.array(rise) / np.where(fresh, 1.0, length)[:, None]
        return cls(
            np.array(inputs), fresh, changes, good, np.array(seconds) / length, np.array(cores),
            outcomes.min(0), outcomes.max(0), spread, failed / (failed + len(taken)),
        )  # fmt: skip


class RecordedTwin:
    """The task model of a campaign of segments; see ``rlctl.core.simulation.TaskModel``.

    Args:
        records: what segments have done.
        options: of the campaign.
        results: names of results.
    """

    def __init__(self, records: RecordedSegments, options: SegmentsOptions, results: Sequence[str], seed: int) -> None:
        self._records, self._controls, self._results = records, dict(options.controls), list(results)
        self._rng = np.random.default_rng([seed, 9])
        self._weights = np.random.default_rng([seed, 10]).exponential(size=len(records.fresh))
        self._files: dict[int, Floats] = {}

    def outcomes(self, launches: Sequence[Launch]) -> list[Simulated]:
        """Durations and outputs."""
        return [self._outcome(launch) for launch in launches]

    def _outcome(self, launch: Launch) -> Simulated:
        asked, rng, records = launch.spec.parameters, self._rng, self._records
        values, length = asked["controls"], asked["length"]
        units = [control.unit(values[name]) for name, control in self._controls.items()]
        seconds = length * self._rate(launch.spec.resources.cores)
        if rng.random() < records.failing:
            return Simulated(seconds * rng.random(), failure=Failure.SIGNAL, message="killed by SIGKILL")
        before = None if asked["from"] is None else self._files[asked["from"]]
        chosen = self._alike(before, units, length)
        if not records.good[chosen]:
            return Simulated(seconds * rng.random(), failure=Failure.EXIT, message="exit code 1")
        change = records.changes[chosen]
        after = change if before is None else before + length * change
        after = np.clip(after, records.low, records.high)
        self._files[asked["evaluation"]] = after
        return Simulated(seconds, {"outputs": dict(zip(self._results, after.tolist(), strict=True))})

    def _alike(self, before: Floats | None, units: Sequence[float], length: int) -> int:
        """Number of a record, drawn from those that are most alike."""
        records = self._records
        place = _inputs(before, units, length, records.spread)
        distance = ((records.inputs - place) ** 2).sum(1)
        distance[records.fresh != (before is None)] = math.inf
        near = np.argpartition(distance, min(_NEAREST, len(distance) - 1))[:_NEAREST]
        near = near[np.isfinite(distance[near])]
        if not len(near):  # no simulation has got beyond its first segment, or each was recorded from later on
            near = np.arange(len(distance))
            distance[:] = 0.0
        chances = self._weights[near] * np.exp(-0.5 * (distance[near] - distance[near].min())) + 1e-12
        return int(near[np.searchsorted(np.cumsum(chances), self._rng.random() * chances.sum())])

    def _rate(self, cores: int) -> float:
        """Seconds per length on so many cores, or as many as are recorded next to it."""
        records = self._records
        nearest = records.cores[np.argmin(np.abs(records.cores - cores))]
        rates = records.seconds[records.cores == nearest]
        return float(rates[self._rng.integers(len(rates))])


def _transition(
    row: Mapping[str, str], found: dict[str, Floats], options: SegmentsOptions, results: Sequence[str]
) -> tuple[Any, ...]:
    """Results before, control values, length, results, seconds and cores of a row; notes its results in ``found``."""
    before = found[row["from"]] if row["from"] else None
    units = [control.unit(float(row[name])) for name, control in options.controls.items()]
    length = int(float(row[options.length_name])) if options.length_name else 1
    after = np.array([float(row[name]) for name in results]) if row["status"] == "done" else None
    if after is not None:
        found[row["evaluation"]] = after
    cores = int(float(row.get("ranks") or 1)) * int(float(row.get("cores") or 1))
    return before, units, length, after, float(row["ended_s"]) - float(row["started_s"]), cores


def _inputs(before: Floats | None, units: Sequence[float], length: int, spread: Floats) -> Floats:
    """See ``RecordedSegments.inputs``."""
    seen = np.zeros(len(spread)) if before is None else before / (_WIDTH_RESULT * spread)
    return np.array([*seen, *(unit / _WIDTH_CONTROL for unit in units), math.log2(length) / _WIDTH_LENGTH])
