"""Problems that are drawn from models of recorded evaluations, and what such models are fitted to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rlctl.config.validation import did_you_mean
from rlctl.core.errors import ConfigError
from rlctl.core.task import Resources
from rlctl.plugins.table_twin import TwinColumns
from rlctl.surrogates.fitted_table import FittedTable
from rlctl.surrogates.table_inputs import InputColumn, TableInputs
from rlctl_envs.search.candidates import CandidateTable
from rlctl_envs.search.evaluated_points import Space
from rlctl_envs.search.objective import Assessment, SearchObjective
from rlctl_envs.search.options import SearchOptions
from rlctl_envs.search.parameters import ChoiceParameter, Floats, Parameter, RangeParameter
from rlctl_envs.search.problem import Aims, SimulatedRun

SAMPLED = 512
"""Points by which goals are chosen, each assessed by the user's own expressions."""

STAGE, CORES, GPUS = "stage", "cores", "gpus"

_HUNG = 5.0
"""A run that takes so many times as long as others at its point counts as stuck."""


def search_columns(
    options: SearchOptions,
    space: Space,
    objective: SearchObjective,
    results: Sequence[str],
    resources: Sequence[Sequence[Resources]],
) -> TwinColumns:
    """What a twin of a search is fitted to.

    Args:
        results: names of all results.
        resources: for each stage, what an evaluation may occupy.
    """
    if isinstance(space, CandidateTable):
        columns = [InputColumn(name, low, max(high, low + 1e-9)) for name, (low, high) in space.extremes.items()]
    else:
        columns = [_column(name, parameter) for name, parameter in options.parameters.items()]
    level = STAGE if len(options.stages) > 1 else ""
    if level:
        columns.append(InputColumn(STAGE, values=tuple(options.stage_names)))
    needs = [need for choices in resources for need in choices]
    cores, gpus = (
        tuple(sorted({float(n) for n in of})) for of in zip(*((n.cores, n.gpus) for n in needs), strict=True)
    )
    if len(cores) > 1:
        columns.append(InputColumn(CORES, cores[0], cores[-1], log=True, costs_only=True))
    if len(gpus) > 1:
        columns.append(InputColumn(GPUS, gpus[0], gpus[-1], costs_only=True))
    used = tuple(name for name in results if name in objective.uses)
    further = tuple(name for name in results if name not in objective.uses)
    return TwinColumns(TableInputs(tuple(columns), level), used, further, cores, gpus)


def _column(name: str, parameter: Parameter) -> InputColumn:
    if isinstance(parameter, RangeParameter):
        return InputColumn(name, parameter.low, parameter.high, parameter.log)
    if isinstance(parameter, ChoiceParameter):
        return InputColumn(name, values=tuple(parameter.choices))
    return InputColumn(name, values=tuple(parameter.ordered), ordered=True)


def check_columns(needed: TwinColumns, table: FittedTable) -> None:
    """Refuse models that do not know what a search asks.

    Raises:
        ConfigError: they know too little.
    """
    again = "fit it with this configuration"
    known = {column.name: column for column in table.inputs.columns}
    for column in needed.inputs.columns:
        if column.name not in known:
            raise ConfigError(f"the twin knows no {column.name!r}: {again}; {did_you_mean(column.name, known)}")
        of = known.pop(column.name)
        lacks = [value for value in column.values if value not in of.values]
        if bool(column.values) != bool(of.values) or lacks:
            what = f"no value {lacks[0]!r}" if of.values and lacks else f"other values than {column.name!r} has"
            raise ConfigError(f"the twin knows of {column.name!r} {what}: {again}")
    if known:
        raise ConfigError(f"the twin depends on {min(known)!r}, of which there is no choice here: {again}")
    lacks = [name for name in needed.outcomes if name not in table.outcomes]
    if lacks:
        raise ConfigError(f"the twin knows no result {lacks[0]!r}: {again}; {did_you_mean(lacks[0], table.outcomes)}")


