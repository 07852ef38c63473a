"""``Findings``: what the evaluations of a campaign have found so far, and what their columns mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

MINIMIZE, MAXIMIZE = "minimize", "maximize"


@dataclass(frozen=True, slots=True)
class Findings:
    """Says how to read the rows of ``Campaign.evaluations``.

    Attributes:
        parameters: columns of what was chosen.
        results: columns of what came out.
        objectives: ``minimize`` or ``maximize`` by column; empty: a condition is looked for.
        best: places of the best rows: one where there is one objective, the Pareto front where there are several, those
            that fulfil the condition where that is looked for.
        stage: stage whose rows count; empty: there is one.
        goal: whether there is a goal besides the end: a value to reach, or a number of results to find.
        logarithmic: parameters whose equal ratios count as equal distances.
    """

    parameters: tuple[str, ...]
    results: tuple[str, ...] = ()
    objectives: Mapping[str, str] = field(default_factory=dict)
    best: tuple[int, ...] = ()
    stage: str = ""
    goal: bool = False
    logarithmic: frozenset[str] = frozenset()
