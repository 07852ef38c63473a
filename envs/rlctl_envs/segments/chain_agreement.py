"""How well recorded segments predict others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rlctl.core.errors import ConfigError
from rlctl.plugins.fittable import TwinFit
from rlctl.surrogates.fitted_table import TableRows
from rlctl.surrogates.held_out import Agreement, Predicted, agreement_of, folds
from rlctl_envs.segments.recorded_chains import Floats, RecordedSegments

_QUANTILES = np.array([0.05, 0.5, 0.95])


def fit_chains(records: RecordedSegments, seed: int) -> TwinFit:
    """Records as a twin, with their held-out error: a fifth of the simulations at a time is left out, with copies."""
    rows = _rows(records)
    predicted, fifth = Predicted.empty(rows), folds(records.first, seed)
    for number in np.unique(fifth):
        rest = records.some(fifth != number)
        if not (rest.good.any() and np.isfinite(rest.seconds[rest.good]).any()):
            raise ConfigError("too few simulations have results and known durations: a twin needs several")
        _fill(predicted, rest, records, fifth == number)
    return TwinFit(records, len(records), int(rows.failed.sum()), agreement_of(rows, predicted))


def agreement_of_chains(known: RecordedSegments, others: RecordedSegments) -> Agreement:
    """How well the results, durations and failures of segments are drawn from those of others."""
    rows = _rows(others)
    predicted = Predicted.empty(rows)
    _fill(predicted, known, others, np.ones(len(others), np.bool_))
    return agreement_of(rows, predicted)


def _rows(records: RecordedSegments) -> TableRows:
    """First segments and later ones are two levels, each with a median of its own to be compared with."""
    outcomes = {name: records.after[:, i] for i, name in enumerate(records.results)}
    level = records.fresh.astype(np.int64)
    return TableRows(records.places, records.cores[:, None], level, records.seconds, ~records.good, outcomes)


def _fill(predicted: Predicted, known: RecordedSegments, others: RecordedSegments, at: NDArray[np.bool_]) -> None:
    for number in np.flatnonzero(at):
        before, length = others.before[number], float(others.lengths[number])
        near, closeness = known.alike(before, others.values[number], length)
        good = known.good[near]
        predicted.failure[number] = closeness[~good].sum() / closeness.sum()
        seconds = known.durations(bool(others.fresh[number]), length, float(others.cores[number]))
        predicted.log_seconds[:, number] = np.log(np.quantile(seconds, _QUANTILES))
        if good.any():
            after = known.after_like(near[good], before, length)
            for i, name in enumerate(known.results):
                predicted.outcomes[name][:, number] = _quantiles(after[:, i], closeness[good])


def _quantiles(values: Floats, weights: Floats) -> Floats:
    """Of values that are drawn with these weights, [3]."""
    order = np.argsort(values)
    reached = np.cumsum(weights[order]) / weights.sum()
    places = np.minimum(np.searchsorted(reached, _QUANTILES), len(values) - 1)
    chosen: Floats = values[order][places]
    return chosen
