"""What a user can set about a search."""

from __future__ import annotations

import math
from typing import Any

from pydantic import Field, model_validator

from rlctl_envs.search.candidates import CandidatesOptions
from rlctl_envs.search.objective import ObjectiveOptions
from rlctl_envs.search.parameters import Parameter, SearchSection


class StageOptions(SearchSection):
    """A stage, or fidelity: one of several ways to evaluate a point.

    Attributes:
        name: for the placeholder ``{stage}``.
        program: one of ``programs``; null: the only one.
        values: further placeholders.
    """

    name: str
    program: str | None = None
    values: dict[str, Any] = Field(default_factory=dict)


CHANGEABLE = tuple(
    f"{program}.{key}"
    for program in ("program", "programs.*")
    for key in ("walltime_s", "resources", "environment", "application", "keep", "output_mb")
)
"""Options of programs that change no result."""


class UntilOptions(SearchSection):
    """When the search has reached its goal, or ends without.

    Attributes:
        value: the goal: a result that counts is at least as good as this.
        found: the goal: so many results fulfil the condition of ``objective.find``.
        no_improvement: it ends after so many results that count without a better one.
        evaluations: it ends after so many evaluations that count; those of one point count once.
        trials: it ends after so many evaluations of a search, whatever came of them, repeated ones included.
        node_seconds: it ends when so many node-seconds have been allocated.
        node_hours: likewise.
    """

    value: float | None = None
    found: int | None = Field(default=None, ge=1)
    no_improvement: int | None = Field(default=None, ge=1)
    evaluations: int | None = Field(default=None, ge=1)
    trials: int | None = Field(default=None, ge=1)
    node_seconds: float | None = Field(default=None, gt=0)
    node_hours: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _ends(self) -> UntilOptions:
        if not self.model_fields_set:
            raise ValueError(
                "say when the search ends: value, found, no_improvement, evaluations, trials, or node_hours"
            )
        if self.node_seconds is not None and self.node_hours is not None:
            raise ValueError("give node_seconds or node_hours")
        return self

    @property
    def budget(self) -> float:
        """Node-seconds; infinite: no end is set."""
        hours = math.inf if self.node_hours is None else 3600.0 * self.node_hours
        return hours if self.node_seconds is None else self.node_seconds

    def end_s(self, allocation_s: float | None, nodes: int, since_s: float = 0.0, spent: float = 0.0) -> float:
        """When the budget is used: with so many nodes from ``since_s`` on, until when ``spent`` node-seconds were."""
        return min(math.inf if allocation_s is None else allocation_s, since_s + (self.budget - spent) / nodes)


class SearchOptions(SearchSection):
    """A search: which evaluations lead to the goal with the fewest node-seconds?

    Attributes:
        parameters: by name, which is also the placeholder.
        constraints: expressions over parameters that have to be true.
        candidates: a table to choose from, in place of parameters.
        starts: points that are evaluated first.
        objective: what is looked for.
        stages: ways to evaluate a point, from cheap to expensive; empty: one.
        counts: stage whose results count; null: the last one.
        known: results from elsewhere that it begins with: a CSV file with columns named after parameters and results,
            or the folder of an earlier run. They cost nothing, and count for no budget.
        prior: a folder that ``rlctl learn`` has written: what earlier campaigns of this kind say of the objective, of
            durations and of failures. Rules with models begin with it, unless their parameter ``prior`` is false.
        until: when it ends.
        noisy: whether repeated evaluations of a point differ; otherwise none is run twice.
        repeats: evaluations of each point, with different values of ``{seed}``; their mean counts.
        start_late: whether an evaluation starts if its walltime reaches beyond the end of the allocation.
        allocation_s: length of the allocation; null: as long as ``until`` takes.
    """

    parameters: dict[str, Parameter] = Field(default_factory=dict)
    constraints: list[str] = Field(default_factory=list)
    candidates: CandidatesOptions | None = None
    starts: list[dict[str, Any]] = Field(default_factory=list)
    objective: ObjectiveOptions
    stages: list[StageOptions] = Field(default_factory=list)
    counts: str | None = None
    known: str | None = None
    prior: str | None = None
    until: UntilOptions
    noisy: bool = False
    repeats: int = Field(default=1, ge=1, le=100)
    start_late: bool = False
    allocation_s: float | None = Field(default=None, gt=0)

    @property
    def stage_names(self) -> list[str]:
        """Names of the stages, from cheap to expensive; that of a single one is empty."""
        return [stage.name for stage in self.stages] or [""]

    @property
    def counting_stage(self) -> int:
        """Number of the stage whose results count."""
        return len(self.stage_names) - 1 if self.counts is None else self.stage_names.index(self.counts)

    @property
    def usual_evaluations(self) -> int:
        """Evaluations that a search takes about."""
        return self.until.evaluations or self.until.trials or 50


def usual_s(walltime_s: float | None) -> float:
    """Seconds that an evaluation takes about."""
    return 60.0 if walltime_s is None else 0.2 * walltime_s