class FittedProblem:
    """What evaluations of instance ``seed`` give: one plausible truth behind the recorded evaluations.

    Far from what was recorded, instances differ; where much was recorded, they agree.

    Args:
        resources: for each stage, what an evaluation may occupy.
    """

    def __init__(
        self,
        options: SearchOptions,
        space: Space,
        objective: SearchObjective,
        counts: int,
        resources: Sequence[Sequence[Resources]],
        table: FittedTable,
        seed: int,
    ) -> None:
        rng = np.random.default_rng([seed, 9])
        self._space, self._objective, self._counts, self._noisy = space, objective, counts, options.noisy
        self._stages, self._resources, self._fitted, self._table = (
            options.stage_names,
            resources,
            table,
            table.draw(seed),
        )
        self._sample = [space.values(point) for point in space.sample(rng, SAMPLED)]
        self._hits = float(np.exp(rng.uniform(math.log(1 / 20), math.log(1 / 1.5)))) / options.usual_evaluations
        self._aim(has_goal=options.until.value is not None or options.until.found is not None)

    def _aim(self, has_goal: bool) -> None:
        """Learn scale and goals of the losses from a sample."""
        drawn = self._table.at([self._row(values, self._counts) for values in self._sample])
        assessed = list[Assessment]()
        for number, values in enumerate(self._sample):
            outputs = {name: float(of[number]) for name, of in drawn.outcomes.items()}
            if (assessment := self._assess(values, outputs)) is not None and drawn.failure[number] < 0.5:
                assessed.append(assessment)
        losses = np.array([one.losses for one in assessed]).reshape(len(assessed), len(self._objective.names))
        wide = np.ptp(np.quantile(losses, [0.1, 0.9], axis=0), axis=0) if len(losses) else np.ones(losses.shape[1])
        self._low, self._wide = losses.min(0, initial=np.inf), np.where(wide > 0.0, wide, 1.0)
        self._low = np.where(np.isfinite(self._low), self._low, 0.0)
        self.unit = float(self._wide[0]) if len(self._wide) else 1.0
        good = np.array([one.feasible for one in assessed], np.bool_)
        aims = len(assessed) > 0 and not has_goal
        self._aims = Aims.of((losses - self._low) / self._wide, good, self._hits) if aims else None

    def run(self, point: Floats, stage: int, need: Resources, rng: np.random.Generator) -> SimulatedRun:
        """See ``Problem``."""
        values = self._space.values(point)
        drawn = self._table.at([self._row(values, stage, need)])
        failed = bool(rng.random() < drawn.failure[0])
        seconds = self._table.seconds(float(drawn.log_seconds[0]), failed, rng)
        if failed:
            return SimulatedRun(seconds, failed=True)
        exact = {name: float(of[0]) for name, of in drawn.outcomes.items()}
        noisy = {name: float(of[0]) for name, of in self._table.noisy(drawn, rng).items()} if self._noisy else exact
        assessment, true = self._assess(values, noisy), self._assess(values, exact)
        if assessment is None:
            return SimulatedRun(seconds, outputs=noisy)
        reached = [False]
        if true is not None and self._aims is not None:
            reached = self._aims.reached((np.array(true.losses) - self._low) / self._wide, true.feasible)
        if stage != self._counts:
            reached = [False] * len(reached)
        return SimulatedRun(seconds, False, noisy, list(assessment.losses), list(assessment.margins), reached)

    def hidden(self) -> Sequence[float]:
        """See ``Problem``: those of the drawn truth, over a sample."""
        first, full = (self._table.at([self._row(v, stage) for v in self._sample[:64]]) for stage in (0, self._counts))
        name = next(iter(full.outcomes))
        spread = max(float(full.log_seconds.std()), 1e-3)
        alike = _correlation(first.outcomes[name], full.outcomes[name])
        model = self._fitted.outcomes[name].model
        most = max(self._resources[self._counts], key=lambda need: need.cores)
        fast = self._table.at([self._row(self._sample[0], self._counts, most)]).log_seconds[0] - full.log_seconds[0]
        residuals = self._fitted.duration.residuals
        return (
            math.log(spread) / 2.0,
            _correlation(full.log_seconds, full.outcomes[name]),
            float(np.mean(residuals > math.log(_HUNG))) * 10.0,
            float(full.failure.mean()) * 3.0,
            model.noise * 3.0 if self._noisy else 0.0,
            math.log(self._hits) / 8.0,
            (1.0 - alike**2) * 2.0,
            float(np.median(first.log_seconds - full.log_seconds)) / 4.0,
            math.exp(min(float(fast), 0.0)) * 3.0 if most.cores > 1 else 0.0,
        )

    def shapes(self) -> Sequence[float]:
        """The goals."""
        return [most for _, most in self._aims.directions] if self._aims is not None else []

    def _row(self, values: Mapping[str, Any], stage: int, need: Resources | None = None) -> dict[str, Any]:
        need = need or self._resources[stage][0]
        return {**values, STAGE: self._stages[stage], CORES: float(need.cores), GPUS: float(need.gpus)}

    def _assess(self, values: Mapping[str, Any], outputs: Mapping[str, float]) -> Assessment | None:
        try:
            return self._objective.assess({**values, **outputs})
        except ConfigError:  # such as the logarithm of a drawn value that is negative
            return None


def _correlation(a: Floats, b: Floats) -> float:
    if np.ptp(a) == 0.0 or np.ptp(b) == 0.0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])
