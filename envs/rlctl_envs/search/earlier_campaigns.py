"""Earlier campaigns as models read them: from recorded tables, and from problems of the twin."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlctl.config.validation import did_you_mean
from rlctl.core.errors import ConfigError
from rlctl.core.json_values import plain
from rlctl.core.task import Resources
from rlctl.plugins.recorded_table import DONE, RecordedTable, ended_status, number_of, seconds_of
from rlctl.plugins.table_twin import MACHINE, TwinColumns, columns_of
from rlctl.surrogates.campaign_prior import PriorFolder, SearchGround, read_prior
from rlctl.surrogates.search_model import Evaluated
from rlctl_envs.search.objective import SearchObjective
from rlctl_envs.search.parameters import Floats
from rlctl_envs.search.problem import Problem
from rlctl_envs.search.search_state import SearchState

PRIOR_DIGEST = "prior.sha256"
"""Of a run's folder: which prior it began with."""

SPACE = 1024
"""Points that stand for the space."""

Row = tuple[Floats, int, Resources, float | None, bool, float]
"""Point, stage, resources, loss, whether there is a result, and seconds."""


class EarlierCampaigns:
    """Reads and plays campaigns of one kind.

    Args:
        state: of a campaign that has not begun, on the machine in question.
        columns: of recorded tables.
        problem: makes the twin's problem of an instance.
    """

    def __init__(self, state: SearchState, columns: TwinColumns, problem: Callable[[int], Problem]) -> None:
        self._state, self._columns, self._problem = state, columns, problem

    @property
    def inputs(self) -> Mapping[str, Any]:
        """Parameters, stages and objective."""
        return prior_inputs(self._columns, self._state.objective)

    def recorded(self, source: RecordedTable) -> Evaluated:
        """A recorded campaign: what has ended by itself, in its order.

        Raises:
            ConfigError: the source lacks a column, or has a cell that cannot be used; it names file and line.
        """
        parameters = self._state.space.names
        source.require(parameters)
        source.require(self._columns.outcomes)
        rows = list[Row]()
        for place, row in zip(source.places, source.rows, strict=True):
            try:
                status = ended_status(row)
                if status is None or row.get("kind") in MACHINE:
                    continue
                rows.append(self._row(columns_of(self._columns, row), status == DONE))
            except ConfigError as error:
                raise ConfigError(f"{place}: {error.problem}") from None
        if not rows:
            raise ConfigError(f"{source.path} has no evaluations that have ended")
        return self._evaluated(rows)

    def _row(self, row: Mapping[str, Any], done: bool) -> Row:
        state = self._state
        stage = state.counts
        if len(state.stages) > 1:
            if row.get("stage") not in state.stages:
                raise ConfigError(f"there is no stage {row.get('stage')!r}; {did_you_mean('', state.stages)}")
            stage = state.stages.index(row["stage"])
        point = state.space.point({name: row[name] for name in state.space.names})
        asked = (row["cores"], row["gpus"])
        fitting = [need for need in state.resources[stage] if (float(need.cores), float(need.gpus)) == asked]
        seconds = seconds_of(row) if fitting or "ranks" not in row else math.nan
        need = (fitting or state.resources[stage])[0]
        if not done:
            return point, stage, need, None, False, seconds
        results = {name: number_of(row, name) for name in self._columns.outcomes}
        if not all(map(math.isfinite, results.values())):
            return point, stage, need, None, True, seconds
        losses = state.objective.assess({**state.space.values(point), **results}).losses
        return point, stage, need, losses[0] if len(losses) == 1 else None, True, seconds

    def drawn(self, count: int, evaluations: int, seed: int) -> list[Evaluated]:
        """Campaigns on problems of the twin: points of Sobol sequences, stages in turn, resources at random."""
        instances = np.random.SeedSequence([seed, 14]).generate_state(count).tolist()
        return [self._played(self._problem(instance), evaluations, instance) for instance in instances]

    def _played(self, problem: Problem, evaluations: int, seed: int) -> Evaluated:
        state, rng, rows = self._state, np.random.default_rng([seed, 12]), list[Row]()
        for number in range(evaluations):
            stage = number % len(state.stages)
            need = state.resources[stage][int(rng.integers(len(state.resources[stage])))]
            point = state.space.spread(seed, number)
            run = problem.run(point, stage, need, rng)
            single = not run.failed and run.losses is not None and len(run.losses) == 1
            loss = float(run.losses[0]) if single and run.losses is not None else None
            rows.append((point, stage, need, loss, not run.failed, run.seconds))
        return self._evaluated(rows)

    def _evaluated(self, rows: Sequence[Row]) -> Evaluated:
        x, cost_x = self._features([row[:3] for row in rows])
        single = len(self._state.objective.names) == 1
        losses = np.array([math.nan if row[3] is None else row[3] for row in rows]) if single else np.zeros(0)
        succeeded = np.array([row[4] for row in rows], np.bool_)
        cost = np.array([self._state.nodes(row[2]) * row[5] for row in rows])
        # As in the models of a campaign: what gave no result says nothing of durations.
        return Evaluated(x, losses, np.zeros((len(rows), 0)), succeeded, cost_x, np.where(succeeded, cost, math.nan))

    def _features(self, rows: Sequence[tuple[Floats, int, Resources]]) -> tuple[Floats, Floats]:
        state = self._state
        x = np.vstack([state.features(point[None], stage) for point, stage, _ in rows])
        cost_x = np.vstack([state.cost_features(point[None], stage, need) for point, stage, need in rows])
        return x, cost_x

    def ground(self, seed: int) -> SearchGround:
        """Where campaigns take place."""
        state, rng = self._state, np.random.default_rng([seed, 13])
        stages = rng.integers(len(state.stages), size=SPACE)
        needs = [state.resources[stage][int(rng.integers(len(state.resources[stage])))] for stage in stages]
        points = state.space.sample(rng, SPACE)
        x, cost_x = self._features([(p, int(s), need) for p, s, need in zip(points, stages, needs, strict=False)])
        return SearchGround(*state.groups, x, cost_x, state.inexact)


def prior_inputs(columns: TwinColumns, objective: SearchObjective) -> dict[str, Any]:
    """What campaigns must have in common: parameters, stages and objective."""
    ways = [
        f"{'minimize' if sign > 0.0 else 'maximize'} {n}"
        for n, sign in zip(objective.names, objective.signs, strict=True)
    ]
    return {"columns": columns.inputs.to_json()["columns"], "objective": ways}


def fitting_prior(folder: Path, needed: Mapping[str, Any]) -> PriorFolder:
    """A prior that knows what a search asks.

    Args:
        needed: parameters, stages and objective; see ``prior_inputs``.

    Raises:
        ConfigError: it cannot be read, or is of other campaigns.
    """
    found, asked = read_prior(folder), plain(needed)
    again = "learn it with this configuration"
    if found.inputs["objective"] != asked["objective"]:
        raise ConfigError(f"{folder} is of the objective {', '.join(found.inputs['objective'])}: {again}")
    here = {column["name"]: column for column in asked["columns"]}
    there = {column["name"]: column for column in found.inputs["columns"]}
    if names := sorted(set(here) ^ set(there)):
        knows = "does not know" if names[0] in here else "depends on"
        raise ConfigError(f"{folder} {knows} {names[0]!r}: {again}")
    if list(here) != list(there):
        raise ConfigError(f"{folder} has its parameters in another order: {again}")
    other = next((name for name in here if here[name] != there[name]), None)
    if other is not None:
        raise ConfigError(f"{folder} knows {other!r} within other values or bounds: {again}")
    return found
