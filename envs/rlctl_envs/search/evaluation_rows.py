"""The table of a search's evaluations, and what it has found, for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlctl.core.findings import MAXIMIZE, MINIMIZE, Findings
from rlctl_envs.search.parameters import RangeParameter
from rlctl_envs.search.search_state import SearchState
from rlctl_envs.search.trials import Trial, TrialStatus


def evaluation_row(state: SearchState, trial: Trial, ended: bool) -> dict[str, Any]:
    """A row: parameters, resources, status, results, objectives, times and cost; ``ended``: the search has."""
    row: dict[str, Any] = {"evaluation": trial.number}
    if len(state.stages) > 1:
        row["stage"] = state.stages[trial.stage]
    need, objective = trial.resources, state.objective
    status = trial.status.value
    if trial.status is TrialStatus.RUNNING and (ended or trial.started_s is None):
        status = "stopped" if ended else "queued"
    row |= trial.values
    where = (need.ranks, need.cores_per_rank, need.gpus_per_rank) if not trial.known else (None, None, None)
    row |= dict(zip(("ranks", "cores", "gpus"), where, strict=True))
    row["status"] = status
    row |= trial.results
    if (assessment := trial.assessment) is not None:
        losses = zip(objective.names, objective.signs, assessment.losses, strict=True)
        row |= {name: sign * loss for name, sign, loss in losses if name not in row}
    return row | {
        "feasible": None if assessment is None else assessment.feasible,
        "queued_s": round(trial.queued_s, 3),
        "started_s": None if trial.started_s is None else round(trial.started_s, 3),
        "ended_s": None if trial.ended_s is None else round(trial.ended_s, 3),
        "node_seconds": round(trial.node_seconds, 4),
        "kind": trial.kind,
        "message": trial.message,
        **({} if trial.again is None else {"again": trial.again}),
    }


def findings(state: SearchState, results: tuple[str, ...]) -> Findings:
    """What the rows mean; ``results``: names of what the programs' readers find."""
    objective, options = state.objective, state.options
    if objective.finds:
        best = [trial.number for trial, assessment in state.results if assessment.feasible]
    elif len(objective.names) == 1:
        best = [] if state.best is None else [state.best.number]
    else:
        best = [trial.number for trial in state.front]
    ranges = {name: p for name, p in options.parameters.items() if isinstance(p, RangeParameter)}
    return Findings(
        parameters=tuple(state.space.names),
        results=results,
        objectives={
            name: MINIMIZE if sign > 0 else MAXIMIZE
            for name, sign in zip(objective.names, objective.signs, strict=True)
        },
        best=tuple(best),
        stage=state.stages[state.counts],
        goal=options.until.value is not None or options.until.found is not None,
        logarithmic=frozenset(name for name, p in ranges.items() if p.log),
    )


def shown_choice(state: SearchState, named: Mapping[str, Any]) -> Mapping[str, Any]:
    """Named quantities of an answer, without those of which there is one choice only."""
    if "evaluate" not in named:
        return named
    every = [need for choices in state.resources for need in choices]
    values: dict[str, set[float]] = {
        "ranks": {need.ranks for need in every},
        "cores": {need.cores_per_rank for need in every},
        "gpus": {need.gpus_per_rank for need in every},
    }
    chosen = {name for name, of in values.items() if len(of) > 1}
    kept = {"walltime_s", *chosen, *(["stage"] if len(state.stages) > 1 else [])}
    return {**named["evaluate"], **{name: value for name, value in named.items() if name in kept}}
