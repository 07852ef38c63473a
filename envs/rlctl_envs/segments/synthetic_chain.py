"""Synthetic simulations: how far segments of a program that is not there would come, and how long they would take.

A simulation waits for an event (nucleation, a first hit), then advances to the goal; both are fastest at hidden
control values, which are not the same. Beyond a third value what was gained is lost again. Some simulations are
trapped short of the goal, the more often the farther they are driven to one side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from rlctl.config.twin_section import SyntheticSection
from rlctl.core.task import Resources
from rlctl_envs.segments.options import SegmentsOptions

SEGMENTS = 40.0
"""Segments of middle length that a budget lasts for, about, for each success, and for finding out how to get there."""

INVENTED = frozenset({"seconds", "serial", "failing", "noise"})
"""Keys of ``twin.synthetic`` that simulations here depend on."""


@dataclass(frozen=True, slots=True)
class ChainState:
    """A simulation, as its restart file holds it.

    Attributes:
        done: how far it has come, about from 0 to 1.
        begun: whether the event has taken place.
        most: how far it can come; below 1, it is trapped.
    """

    done: float = 0.0
    begun: bool = False
    most: float = math.inf


class SyntheticChains:
    """The simulations of instance ``seed``.

    Attributes:
        waits: control values at which the event is most frequent, from 0 to 1.
        grows: likewise, at which simulations advance fastest.
        weights: of the controls; the first has 1.
        side: 1 where high values of the first control undo what was gained, -1 where low ones do.
        undone: distance from ``grows`` beyond which they do.
        rate: of the event, for a segment of middle length, at best.
        pace: advance in such a segment, at best.
        trapping: share of simulations that are trapped where the driving is strongest.
        width: distance from the best values at which rate and pace fall to 1 / e.
        failing: chance of a failure of the machine in a segment.
        blow_up: chance that a segment of middle length blows up at the end of the range that does not undo.
        blown: share of the first control's range that this end is.
        serial: share of the work that does not scale with cores.
        start_up: of a segment, as a share of one of middle length.
        unit_s: seconds of a segment of middle length on one core.
    """

    def __init__(
        self,
        options: SegmentsOptions,
        budget: float | None,
        usual_s: float,
        seed: int,
        ranges: SyntheticSection | None = None,
    ) -> None:
        rng = np.random.default_rng([seed, 6])
        count = len(options.controls)
        self.side = 1.0 if rng.random() < 0.5 else -1.0
        first = float(rng.uniform(0.05, 0.75))
        apart = float(rng.uniform(0.05, 0.25))
        places = [first, first + apart] if self.side > 0 else [1.0 - first, 1.0 - first - apart]
        others = rng.uniform(0.1, 0.9, (count - 1, 2))
        self.waits = [places[0], *others[:, 0].tolist()]
        self.grows = [places[1], *others[:, 1].tolist()]
        self.weights = [1.0, *(rng.uniform(0.0, 0.5, count - 1) * (rng.random(count - 1) < 0.6)).tolist()]
        self.undone = float(rng.uniform(0.08, 0.2))
        self.rate = math.exp(rng.uniform(math.log(0.08), math.log(0.5)))
        self.pace = math.exp(rng.uniform(math.log(0.12), math.log(0.5)))
        self.trapping = float(rng.uniform(0.2, 0.9))
        self.width = float(rng.uniform(0.1, 0.25))
        self.failing = float(rng.uniform(0.0, 0.03))
        self.blow_up = float(rng.uniform(0.05, 0.3)) if rng.random() < 0.5 else 0.0
        self.serial = float(rng.uniform(0.02, 0.5))
        self.start_up = float(np.exp(rng.uniform(math.log(0.02), math.log(0.4))))
        self.scatter = float(rng.uniform(0.02, 0.15))
        self.noise = float(rng.uniform(0.01, 0.04))
        scale = float(np.exp(rng.uniform(math.log(0.7), math.log(1.4))))
        if budget is None:
            self.unit_s = usual_s * scale
        else:
            self.unit_s = scale * budget / (SEGMENTS * (options.needed + 1))
        self.blown = 0.1
        if ranges is not None:
            self._within(ranges, np.random.default_rng([seed, 11]))

    def _within(self, ranges: SyntheticSection, rng: np.random.Generator) -> None:
        """Draw anew what the user has given ranges for."""
        given = ranges.model_fields_set
        if "serial" in given and ranges.serial is not None:
            self.serial = float(rng.uniform(*ranges.serial))
        if "seconds" in given and ranges.seconds is not None:
            on_one_core = math.exp(rng.uniform(*np.log(ranges.seconds)))
            self.unit_s = on_one_core / (self.start_up + 1.0)
        if "failing" in given:
            self.blown = float(rng.uniform(*ranges.failing))
        if "noise" in given:
            self.noise = float(rng.uniform(*ranges.noise))

    def advance(
        self, state: ChainState, units: Sequence[float], length: float, rng: np.random.Generator
    ) -> ChainState | None:
        """The state after a segment; None: it blows up.

        Args:
            units: control values.
            length: of the segment, in units of the middle one.
        """
        if (
            self.blow_up
            and self.side * (units[0] - 0.5) < self.blown - 0.5
            and rng.random() > (1.0 - self.blow_up) ** length
        ):
            return None
        left = length
        beyond = self.side * (units[0] - self.grows[0]) - self.undone
        if not state.begun:
            rate = self.rate * math.exp(-self._distance(units, self.waits))
            if beyond > 0.0:
                return state
            waited = rng.exponential() / max(rate, 1e-9)
            if waited >= length:
                return state
            left = length - waited
            driving = min(max(0.5 - 2.0 * self.side * (units[0] - self.waits[0]), 0.0), 1.0)
            trapped = rng.random() < self.trapping * driving
            state = ChainState(0.0, True, float(rng.uniform(0.3, 0.9)) if trapped else math.inf)
        if beyond > 0.0:
            done = state.done - 3.0 * self.pace * min(beyond / self.width, 1.0) * left
            return ChainState() if done <= 0.0 else replace(state, done=done)
        pace = self.pace * math.exp(-self._distance(units, self.grows))
        return replace(state, done=max(min(state.done + pace * left, state.most), min(state.done, state.most)))

    def seconds(self, length: float, need: Resources, rng: np.random.Generator) -> float:
        """Of a segment (Amdahl 1967)."""
        work = length * (self.serial + (1.0 - self.serial) / need.cores)
        return self.unit_s * (self.start_up + work) * math.exp(self.scatter * rng.standard_normal())

    def hidden(self) -> list[float]:
        """Quantities that policies do not know, each about from -1 to 1."""
        return [
            self.waits[0],
            self.grows[0],
            0.5 * self.side,
            self.undone * 4.0,
            math.log(self.rate) / 3.0,
            math.log(self.pace) / 3.0,
            self.trapping,
            self.width * 3.0,
            self.failing * 20.0,
            self.blow_up * 3.0,
            self.serial,
            math.log(self.start_up) / 4.0,
        ]

    def _distance(self, units: Sequence[float], best: Sequence[float]) -> float:
        """Squared, in units of the width."""
        total: float = sum(w * (u - b) ** 2 for w, u, b in zip(self.weights, units, best, strict=True))
        return total / self.width**2
