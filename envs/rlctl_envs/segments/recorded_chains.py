"""Recorded segments: what comes next is drawn from what came next in segments like it.

A nearest-neighbour bootstrap (Lall and Sharma 1996, doi:10.1029/95WR02966): it keeps the waiting and the jumps of
nucleation, which models with normal errors would smooth away.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_NEAREST = 10
_WIDTH_RESULT, _WIDTH_CONTROL, _WIDTH_LENGTH = 0.6, 0.2, 1.0
"""Distances at which records are alike: in standard deviations, shares of the range, and doublings."""


@dataclass(frozen=True)
class RecordedSegments:
    """Segments that have ended, as arrays.

    Attributes:
        controls: ranges of the control values by name.
        length: name of the length; empty: there is none.
        results: their names.
        failing: share of segments that failed for reasons of the machine, and are not among the others.
        before: results before, [segments, results]; NaN before a first segment.
        values: control values, [segments, controls].
        lengths: [segments].
        after: results, [segments, results]; NaN: it failed.
        seconds: durations, [segments]; NaN: unknown.
        cores: of all ranks together, [segments].
        first: number of the first segment of its simulation, [segments]; copies belong to their originals.
    """

    kind: ClassVar[str] = "segments"

    controls: Mapping[str, tuple[float, float]]
    length: str
    results: Sequence[str]
    failing: float
    before: Floats
    values: Floats
    lengths: Floats
    after: Floats
    seconds: Floats
    cores: Floats
    first: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.lengths)

    def some(self, rows: NDArray[np.bool_]) -> RecordedSegments:
        """The chosen ones."""
        return self.restored(self.description(), {name: values[rows] for name, values in self.arrays().items()})

    def description(self) -> dict[str, Any]:
        """Names, ranges and the share of failures of the machine."""
        ranges = {name: list(ends) for name, ends in self.controls.items()}
        return {"controls": ranges, "length": self.length, "results": list(self.results), "failing": self.failing}

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All that ``restored`` needs besides ``description``."""
        named = ("before", "values", "lengths", "after", "seconds", "cores", "first")
        of = (self.before, self.values, self.lengths, self.after, self.seconds, self.cores, self.first)
        return dict(zip(named, of, strict=True))

    @classmethod
    def restored(cls, description: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> RecordedSegments:
        """The inverse of ``description`` and ``arrays``.

        Raises:
            KeyError: something is missing.
            TypeError: there is too much.
        """
        controls = {name: (float(low), float(high)) for name, (low, high) in description["controls"].items()}
        return cls(controls, description["length"], description["results"], float(description["failing"]), **arrays)

    @cached_property
    def fresh(self) -> NDArray[np.bool_]:
        """Which are first segments, [segments]."""
        return np.isnan(self.before[:, 0])

    @cached_property
    def good(self) -> NDArray[np.bool_]:
        """Which ended with results, [segments]."""
        return ~np.isnan(self.after[:, 0])

    @cached_property
    def extremes(self) -> tuple[Floats, Floats]:
        """Least and greatest results, [results] each."""
        return self.after[self.good].min(0), self.after[self.good].max(0)

    @cached_property
    def changes(self) -> Floats:
        """Of the results, per length; for first segments the results, [segments, results]; NaN: it failed."""
        risen = (self.after - np.nan_to_num(self.before)) / self.lengths[:, None]
        changes: Floats = np.where(self.fresh[:, None], self.after, risen)
        return changes

    @cached_property
    def places(self) -> Floats:
        """Where segments lie, [segments, inputs]."""
        return np.array([self._place(*of) for of in zip(self.before, self.values, self.lengths, strict=True)])

    @cached_property
    def _spread(self) -> Floats:
        spread: Floats = np.maximum(self.after[self.good].std(0), 1e-12)
        return spread

    def alike(
        self, before: Floats, values: Floats | Sequence[float], length: float
    ) -> tuple[NDArray[np.int64], Floats]:
        """Numbers of the segments that are most like one, and how much, [n] each.

        Args:
            before: results before it, [results]; NaN: it is a first segment.
            values: its control values, [controls].
        """
        distance = ((self.places - self._place(before, values, length)) ** 2).sum(1)
        distance[self.fresh != bool(np.isnan(before[0]))] = math.inf
        near = np.argpartition(distance, min(_NEAREST, len(distance) - 1))[:_NEAREST]
        near = near[np.isfinite(distance[near])]
        if not len(near):  # no simulation has got beyond its first segment, or each was recorded from later on
            return np.arange(len(distance)), np.ones(len(distance))
        return near, np.exp(-0.5 * (distance[near] - distance[near].min())) + 1e-12

    def after_like(self, numbers: NDArray[np.int64] | int, before: Floats, length: float) -> Floats:
        """Results after a segment that changes them as recorded ones did, [results] or [n, results]; NaN: it fails."""
        changes: Floats = self.changes[numbers]
        after = changes if np.isnan(before[0]) else before + length * changes
        return np.clip(after, *self.extremes)

    def durations(self, fresh: bool, length: float, cores: float) -> Floats:
        """Seconds that such a segment may take: those of the recorded ones that are next to it in length, scaled.

        Where nothing was recorded on so many cores, those on the nearest number; the first segments of simulations, in
        which programs prepare them, and later ones apart.
        """
        timed = np.isfinite(self.seconds)
        apart = np.where(timed, np.abs(self.cores - cores), math.inf)
        own = timed & (self.cores == self.cores[np.argmin(apart)])
        if (own & (self.fresh == fresh)).any():
            own &= self.fresh == fresh
        apart = np.where(own, np.abs(np.log(self.lengths / length)), math.inf)
        nearest = apart <= np.sort(apart[own])[:_NEAREST][-1] + 1e-9
        seconds: Floats = self.seconds[nearest] * (length / self.lengths[nearest])
        return seconds

    def _place(self, before: Floats, values: Floats | Sequence[float], length: float) -> Floats:
        seen = np.nan_to_num(before) / (_WIDTH_RESULT * self._spread)
        units = [(v - low) / (high - low) for v, (low, high) in zip(values, self.controls.values(), strict=True)]
        return np.array([*seen, *(unit / _WIDTH_CONTROL for unit in units), math.log2(length) / _WIDTH_LENGTH])
