"""What rules for simulations in segments share: when a simulation is given up, and on what its segments run.

They answer with a value for each control, the length by its name, ``ranks``, ``cores`` and ``gpus``, or with ``next``
alone, and read the field ``state``, of which ``SegmentsView`` says what they use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

from rlctl.core.campaign import Action, Decision

Ranges = Mapping[str, tuple[Any, ...]]

LATE = 0.25
"""Progress from which on a simulation is given up by how long it has got no further."""


class SegmentsView(Protocol):
    """The state of a campaign of segments, as far as these rules read it."""

    options: Any
    names: Sequence[str]
    controls: Sequence[Any]
    results: Sequence[str]
    lengths: Sequence[int]
    middle: int
    resources: Sequence[Any]
    possible: Sequence[int]
    shares: Sequence[float]
    memory: Any
    subject: Any
    best: Sequence[Any]

    def progress(self, simulation: Any) -> float:
        """How far a simulation has come."""

    def rate(self, choice: int) -> float | None:
        """Seconds per length on these resources."""

    def others(self, simulation: Any) -> Sequence[Any]:
        """The other simulations."""


class SegmentRule:
    """A rule without memory of its own: what it knows is in the state.

    Lengths are counted in segments of the middle length that can be chosen.

    Args:
        give_up: length after which a simulation is given up that has not reached the goal.
        stuck: length without progress after which it is given up, once it has come a quarter of the way.
        segment: which length segments have, from 0, the shortest, to 1, the longest.
        wide: if one success is needed, the simulation that leads and has come so far gets the fastest resources; above
            1: never.
    """

    name = "rule"
    SPACE: ClassVar[Ranges] = {
        "give_up": (2.0, 80.0, "log"),
        "stuck": (1.0, 40.0, "log"),
        "segment": (0.0, 1.0),
        "wide": (0.1, 1.2),
    }

    def __init__(self, give_up: float = 20.0, stuck: float = 8.0, segment: float = 0.5, wide: float = 1.2) -> None:
        self.give_up, self.stuck, self.segment, self.wide = give_up, stuck, segment, wide

    def units(self, state: SegmentsView, simulation: Any) -> Sequence[float]:
        """Control values of the next segment, from 0 at the lowest to 1 at the highest."""
        raise TypeError(f"{type(self).__name__} does not say which values")

    def ends(self, state: SegmentsView, simulation: Any) -> str | None:
        """``start_anew`` or ``restart_best`` for a simulation that is given up; None: it goes on."""
        if simulation.elapsed >= self.give_up * state.middle:
            return "start_anew"
        late = state.progress(simulation) >= LATE
        return "start_anew" if late and simulation.since_best >= self.stuck * state.middle else None

    def act(self, decision: Decision) -> Action:
        """See ``rlctl.core.policy.Policy``."""
        state: SegmentsView = decision.fields["state"]
        simulation = state.subject
        if simulation.own and (chosen := self.ends(state, simulation)) is not None:
            return {"next": chosen}
        need = state.resources[self._choice(state, simulation)]
        answer: dict[str, Any] = {
            name: control.value(unit)
            for name, control, unit in zip(state.names, state.controls, self.units(state, simulation), strict=True)
        }
        if len(state.lengths) > 1:
            answer[state.options.length_name] = state.lengths[round(self.segment * (len(state.lengths) - 1))]
        return answer | {"ranks": need.ranks, "cores": need.cores_per_rank, "gpus": need.gpus_per_rank}

    def reset(self, seed: int) -> None:
        """Nothing to forget."""

    def state(self) -> Mapping[str, Any]:
        """Nothing to save."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Nothing to restore."""

    def _choice(self, state: SegmentsView, simulation: Any) -> int:
        """Those that cost the least per length, once each has been measured."""
        if len(state.possible) == 1:
            return state.possible[0]
        rates = dict[int, float]()
        for i in state.possible:
            rate = state.rate(i)
            if rate is None:
                return i
            rates[i] = rate
        if state.options.needed - state.memory.found == 1:
            progress = state.progress(simulation)
            ahead = max((state.progress(other) for other in state.others(simulation)), default=0.0)
            if progress >= max(self.wide, ahead):
                return min(rates, key=lambda i: rates[i])
        return min(rates, key=lambda i: rates[i] * state.shares[i])
