"""What former simulations have shown: at which control values they got on, and what a success has cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rlctl_envs.segments.chains import Segment, SegmentedSimulation, SimulationEnd

BINS = 8
"""Equal shares of a control's range, in which segments are counted."""

PHASES = (0.25,)
"""Progress at which a later phase of a simulation begins."""


@dataclass(slots=True)
class ControlBin:
    """Segments in a share of a control's range, in one phase of their simulations.

    Attributes:
        length: of all of them.
        gain: sum of what they have gained, in levels.
    """

    length: float = 0.0
    gain: float = 0.0

    def rate(self, span: float) -> float:
        """Gain per length, in units of ``span``."""
        return self.gain / (self.length * span) if self.length > 0.0 else 0.0


@dataclass(slots=True)
class LevelScale:
    """Translates levels, in the user's units, into progress: 0 where simulations begin, 1 at the goal.

    Attributes:
        low: least level after a first segment.
        high: greatest level so far.
        aims: whether level 0 is the goal; otherwise the best so far takes its place.
    """

    aims: bool
    low: float | None = None
    high: float = 0.0

    def note(self, level: float, first: bool) -> None:
        """A segment has ended with this level."""
        if self.low is None:
            self.low = self.high = level
        self.high = max(self.high, level)
        if first:
            self.low = min(self.low, level)

    @property
    def span(self) -> float:
        """Levels between the beginning and the goal."""
        if self.low is None:
            return 1.0
        top = 0.0 if self.aims else self.high
        return max(top - self.low, 1e-9 * max(abs(self.low), 1e-9))

    def progress(self, level: float | None) -> float:
        """From -1, far behind the beginning, to 1.5."""
        if level is None or self.low is None:
            return 0.0
        return min(max((level - self.low) / self.span, -1.0), 1.5)


@dataclass(slots=True)
class FormerSimulations:
    """What is known from all simulations so far.

    Attributes:
        scale: of levels.
        bins: for each phase, control and bin.
        ended: simulations by why they ended.
        node_seconds: of simulations that have ended.
        lengths: of those that reached the goal.
        found_units: for each of these and each phase, mean control values, weighed by length; None: it had no part.
    """

    controls: int
    scale: LevelScale
    bins: list[list[list[ControlBin]]] = field(default_factory=list)
    ended: dict[SimulationEnd, int] = field(default_factory=lambda: dict.fromkeys(SimulationEnd, 0))
    node_seconds: float = 0.0
    lengths: list[int] = field(default_factory=list)
    found_units: list[list[list[float] | None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.bins = [
            [[ControlBin() for _ in range(BINS)] for _ in range(self.controls)] for _ in range(len(PHASES) + 1)
        ]

    @property
    def found(self) -> int:
        """Simulations that reached the goal."""
        return self.ended[SimulationEnd.FOUND]

    def phase(self, level: float | None) -> int:
        """Number of the phase of a simulation that has come so far."""
        progress = self.scale.progress(level)
        return sum(progress >= begin for begin in PHASES)

    def measured(self, segment: Segment, before: float | None) -> None:
        """A segment has ended with results; ``before``: level before it."""
        if segment.gain is None:
            return
        for row, unit in zip(self.bins[self.phase(before)], segment.units, strict=True):
            cell = row[min(int(unit * BINS), BINS - 1)]
            cell.length += segment.length
            cell.gain += segment.gain

    def lost(self, segment: Segment, before: float | None) -> None:
        """A segment has blown up: what the simulation had gained is gone; ``before``: level before it."""
        for row, unit in zip(self.bins[self.phase(before)], segment.units, strict=True):
            cell = row[min(int(unit * BINS), BINS - 1)]
            cell.length += segment.length
            if before is not None and self.scale.low is not None:
                cell.gain -= max(before - self.scale.low, 0.0)

    def end(self, simulation: SegmentedSimulation, why: SimulationEnd) -> None:
        """A simulation has ended."""
        simulation.end = why
        self.ended[why] += 1
        self.node_seconds += simulation.node_seconds
        if why is SimulationEnd.FOUND:
            self.lengths.append(simulation.elapsed)
            self.found_units.append(self._means(simulation.segments))

    def _means(self, segments: Sequence[Segment]) -> list[list[float] | None]:
        """Mean control values in each phase."""
        sums = [[0.0] * self.controls for _ in self.bins]
        lengths = [0.0] * len(self.bins)
        before: float | None = None
        for segment in segments:
            phase = self.phase(before)
            lengths[phase] += segment.length
            for i, unit in enumerate(segment.units):
                sums[phase][i] += segment.length * unit
            before = segment.level
        return [[s / n for s in row] if n else None for row, n in zip(sums, lengths, strict=True)]
