"""What can be chosen for the next segment: by indices of heads, by numbers of a Box, and by name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from rlctl.core.campaign import NO_MASK, Action, ActionSpace, Mask, ResidualChoices
from rlctl_envs.segments.chains import SegmentedSimulation
from rlctl_envs.segments.segments_state import SegmentsState

GO_ON, START_ANEW, RESTART_BEST = "go_on", "start_anew", "restart_best"
NEXT = (GO_ON, START_ANEW, RESTART_BEST)
"""What may become of a simulation."""

GIVES_UP = 0.8
"""A number of the last axis of the Box from which the simulation is given up, or, below minus this, is copied."""

_AROUND = 0.5
"""Largest change of a rule's control value, in shares of its range, that a policy may choose which corrects it."""


@dataclass(frozen=True, slots=True)
class NextSegment:
    """An answer.

    Attributes:
        next: one of ``NEXT``; unless it is ``go_on``, the rest does not count.
        units: control values, from 0 to 1.
        length: of the segment.
        choice: number of its resources.
        masked: whether something was not allowed, and has become something else.
    """

    next: str
    units: tuple[float, ...]
    length: int
    choice: int
    masked: bool = False


class SegmentChoices:
    """Translates actions.

    Args:
        state: of the campaign.
        continuous: whether the actions of networks are numbers of a Box.
    """

    def __init__(self, state: SegmentsState, continuous: bool) -> None:
        self._state, self._continuous = state, continuous
        bins = [control.bins for control in state.controls]
        self.next = NEXT if state.options.restart_best else NEXT[:2]
        self.heads = (*bins, len(state.lengths), len(state.resources), len(self.next))
        self._any = [np.linspace(0.0, 1.0, count).tolist() for count in bins]
        self._changes = [
            None if control.change is None else np.linspace(-1.0, 1.0, control.bins).tolist()
            for control in state.controls
        ]
        self._most = [
            None if control.change is None else control.change / (control.high - control.low)
            for control in state.controls
        ]

    @property
    def space(self) -> ActionSpace:
        """Of the actions of networks."""
        if self._continuous:
            return gymnasium.spaces.Box(-1.0, 1.0, (len(self._any) + 3,), np.float32)
        return gymnasium.spaces.MultiDiscrete(np.array(self.heads))

    def mask(self, simulation: SegmentedSimulation) -> Mask:
        """Allowed choices: resources that fit on the machine; what was not measured is not given up."""
        if self._continuous:
            return NO_MASK
        allowed = np.ones(sum(self.heads), np.bool_)
        self._mark(allowed, simulation)
        return allowed

    def _mark(self, allowed: Mask, simulation: SegmentedSimulation) -> None:
        state = self._state
        ends = len(allowed) - len(self.next)
        if len(state.possible) < len(state.resources):
            for i in range(len(state.resources)):
                allowed[ends - len(state.resources) + i] = i in state.possible
        for i, name in enumerate(self.next):
            allowed[ends + i] = self.may(simulation, name)

    def may(self, simulation: SegmentedSimulation, name: str) -> bool:
        """Whether this can become of a simulation."""
        if name == GO_ON:
            return True
        if name not in self.next or not simulation.own:
            return False
        best = self._state.best
        return name == START_ANEW or bool(best and best[-1] is not simulation.last)

    def understood(self, simulation: SegmentedSimulation, action: Action) -> NextSegment | str:
        """What an action asks for; a text says why named quantities are not allowed."""
        if isinstance(action, Mapping):
            return self._of_names(simulation, action)
        return self._of_numbers(simulation, action) if self._continuous else self._of_indices(simulation, action)

    def default(self, simulation: SegmentedSimulation) -> NextSegment:
        """Go on as before, or begin in the middle."""
        last, state = simulation.last, self._state
        units = (0.5,) * len(state.controls) if last is None else last.units
        return NextSegment(GO_ON, units, state.middle, state.fewest, masked=True)

    def named(self, answer: NextSegment) -> dict[str, Any]:
        """Named quantities of an answer, without those of which there is one choice only."""
        if answer.next != GO_ON:
            return {"next": answer.next}
        state = self._state
        named: dict[str, Any] = {
            name: control.value(unit)
            for name, control, unit in zip(state.names, state.controls, answer.units, strict=True)
        }
        if len(state.lengths) > 1:
            named[state.options.length_name] = answer.length
        needs, need = state.resources, state.resources[answer.choice]
        if len({other.ranks for other in needs}) > 1:
            named["ranks"] = need.ranks
        if len({other.cores_per_rank for other in needs}) > 1:
            named["cores"] = need.cores_per_rank
        if len({other.gpus_per_rank for other in needs}) > 1:
            named["gpus"] = need.gpus_per_rank
        return named

    def nearest(self, simulation: SegmentedSimulation, named: Mapping[str, Any]) -> NDArray[Any] | None:
        """The choices, or the numbers of the Box, that come nearest to named quantities; None: they are not allowed."""
        answer = self._of_names(simulation, named)
        if isinstance(answer, str):
            return None
        state, last = self._state, simulation.last
        numbers: list[float] = []
        for i, unit in enumerate(answer.units):
            changes, most, offered = self._changes[i], self._most[i], self._any[i]
            wanted = 2.0 * unit - 1.0
            if changes is not None and most is not None and last is not None:
                unit, offered = (unit - last.units[i]) / most, changes
                wanted = unit
            numbers.append(wanted if self._continuous else int(np.argmin(np.abs(np.subtract(offered, unit)))))
        length = state.lengths.index(answer.length)
        if not self._continuous:
            return np.array([*numbers, length, answer.choice, self.next.index(answer.next)], np.int64)
        places = (length, len(state.lengths)), (state.possible.index(answer.choice), len(state.possible))
        turn = {GO_ON: 0.0, START_ANEW: 1.0, RESTART_BEST: -1.0}[answer.next]
        return np.array([*numbers, *((2.0 * at + 1.0) / count - 1.0 for at, count in places), turn], np.float32)

    def residual(self, simulation: SegmentedSimulation, base: Mapping[str, Any]) -> ResidualChoices:
        """Choices around a rule's answer: changes of its control values; the other heads turn, 0 being as it says."""
        proposal = self._of_names(simulation, base)
        rule = self.default(simulation) if isinstance(proposal, str) else proposal
        state, count = self._state, len(self._any)
        length, step = state.lengths.index(rule.length), self.next.index(rule.next)
        mask = np.ones(sum(self.heads), np.bool_)
        self._mark(mask, simulation)
        ends = len(mask) - len(self.next)
        first = ends - len(state.resources)
        mask[first:ends] = np.roll(mask[first:ends], -rule.choice)
        mask[ends:] = np.roll(mask[ends:], -step)

        def named(indices: Any) -> dict[str, Any]:
            numbers = [int(i) for i in indices]
            chosen = self.next[(step + numbers[-1]) % len(self.next)]
            if chosen != GO_ON:
                return {"next": chosen}
            units = tuple(
                min(max(unit + _AROUND * self._shift(i, number), 0.0), 1.0)
                for i, (unit, number) in enumerate(zip(rule.units, numbers[:count], strict=True))
            )
            return self.named(
                NextSegment(
                    GO_ON,
                    units,
                    state.lengths[(length + numbers[count]) % len(state.lengths)],
                    (rule.choice + numbers[count + 1]) % len(state.resources),
                )
            )

        return ResidualChoices((*(self.heads[i] // 2 for i in range(count)), 0, 0, 0), mask, named)

    def _shift(self, control: int, number: int) -> float:
        """Of a bin from the middle one, from about -1 to 1; none at the middle."""
        middle = self.heads[control] // 2
        return (number - middle) / max(middle, 1)

    def _limited(self, simulation: SegmentedSimulation, units: list[float]) -> tuple[float, ...]:
        """Within the ranges, and no farther from the last values than ``change`` allows."""
        last = simulation.last
        for i, most in enumerate(self._most):
            unit = min(max(units[i], 0.0), 1.0)
            if most is not None and last is not None:
                unit = min(max(unit, last.units[i] - most), last.units[i] + most)
            units[i] = min(max(unit, 0.0), 1.0)
        return tuple(units)

    def _of_indices(self, simulation: SegmentedSimulation, action: Any) -> NextSegment:
        indices = np.asarray(action).reshape(-1).tolist()
        state, count, last = self._state, len(self._any), simulation.last
        units = []
        for i in range(count):
            changes, most = self._changes[i], self._most[i]
            if changes is None or most is None or last is None:
                units.append(self._any[i][indices[i]])
            else:
                units.append(last.units[i] + most * changes[indices[i]])
        choice, chosen = indices[count + 1], self.next[indices[count + 2]]
        return self._allowed(simulation, units, state.lengths[indices[count]], choice, chosen)

    def _of_numbers(self, simulation: SegmentedSimulation, action: Any) -> NextSegment:
        numbers = np.clip(np.nan_to_num(np.asarray(action, np.float64).reshape(-1)), -1.0, 1.0).tolist()
        state, count, last = self._state, len(self._any), simulation.last
        units = []
        for i in range(count):
            most = self._most[i]
            units.append(0.5 + 0.5 * numbers[i] if most is None or last is None else last.units[i] + most * numbers[i])
        length = state.lengths[_place(numbers[count], len(state.lengths))]
        choice = state.possible[_place(numbers[count + 1], len(state.possible))]
        turn = numbers[count + 2]
        chosen = START_ANEW if turn > GIVES_UP else RESTART_BEST if turn < -GIVES_UP else GO_ON
        if not self.may(simulation, chosen):
            chosen = GO_ON
        return self._allowed(simulation, units, length, choice, chosen)

    def _allowed(
        self, simulation: SegmentedSimulation, units: list[float], length: int, choice: int, chosen: str
    ) -> NextSegment:
        masked = choice not in self._state.possible or not self.may(simulation, chosen)
        if choice not in self._state.possible:
            choice = self._state.fewest
        if not self.may(simulation, chosen):
            chosen = GO_ON
        return NextSegment(chosen, self._limited(simulation, units), length, choice, masked)

    def _of_names(self, simulation: SegmentedSimulation, named: Mapping[str, Any]) -> NextSegment | str:
        state = self._state
        chosen = named.get("next", GO_ON)
        if chosen not in NEXT:
            return f"next is {chosen!r}, it should be one of {', '.join(self.next)}"
        if not self.may(simulation, chosen):
            return f"{chosen} is not possible here"
        if chosen != GO_ON:
            rest = self.default(simulation)
            return NextSegment(chosen, rest.units, rest.length, rest.choice)
        units = []
        for name, control in zip(state.names, state.controls, strict=True):
            value = named.get(name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                return f"{name} is {value!r}, it should be a number"
            units.append(control.unit(value))
        length = named.get(state.options.length_name, state.middle)
        if length not in state.lengths:
            return f"{state.options.length_name} is {length!r}, it should be one of {state.lengths}"
        choice = next((i for i in state.possible if _meant(state.resources[i], named)), None)
        if choice is None:
            return "there are no such resources on this machine"
        return NextSegment(GO_ON, self._limited(simulation, units), length, choice)


def _place(number: float, count: int) -> int:
    """The place in a list of a number from -1 to 1."""
    return min(int(0.5 * (number + 1.0) * count), count - 1)


def _meant(need: Any, named: Mapping[str, Any]) -> bool:
    """Whether an answer asks for these resources, as far as it says so."""
    asked = (("ranks", need.ranks), ("cores", need.cores_per_rank), ("gpus", need.gpus_per_rank))
    return all(named.get(name, value) == value for name, value in asked)
