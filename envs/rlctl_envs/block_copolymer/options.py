"""What a user can set about the annealing campaign."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rlctl.core.errors import ConfigError
from rlctl.core.machine import Capacity

_NotNegative = Annotated[float, Field(ge=0.0, le=1e6)]
_Positive = Annotated[float, Field(gt=0.0, le=1e6)]


class AnnealingProgram(BaseModel):
    """The real program and how long it takes; ``calibrate`` measures these numbers.

    Attributes:
        grid: points of the program's grid along each side.
        start_up_s: seconds before a segment computes, by ranks.
        step_s: seconds per time step, by ranks.
        scatter: standard deviation of the logarithm of a segment's duration.
        straggler_probability: chance that a segment takes ten times as long.
        failure_probability: chance that a segment dies.
        walltime_s: seconds after which a segment is stopped.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    grid: int = Field(default=512, ge=32, le=512, multiple_of=2)
    start_up_s: dict[int, _NotNegative] = {1: 0.22, 2: 0.50}
    step_s: dict[int, _Positive] = {1: 0.0035, 2: 0.0020}
    scatter: float = Field(default=0.05, ge=0.0, le=1.0)
    straggler_probability: float = Field(default=0.002, ge=0.0, le=0.5)
    failure_probability: float = Field(default=0.002, ge=0.0, le=0.5)
    walltime_s: float = Field(default=120.0, gt=0.0, le=1e8)


class AnnealingOptions(BaseModel):
    """``campaign.options`` of block-copolymer annealing.

    Attributes:
        films: good films of the material that are wanted, K.
        chains: films in progress at once.
        allocation_s: end of the allocation, seconds.
        steps: choices of the length of a segment, in time steps.
        ranks: choices of the ranks of a segment.
        probes: segments at the beginning of a campaign that run on the most ranks in any case, so that the
            speed-up of ranks on this machine is known.
        program: see ``Program``.
        retries: how often a film's segment may fail in a row before the film is abandoned.
        q_good, amplitude_good: a good film has at least this order parameter and this true amplitude.
        clairvoyant: networks read the material's hidden parameters, on the twin, to show what is left to gain.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    films: int = Field(default=4, ge=1, le=64)
    chains: int = Field(default=2, ge=1, le=16)
    allocation_s: float = Field(default=100.0, gt=0.0, le=1e9)
    steps: tuple[Annotated[int, Field(ge=1, le=1_000_000)], ...] = Field(default=(80, 160, 320), max_length=64)
    ranks: tuple[Annotated[int, Field(ge=1, le=4096)], ...] = Field(default=(1, 2), max_length=64)
    probes: int = Field(default=0, ge=0, le=10_000)
    program: AnnealingProgram = AnnealingProgram()
    retries: int = Field(default=3, ge=1)
    q_good: float = Field(default=0.8, gt=0.0, lt=1.0)
    amplitude_good: float = Field(default=0.35, gt=0.0)
    clairvoyant: bool = Field(default=False, exclude_if=lambda shown: not shown)  # games keep the hash that they had

    @model_validator(mode="after")
    def _consistent(self) -> AnnealingOptions:
        for name in ("steps", "ranks"):
            values = getattr(self, name)
            if not values or list(values) != sorted(set(values)):
                problem = f"must be positive whole numbers in rising order, for example [1, 2], got {list(values)}"
                raise ConfigError(problem, (name,))
        missing = [r for r in self.ranks if r not in self.program.start_up_s or r not in self.program.step_s]
        if missing:
            problem = f"program.start_up_s and program.step_s lack times for {missing}: run calibrate, or drop them"
            raise ConfigError(problem, ("ranks",))
        shortest_s = min(self.segment_s(self.steps[0], ranks) for ranks in self.ranks)
        if self.allocation_s < shortest_s:
            raise ConfigError(
                f"{self.allocation_s:g} s are over before the shortest segment, of {self.steps[0]} steps, which takes "
                f"{shortest_s:g} s by program.start_up_s and program.step_s: raise it, or offer fewer steps",
                ("allocation_s",),
            )
        longest_s = max(self.segment_s(self.steps[-1], ranks) for ranks in self.ranks)
        if self.program.walltime_s < longest_s:
            raise ConfigError(
                f"{self.program.walltime_s:g} s stop a segment of {self.steps[-1]} steps, the longest of steps, which "
                f"takes {longest_s:g} s by program.start_up_s and program.step_s: raise it, or offer fewer steps",
                ("program", "walltime_s"),
            )
        return self

    def segment_s(self, steps: int, ranks: int | None = None) -> float:
        """Seconds that a segment is expected to take, on the fewest ranks if none are given."""
        ranks = self.ranks[0] if ranks is None else ranks
        return self.program.start_up_s[ranks] + steps * self.program.step_s[ranks]

    def capacity(self) -> Capacity:
        """The smallest machine that fits the campaign: a core for each chain."""
        return Capacity(nodes=1, cores=max(self.chains, *self.ranks))
