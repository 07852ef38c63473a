"""Simulations and their segments: those that run, and those that have ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from rlctl.core.task import Resources, TaskId

RECENT = 3
"""Segments of a simulation that policies see."""


class SegmentStatus(StrEnum):
    """How a segment stands."""

    RUNNING = "running"  # or queued
    DONE = "done"
    INFEASIBLE = "infeasible"  # it blew up, as the program's options say
    FAILED = "failed"
    STOPPED = "stopped"


class SimulationEnd(StrEnum):
    """Why a simulation has ended."""

    FOUND = "found"  # it fulfils the condition that is looked for, or has reached the value
    GIVEN_UP = "given_up"
    BLEW_UP = "blew_up"  # its program failed
    LOST = "lost"  # the machine failed too often


@dataclass(slots=True)
class Segment:
    """One run of the program.

    Attributes:
        number: 0, 1, 2 ... within the campaign; names the folder of its files and its restart file.
        simulation: number of the simulation that it is a part of.
        index: its place among the segments of the simulation, from 0; a segment that is run again has the same.
        parent: number of the segment whose restart file it begins with; None: it begins the simulation.
        units: of the control values, from 0 at the lowest to 1 at the highest.
        values: control values by name.
        length: of the segment.
        need: its resources.
        uid: of its task.
        nodes: its share of the machine, in nodes.
        queued_s: when it was submitted, seconds since the campaign began.
        before: length of the simulation before it.
        started_s, ended_s: None: not yet.
        results: what the readers found.
        level: how good the results are: 0 or more is the goal; None: nothing is known.
        shown: results on the scale of those so far, from 0 to 1, in the order of their names.
        gain: by how much the level has risen over the parent's; None: not known.
        kind: of its failure, as the program's options name it.
        message: one line on its failure.
    """

    number: int
    simulation: int
    index: int
    parent: int | None
    units: tuple[float, ...]
    values: Mapping[str, float]
    length: int
    need: Resources
    uid: TaskId
    nodes: float
    queued_s: float
    before: int
    started_s: float | None = None
    ended_s: float | None = None
    status: SegmentStatus = SegmentStatus.RUNNING
    results: Mapping[str, Any] = field(default_factory=dict)
    level: float | None = None
    shown: tuple[float, ...] = ()
    gain: float | None = None
    kind: str = ""
    message: str = ""

    @property
    def seconds(self) -> float:
        """How long it ran; 0 unless it has begun and ended."""
        return 0.0 if self.started_s is None or self.ended_s is None else self.ended_s - self.started_s

    @property
    def node_seconds(self) -> float:
        """Its share of the machine times the time that it ran."""
        return self.nodes * self.seconds


@dataclass(slots=True)
class SegmentedSimulation:
    """A simulation that runs in segments.

    Attributes:
        number: 0, 1, 2 ... within the campaign.
        segments: that have ended with results, in their order; of a copy, beginning with those of its original.
        copied: how many of them are the original's.
        elapsed: length so far.
        node_seconds: that it has taken, without those of the original.
        failures: of the machine, since its last segment with results.
        best: greatest level so far; None: nothing is known.
        since_best: length since then.
        end: None: it has not ended.
    """

    number: int
    segments: list[Segment] = field(default_factory=list)
    copied: int = 0
    elapsed: int = 0
    node_seconds: float = 0.0
    failures: int = 0
    best: float | None = None
    since_best: int = 0
    end: SimulationEnd | None = None

    @property
    def fresh(self) -> bool:
        """Whether no segment of it has ended with results."""
        return not self.segments

    @property
    def last(self) -> Segment | None:
        """The last segment with results."""
        return self.segments[-1] if self.segments else None

    @property
    def own(self) -> bool:
        """Whether it is more than a copy."""
        return len(self.segments) > self.copied

    def add(self, segment: Segment, level: float) -> None:
        """A segment has ended with results."""
        self.segments.append(segment)
        self.elapsed += segment.length
        self.failures = 0
        if self.best is None or level > self.best:
            self.best, self.since_best = level, 0
        else:
            self.since_best += segment.length

    def copy_of(self, original: list[Segment]) -> None:
        """Begin where another simulation was after these segments."""
        self.segments, self.copied = list(original), len(original)
        self.elapsed = original[-1].before + original[-1].length
        levels = [segment.level for segment in original if segment.level is not None]
        self.best, self.since_best = max(levels), 0
