"""A model of a table of evaluations: how long each takes, whether it fails, and what it gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rlctl.core.errors import ConfigError
from rlctl.surrogates.fitted_output import MOST_ROWS, Drawn, FittedDuration, FittedFailure, FittedOutput
from rlctl.surrogates.table_inputs import TableInputs

Floats = NDArray[np.float64]

FEWEST_ROWS = 10
"""Rows with a result that a model needs at least, in all and of each outcome."""


@dataclass(frozen=True)
class TableRows:
    """Evaluations as models see them.

    Attributes:
        x, cost_x: features without and with those that only the duration depends on, [n, features].
        level: number of each row's level, [n].
        seconds: durations, [n]; NaN: unknown.
        failed: whether it failed, [n].
        outcomes: by name, [n] each; NaN: unknown.
    """

    x: Floats
    cost_x: Floats
    level: NDArray[np.int64]
    seconds: Floats
    failed: NDArray[np.bool_]
    outcomes: Mapping[str, Floats]

    @classmethod
    def of(
        cls,
        inputs: TableInputs,
        rows: Sequence[Mapping[str, Any]],
        seconds: Floats,
        failed: NDArray[np.bool_],
        outcomes: Mapping[str, Floats],
    ) -> TableRows:
        """Those of a table, each row a mapping of the inputs' names to values."""
        x, cost_x = inputs.read(rows, costs=False), inputs.read(rows, costs=True)
        return cls(x, cost_x, inputs.level_of(rows), seconds, failed, outcomes)

    def __len__(self) -> int:
        return len(self.x)

    def some(self, rows: NDArray[Any]) -> TableRows:
        """The chosen rows."""
        outcomes = {name: values[rows] for name, values in self.outcomes.items()}
        x, cost_x, level = self.x[rows], self.cost_x[rows], self.level[rows]
        return TableRows(x, cost_x, level, self.seconds[rows], self.failed[rows], outcomes)

    def has(self, name: str) -> NDArray[np.bool_]:
        """Rows with this outcome, [n]."""
        return np.isfinite(self.outcomes[name]) & ~self.failed

    @property
    def timed(self) -> NDArray[np.bool_]:
        """Rows with a duration, [n]."""
        return np.isfinite(self.seconds) & (self.seconds > 0.0)


