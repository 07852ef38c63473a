"""How well models of a table predict rows that they have not seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlctl.surrogates.fitted_table import FittedTable, TableRows
from rlctl.surrogates.table_inputs import TableInputs

Floats = NDArray[np.float64]

FOLDS = 5

_FEWEST = 3
"""Rows that the others of a fifth need; what a twin needs is more."""


@dataclass(frozen=True, slots=True)
class Quality:
    """Quality of one model's predictions.

    Attributes:
        rows: that were predicted.
        error: median of the absolute error; of durations, of their natural logarithm.
        share: mean of the absolute error, divided by that of predicting the median of the level everywhere: 1: inputs
            tell nothing, 0: they tell all.
        covered: share of rows within their 90 % interval.
    """

    rows: int
    error: float
    share: float
    covered: float


@dataclass(frozen=True, slots=True)
class Agreement:
    """Quality of all models of a table.

    Attributes:
        durations: of the logarithm of seconds; None: no row has a duration.
        outcomes: by name.
        failed: share of rows that failed.
        brier: mean square of the chance of failure less what happened, Brier's score.
        brier_of_share: the same of predicting that share everywhere.
    """

    durations: Quality | None
    outcomes: Mapping[str, Quality]
    failed: float
    brier: float
    brier_of_share: float

    @property
    def predictions(self) -> int:
        """Number of values that were predicted with an interval."""
        return sum(one.rows for one in self._all())

    @property
    def outside(self) -> float:
        """Share of all values that lie outside their 90 % interval; a good model has about 0.1."""
        return sum(one.rows * (1.0 - one.covered) for one in self._all()) / max(1, self.predictions)

    def to_json(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "outside": self.outside}

    def lines(self) -> list[str]:
        """For people."""
        found = []
        if (one := self.durations) is not None:
            error = f"median error {100 * np.expm1(one.error):.0f} %"
            found.append(f"durations: {error}, {_rest(one)}")
        found += [f"{name}: median error {one.error:.4g}, {_rest(one)}" for name, one in self.outcomes.items()]
        if self.brier_of_share > 0.0:
            skill = f"Brier score {self.brier:.3f}, of their share alone {self.brier_of_share:.3f}"
            found.append(f"failures: {100 * self.failed:.0f} %, {skill}")
        return found

    def _all(self) -> list[Quality]:
        return [*self.outcomes.values(), *([] if self.durations is None else [self.durations])]


def _rest(one: Quality) -> str:
    return f"mean error {one.share:.2f} of that of the median alone, {100 * one.covered:.0f} % within the 90 % interval"


@dataclass
class Predicted:
    """Quantiles (5 %, 50 %, 95 %) [3, n] and chances of failure [n] of rows, NaN where there is none."""

    log_seconds: Floats
    failure: Floats
    outcomes: dict[str, Floats]

    @classmethod
    def empty(cls, rows: TableRows) -> Predicted:
        """Nothing yet."""
        blank = np.full((3, len(rows)), np.nan)
        return cls(blank.copy(), np.full(len(rows), np.nan), {name: blank.copy() for name in rows.outcomes})

    def fill(self, model: FittedTable, rows: TableRows, at: NDArray[np.bool_]) -> None:
        """What a model says of some rows."""
        some = rows.some(at)
        self.log_seconds[:, at] = model.duration.quantiles(some.cost_x, some.level)
        self.failure[at] = model.failure.chance(some.x)
        for name, found in self.outcomes.items():
            found[:, at] = model.outcomes[name].quantiles(some.x, some.level)


def held_out(
    inputs: TableInputs, rows: TableRows, seed: int = 0, together: Sequence[int] | NDArray[np.int64] | None = None
) -> Agreement:
    """Cross-validation: each fifth of the rows is predicted by models that were fitted to the others.

    Args:
        seed: of the division.
        together: rows with the same number are in the same fifth, [n]; None: those with equal inputs.

    Raises:
        ConfigError: the rest of some fifth has too few rows.
    """
    if together is None:
        together = np.unique(np.round(rows.x, 9), axis=0, return_inverse=True)[1].reshape(-1)
    fold = folds(together, seed)
    predicted = Predicted.empty(rows)
    for number in np.unique(fold):
        model = FittedTable.fit(inputs, rows.some(fold != number), seed, _FEWEST)
        predicted.fill(model, rows, fold == number)
    return agreement_of(rows, predicted)


def agreement(model: FittedTable, rows: TableRows) -> Agreement:
    """How well a model predicts rows that it was not fitted to, as far as both have the same outcomes."""
    rows = replace(rows, outcomes={name: of for name, of in rows.outcomes.items() if name in model.outcomes})
    predicted = Predicted.empty(rows)
    predicted.fill(model, rows, np.ones(len(rows), np.bool_))
    return agreement_of(rows, predicted)


def folds(together: Sequence[int] | NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Fifth of each row, [n]; rows with the same number are in the same one."""
    members, place = np.unique(np.asarray(together), return_inverse=True)
    fifths: NDArray[np.int64] = np.random.default_rng([seed, 5]).permutation(len(members))[place] % FOLDS
    return fifths


def agreement_of(rows: TableRows, predicted: Predicted) -> Agreement:
    """How well rows were predicted."""
    timed = rows.timed & ~rows.failed
    durations = None
    if timed.any():
        durations = _quality_of(np.log(rows.seconds[timed]), predicted.log_seconds[:, timed], rows.level[timed])
    outcomes = {
        name: _quality_of(rows.outcomes[name][has], predicted.outcomes[name][:, has], rows.level[has])
        for name in rows.outcomes
        if (has := rows.has(name)).any()
    }
    share = float(rows.failed.mean())
    brier = float(np.mean((predicted.failure - rows.failed) ** 2))
    return Agreement(durations, outcomes, share, brier, share * (1.0 - share))


def _quality_of(truth: Floats, quantiles: Floats, level: NDArray[np.int64]) -> Quality:
    low, middle, high = quantiles
    plain = truth.copy()
    for one in np.unique(level):
        plain[level == one] -= np.median(truth[level == one])
    # Where nothing is predicted, since all that is alike has failed, the median stands alone.
    misses = np.abs(np.where(np.isfinite(middle), truth - middle, plain))
    usual = float(np.mean(np.abs(plain)))
    slack = 1e-9 * (1.0 + np.abs(truth))  # of values that are all equal
    covered = float(np.mean((truth >= low - slack) & (truth <= high + slack)))
    share = float(np.mean(misses)) / usual if usual > 0.0 else 0.0
    return Quality(len(truth), float(np.median(misses)), share, covered)
