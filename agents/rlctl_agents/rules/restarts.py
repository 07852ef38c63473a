"""Rules that give simulations in segments up, with what former ones have shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from rlctl_agents.rules.segment_rule import LATE, Ranges, SegmentRule, SegmentsView

GOLDEN = (0.6180339887498949, 0.7548776662466927, 0.5698402909980532, 0.8191725133961645)
"""Steps of sequences that fill the unit interval evenly."""

_SHRINKS = 0.7


class RestartBest(SegmentRule):
    """Holds its values, and has what falls behind replaced by a copy of the best simulation so far.

    Where the campaign allows no copies, it starts anew.

    Args:
        hold: value of the controls, from 0 to 1.
        behind: how much of the way a simulation may be behind the best one.
        after: length before which it is not replaced, in segments of middle length.
    """

    name = "restart_best"
    SPACE: ClassVar[Ranges] = {
        **SegmentRule.SPACE,
        "hold": (0.0, 1.0),
        "behind": (0.02, 1.0, "log"),
        "after": (1.0, 20.0, "log"),
    }

    def __init__(self, hold: float = 0.5, behind: float = 0.3, after: float = 4.0, **shared: float) -> None:
        super().__init__(**shared)
        self.hold, self.behind, self.after = hold, behind, after

    def units(self, state: SegmentsView, simulation: Any) -> Sequence[float]:
        """The one value."""
        return [self.hold] * len(state.controls)

    def ends(self, state: SegmentsView, simulation: Any) -> str | None:
        """As the class says, once it has had its time."""
        if not state.options.restart_best or not state.best or state.best[-1] is simulation.last:
            return super().ends(state, simulation)
        last = simulation.segments[simulation.copied - 1] if simulation.copied else None
        own = simulation.elapsed - (last.before + last.length if last is not None else 0)
        best = state.memory.scale.progress(state.best[-1].level)
        if own >= self.after * state.middle and state.progress(simulation) < best - self.behind:
            return "restart_best"
        return super().ends(state, simulation)


class RenewalGiveUp(SegmentRule):
    """Gives a simulation up when going on is dearer than beginning anew, and takes over the values that have helped.

    Early in a simulation each new one tries other control values, until one has reached the goal; then values are near
    those of the successes, the nearer the more there are. Late, the values are those at which simulations have gained
    most per length. Without progress, a simulation is given up after ``patience`` times the length that a success has
    taken on average, where ``prior`` successes of the length ``give_up`` are counted beforehand (renewal-reward; Ross
    1996, section 3.6).

    Args:
        patience: see there.
        prior: see there.
        width: how far from those of former successes values are tried, at first.
        curious: share of the greatest gain that values are taken to have which were not tried late.
    """

    name = "renewal_give_up"
    SPACE: ClassVar[Ranges] = {
        **SegmentRule.SPACE,
        "patience": (0.1, 3.0, "log"),
        "prior": (0.1, 5.0, "log"),
        "width": (0.0, 0.5),
        "curious": (0.0, 1.5),
    }

    def __init__(
        self,
        patience: float = 0.7,
        prior: float = 0.5,
        width: float = 0.15,
        curious: float = 0.3,
        give_up: float = 10.0,
        stuck: float = 3.0,
        **shared: float,
    ) -> None:
        super().__init__(give_up=give_up, stuck=stuck, **shared)
        self.patience, self.prior, self.width, self.curious = patience, prior, width, curious

    def ends(self, state: SegmentsView, simulation: Any) -> str | None:
        """As the class says."""
        lengths = state.memory.lengths
        typical = (sum(lengths) + self.prior * self.give_up * state.middle) / (len(lengths) + self.prior)
        late = state.progress(simulation) >= LATE
        limit = self.stuck * state.middle if late else self.patience * typical
        return "start_anew" if simulation.since_best >= limit or self._hopeless(simulation, limit, late) else None

    def units(self, state: SegmentsView, simulation: Any) -> Sequence[float]:
        """As the class says."""
        count = len(state.controls)
        if state.progress(simulation) >= LATE:
            return [self._late(state, simulation, i) for i in range(count)]
        known = [means[0] for means in state.memory.found_units if means[0] is not None]
        places = [(0.5 + simulation.number * GOLDEN[i % len(GOLDEN)]) % 1.0 for i in range(count)]
        if not known:
            return places
        width = self.width * _SHRINKS ** len(known)
        means = [sum(values[i] for values in known) / len(known) for i in range(count)]
        return [
            min(max(mean + width * (2.0 * place - 1.0), 0.0), 1.0) for mean, place in zip(means, places, strict=True)
        ]

    def _hopeless(self, simulation: Any, limit: float, late: bool) -> bool:
        """Whether small fluctuations alone have kept a simulation alive."""
        return not late and simulation.elapsed >= 2.0 * limit

    def _late(self, state: SegmentsView, simulation: Any, control: int) -> float:
        """Middle of the share of the range in which most was gained, of those that are not far from the last value."""
        row = state.memory.bins[-1][control]
        span = state.memory.scale.span
        last: float = simulation.last.units[control]
        here = min(int(last * len(row)), len(row) - 1)
        rates = [cell.rate(span) if cell.length > 0.0 else None for cell in row]
        greatest = max((rate for rate in rates if rate is not None), default=0.0)
        if greatest <= 0.0 and rates[here] is None:
            return last
        guess = max(self.curious * greatest, 0.0)
        scores = []
        for i, rate in enumerate(rates):
            value = guess * 0.8 ** abs(i - here) if rate is None else rate
            scores.append((value, -abs(i - here)))
        best = max(range(len(row)), key=lambda i: scores[i])
        return last if best == here else (best + 0.5) / len(row)