@dataclass(frozen=True)
class FittedTable:
    """Models of duration, failure and outcomes.

    Attributes:
        inputs: what they depend on.
        rows: that they rest on, ``MOST_ROWS`` at most.
        duration, failure, outcomes: the models.
    """

    kind: ClassVar[str] = "evaluations"

    inputs: TableInputs
    rows: TableRows
    duration: FittedDuration
    failure: FittedFailure
    outcomes: Mapping[str, FittedOutput]

    @classmethod
    def fit(cls, inputs: TableInputs, rows: TableRows, seed: int = 0, fewest: int = FEWEST_ROWS) -> FittedTable:
        """Fit to rows; of more than ``MOST_ROWS``, to some that are drawn with ``seed``.

        Args:
            fewest: rows with a result that are needed, in all and of each outcome.

        Raises:
            ConfigError: there are too few.
        """
        if len(rows) > MOST_ROWS:
            chosen = np.random.default_rng([seed, 6]).choice(len(rows), MOST_ROWS, replace=False)
            rows = rows.some(np.sort(chosen))
        _require(int((rows.timed & ~rows.failed).sum()), "a duration and a result", fewest)
        for name in rows.outcomes:
            _require(int(rows.has(name).sum()), f"a number in {name}", fewest)
        return cls._fitted(inputs, rows, {})

    @classmethod
    def _fitted(cls, inputs: TableInputs, rows: TableRows, known: Mapping[str, NDArray[Any]]) -> FittedTable:
        """Fit with the hyperparameters in ``known``; what is not there is chosen."""
        groups, levels, timed = inputs.groups(costs=False), inputs.levels, rows.some(rows.timed)
        duration = FittedDuration.fit(
            inputs.groups(costs=True),
            timed.cost_x,
            timed.level,
            timed.seconds,
            timed.failed,
            levels,
            (known["of_duration"], known["kept"]) if known else None,
        )
        failure = FittedFailure.fit(groups, rows.x, rows.failed, known.get("of_failure"))
        outcomes = {}
        for number, (name, values) in enumerate(rows.outcomes.items()):
            own = rows.has(name)
            outcomes[name] = FittedOutput.fit(
                groups, rows.x[own], rows.level[own], values[own], levels, parameters=known.get(f"of_outcome{number}")
            )
        return cls(inputs, rows, duration, failure, outcomes)

    def draw(self, seed: int) -> DrawnTable:
        """One plausible truth: a function drawn from the posterior of each model, the same for the same seed."""
        streams = [np.random.default_rng(s) for s in np.random.SeedSequence([seed, 7]).spawn(2 + len(self.outcomes))]
        return DrawnTable(
            self,
            self.duration.output.draw(streams[0]),
            self.failure.draw(streams[1]),
            {name: one.draw(s) for (name, one), s in zip(self.outcomes.items(), streams[2:], strict=True)},
        )

    def description(self) -> dict[str, Any]:
        """Inputs and names of the outcomes."""
        return {"inputs": self.inputs.to_json(), "outcomes": list(self.outcomes)}

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All that ``restored`` needs besides ``description``."""
        rows, failure = self.rows, self.failure.output
        arrays: dict[str, NDArray[Any]] = {
            "x": rows.x,
            "cost_x": rows.cost_x,
            "level": rows.level,
            "seconds": rows.seconds,
            "failed": rows.failed,
            "kept": self.duration.kept,
            "of_duration": self.duration.output.model.parameters,
        }
        if failure is not None:
            arrays["of_failure"] = failure.model.parameters
        for number, (name, one) in enumerate(self.outcomes.items()):
            arrays[f"outcome{number}"] = rows.outcomes[name]
            arrays[f"of_outcome{number}"] = one.model.parameters
        return arrays

    @classmethod
    def restored(cls, description: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> FittedTable:
        """The inverse of ``description`` and ``arrays``; predictions and draws are the same.

        Raises:
            KeyError: something is missing.
        """
        inputs, names = TableInputs.from_json(description["inputs"]), description["outcomes"]
        outcomes = {name: arrays[f"outcome{number}"] for number, name in enumerate(names)}
        x, cost_x, level, seconds, failed = (arrays[name] for name in ("x", "cost_x", "level", "seconds", "failed"))
        return cls._fitted(inputs, TableRows(x, cost_x, level, seconds, failed, outcomes), arrays)


@dataclass(frozen=True)
class DrawnRows:
    """What a drawn truth says of evaluations.

    Attributes:
        log_seconds: [n].
        failure: chance that they fail, [n].
        outcomes: by name, [n] each, without noise.
        level: [n].
    """

    log_seconds: Floats
    failure: Floats
    outcomes: Mapping[str, Floats]
    level: NDArray[np.int64]


@dataclass(frozen=True)
class DrawnTable:
    """One plausible truth behind a table; see ``FittedTable.draw``."""

    fitted: FittedTable
    _log_seconds: Drawn
    _failure: Any
    _outcomes: Mapping[str, Drawn]

    def at(self, rows: Sequence[Mapping[str, Any]]) -> DrawnRows:
        """What it says of evaluations at these inputs, each a mapping of names to values."""
        inputs = self.fitted.inputs
        x, cost_x, level = inputs.read(rows, costs=False), inputs.read(rows, costs=True), inputs.level_of(rows)
        outcomes = {name: function(x, level) for name, function in self._outcomes.items()}
        return DrawnRows(self._log_seconds(cost_x, level), self._failure(x), outcomes, level)

    def seconds(self, log_seconds: float, failed: bool, rng: np.random.Generator) -> float:
        """How long one evaluation takes, chance included: a residual of those recorded is drawn."""
        pool = self.fitted.duration.residuals
        after = self.fitted.duration.failed_after
        return float(np.exp(log_seconds + rng.choice(after if failed and len(after) else pool)))

    def noisy(self, drawn: DrawnRows, rng: np.random.Generator) -> dict[str, Floats]:
        """Outcomes with noise as the program's own."""
        of = self.fitted.outcomes
        return {name: of[name].noisy(values, drawn.level, rng) for name, values in drawn.outcomes.items()}


def _require(count: int, what: str, fewest: int) -> None:
    if count < fewest:
        raise ConfigError(f"{count} evaluations have {what}: a twin needs {fewest} at least")
