"""Answers to the decisions of a search: named quantities, and why some are not allowed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rlctl.core.errors import ConfigError
from rlctl.core.task import Resources
from rlctl_envs.search.parameters import Floats
from rlctl_envs.search.search_state import SearchState
from rlctl_envs.search.trials import Trial


@dataclass(frozen=True, slots=True)
class Evaluate:
    """Evaluate a point.

    Attributes:
        stage: its number.
        need: resources.
        walltime_s: seconds after which the run is stopped; None: as its program says.
    """

    point: Floats
    stage: int
    need: Resources
    walltime_s: float | None = None


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop a running trial."""

    trial: Trial


@dataclass(frozen=True, slots=True)
class Pause:
    """Start nothing until something happens; or let the run go on that the decision is about."""


Answer = Evaluate | Stop | Pause


def understood(state: SearchState, named: Mapping[str, Any]) -> Answer | str:
    """What named quantities ask for; a text says why it is not allowed at the open decision."""
    if "stop" in named:
        trial = next((trial for trial in state.running.values() if trial.number == named["stop"]), None)
        return f"evaluation {named['stop']} does not run" if trial is None else Stop(trial)
    if "evaluate" in named:
        return _evaluation(state, named)
    if named.get("wait") and (state.subject is not None or state.running):
        return Pause()
    return "nothing runs that could be waited for" if named.get("wait") else "neither evaluate, stop nor wait"


def _evaluation(state: SearchState, named: Mapping[str, Any]) -> Evaluate | str:
    values = named["evaluate"]
    if not isinstance(values, Mapping):
        return "evaluate should be a mapping of parameters"
    try:
        point = state.space.point(values)
        if not state.space.allowed(values):
            return "the point does not fulfil the constraints"
    except (ConfigError, TypeError) as error:
        return str(error)
    name = str(named.get("stage", state.stages[state.counts]))
    if name not in state.stages:
        return f"there is no stage {name!r}"
    stage = state.stages.index(name)
    walltime_s = named.get("walltime_s")
    if walltime_s is not None:
        if isinstance(walltime_s, bool) or not isinstance(walltime_s, int | float) or not walltime_s > 0.0:
            return f"walltime_s is {walltime_s!r}"
        most_s = state.walltimes[stage]
        walltime_s = float(walltime_s) if most_s is None else min(float(walltime_s), most_s)
    if not state.in_time(stage, walltime_s):
        return "its walltime reaches beyond the end of the allocation"
    need = next((need for need in state.room(stage) if _meant(need, named)), None)
    return "no such resources are free" if need is None else Evaluate(point, stage, need, walltime_s)


def _meant(need: Resources, named: Mapping[str, Any]) -> bool:
    """Whether an answer asks for these resources, as far as it says so."""
    asked = (("ranks", need.ranks), ("cores", need.cores_per_rank), ("gpus", need.gpus_per_rank))
    return all(named.get(name, value) == value for name, value in asked)
