"""What a user can set about simulations in segments."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from rlctl.programs.options import NAME
from rlctl.programs.program import BUILT_IN
from rlctl_envs.search.objective import ObjectiveOptions
from rlctl_envs.search.options import UntilOptions
from rlctl_envs.search.parameters import SearchSection

PLACEHOLDERS = frozenset({"simulation", "segment"})
"""Placeholders that every program has here, besides those of all programs."""

RESERVED = BUILT_IN | PLACEHOLDERS | {"next"}


class ControlOptions(SearchSection):
    """A quantity that may change from segment to segment; ``[low, high]`` is short for these two keys.

    Attributes:
        low: smallest value.
        high: largest value.
        bins: number of values, or of changes, that networks choose among where ``actions`` is ``discrete``.
        change: largest change from one segment to the next; null: any. The first segment of a simulation may have any
            value.
    """

    low: float
    high: float
    bins: int = Field(default=11, ge=2, le=101)
    change: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _possible(self) -> ControlOptions:
        if not self.low < self.high:
            raise ValueError(f"low is {self.low:g}, high {self.high:g}: low should be less")
        if self.change is not None and self.bins % 2 == 0:
            raise ValueError(f"bins is {self.bins}: with change it should be odd, so that no change is one of them")
        return self

    def value(self, unit: float) -> float:
        """The value at ``unit`` in [0, 1]."""
        return self.low + min(max(unit, 0.0), 1.0) * (self.high - self.low)

    def unit(self, value: float) -> float:
        """Where a value lies in [0, 1]."""
        return (value - self.low) / (self.high - self.low)


def _range(value: Any) -> Any:
    return dict(zip(("low", "high"), value, strict=True)) if isinstance(value, list) and len(value) == 2 else value


Control = Annotated[ControlOptions, BeforeValidator(_range)]
Lengths = Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1, max_length=16)]


class SegmentsOptions(SearchSection):
    """Simulations in segments: which control values lead to the goal with the fewest node-seconds?

    Attributes:
        controls: by name, which is also the placeholder.
        lengths: name of the placeholder for the length of a segment, and the lengths to choose from; empty: all
            segments have the same length.
        objective: what is looked for; one objective at most.
        until: when the campaign ends; ``found`` counts simulations, ``evaluations`` and ``no_improvement`` segments.
        simulations: that run side by side; null: as many as the machine holds.
        restart_best: whether a simulation may be given up for a copy of the best one so far. Results that begin in
            the same copy are not independent.
        retries: how often in a row a segment is run again from the last restart file, after a failure of the machine.
        actions: what networks choose: ``discrete``: bins; ``box``: numbers, for SAC and TD3.
        allocation_s: length of the allocation; null: as long as ``until`` takes.
    """

    controls: dict[str, Control] = Field(min_length=1, max_length=8)
    lengths: dict[str, Lengths] = Field(default_factory=dict, max_length=1)
    objective: ObjectiveOptions
    until: UntilOptions
    simulations: int | None = Field(default=None, ge=1, le=1024)
    restart_best: bool = False
    retries: int = Field(default=3, ge=0, le=100)
    actions: Literal["discrete", "box"] = "discrete"
    allocation_s: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _possible(self) -> SegmentsOptions:
        for kind, names in (("a control", self.controls), ("a length", self.lengths)):
            for name in names:
                if name in RESERVED or not NAME.fullmatch(name):
                    why = "rlctl uses it" if name in RESERVED else "use letters, digits and _"
                    raise ValueError(f"{name!r} cannot name {kind}: {why}")
        if both := set(self.controls) & set(self.lengths):
            raise ValueError(f"{min(both)!r} names a control and a length")
        for name, lengths in self.lengths.items():
            if len(set(lengths)) < len(lengths):
                raise ValueError(f"lengths of {name}: give different numbers, got {lengths}")
        if len(self.objective.minimize) + len(self.objective.maximize) > 1:
            raise ValueError("objective: give one to minimize or maximize, or a condition to find")
        return self

    @property
    def length_name(self) -> str:
        """Placeholder of the length; empty: there is none."""
        return next(iter(self.lengths), "")

    @property
    def length_choices(self) -> list[int]:
        """Lengths to choose from, ascending."""
        return sorted(next(iter(self.lengths.values()), [1]))

    @property
    def needed(self) -> int:
        """Successes that reach the goal."""
        return self.until.found or 1
