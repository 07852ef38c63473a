"""The state of a campaign of segments, which rules read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rlctl.core.machine import Capacity
from rlctl.core.task import Resources, TaskId
from rlctl.executors.pool import NodePool
from rlctl_envs.segments.chain_memory import FormerSimulations, LevelScale
from rlctl_envs.segments.chains import Segment, SegmentedSimulation
from rlctl_envs.segments.options import SegmentsOptions


class SegmentsState:
    """All that is known; policies only read it.

    Attributes:
        options: of the campaign.
        resources: what a segment may occupy, in the order in which the program lists it.
        possible: numbers of those that fit on the machine.
        capacity: the machine.
        segments: all segments, in the order of their starts.
        running: segments that are queued or running, by their tasks.
        simulations: that have not ended, by number.
        memory: of former segments and simulations.
        subject: the simulation that the open decision is about.
        best: the segments up to the one with the greatest level that is not yet the goal's; empty: there is none.
        begun: simulations so far.
        measured: segments that have ended with results.
        infeasible: segments that blew up, as the program's options say.
        now_s, deadline_s: seconds since the campaign began.
        seed: of the campaign.
    """

    def __init__(
        self,
        options: SegmentsOptions,
        resources: Sequence[Resources],
        results: Sequence[str],
        capacity: Capacity,
        aims: bool,
        seed: int,
    ) -> None:
        self.seed = seed
        self.controls = list(options.controls.values())
        self.names = list(options.controls)
        self.lengths, self.results = options.length_choices, list(results)
        self.middle = self.lengths[len(self.lengths) // 2]
        self.extend(options, resources, capacity, math.inf)
        self.segments: list[Segment] = []
        self.running: dict[TaskId, Segment] = {}
        self.simulations: dict[int, SegmentedSimulation] = {}
        self.memory = FormerSimulations(len(self.controls), LevelScale(aims))
        self.subject: SegmentedSimulation | None = None
        self.best: list[Segment] = []
        self.now_s = 0.0
        self.begun = 0
        self.measured = self.infeasible = 0
        self._low, self._high = [math.inf] * len(self.results), [-math.inf] * len(self.results)
        self._seconds: dict[Resources, float] = {}
        self._lengths: dict[Resources, int] = {}

    def extend(
        self, options: SegmentsOptions, resources: Sequence[Resources], capacity: Capacity, deadline_s: float
    ) -> None:
        """Begin, or go on, with these options and choices of resources, on this machine."""
        self.options, self.resources, self.capacity, self.deadline_s = options, list(resources), capacity, deadline_s
        pool = NodePool(capacity)
        self.possible = [i for i, need in enumerate(self.resources) if pool.ever(need)]
        self.shares = [self._nodes(need) for need in self.resources]

    def __repr__(self) -> str:
        return f"<{len(self.segments)} segments of {self.begun} simulations, at {self.now_s:g} s>"

    @property
    def fewest(self) -> int:
        """Number of the resources that take the least of the machine."""
        return min(self.possible, key=lambda i: self.shares[i])

    @property
    def side_by_side(self) -> int:
        """Simulations that run side by side."""
        if self.options.simulations is not None:
            return self.options.simulations
        return max(1, int(self.capacity.nodes / max(self.shares[self.fewest], 1e-9) + 1e-9))

    def progress(self, simulation: SegmentedSimulation) -> float:
        """How far a simulation has come: 0 at the beginning, 1 at the goal."""
        last = simulation.last
        return 0.0 if last is None else self.memory.scale.progress(last.level)

    def shown(self, results: Mapping[str, float]) -> tuple[float, ...]:
        """Results on the scale of those so far, from 0 to 1; 0.5 for those that are no numbers."""
        places = []
        for i, name in enumerate(self.results):
            value = results.get(name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                places.append(0.5)
                continue
            low = self._low[i] = min(self._low[i], value)
            high = self._high[i] = max(self._high[i], value)
            places.append((value - low) / (high - low) if high > low else 0.5)
        return tuple(places)

    def timed(self, segment: Segment) -> None:
        """A segment has ended with results, after a time that says how fast its resources are."""
        need = segment.need
        self._seconds[need] = self._seconds.get(need, 0.0) + segment.seconds
        self._lengths[need] = self._lengths.get(need, 0) + segment.length
        self.measured += 1

    def rate(self, choice: int) -> float | None:
        """Seconds per length on these resources, start-up included; None: not known."""
        need = self.resources[choice]
        return self._seconds[need] / self._lengths[need] if need in self._lengths else None

    def free_share(self) -> float:
        """Share of the machine that no segment occupies, or will once it has started."""
        return 1.0 - sum(segment.nodes for segment in self.running.values()) / self.capacity.nodes

    def others(self, simulation: SegmentedSimulation) -> list[SegmentedSimulation]:
        """The other simulations that have not ended."""
        return [other for other in self.simulations.values() if other is not simulation]

    def _nodes(self, need: Resources) -> float:
        """Share of the machine that resources take, in nodes."""
        nodes = self.capacity.nodes
        cores = need.cores * nodes / max(1, self.capacity.total_cores)
        gpus = sum(kind.nodes * kind.gpus for kind in self.capacity.kinds)
        return max(cores, need.gpus * nodes / gpus if gpus else 0.0)
