"""Cost per success and its uncertainty over instances.

The expected running time (ERT; Auger and Hansen, CEC 2005) is total cost divided by number of successes, so that
methods that often give up are charged for every attempt. Intervals are from the percentile bootstrap over instances;
policies are resampled together, since they run on the same instances.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Interval = tuple[float, float]

SAMPLES = 10_000
LEVEL = 0.95
_BLOCK = 2_000_000  # numbers held at once while resampling


def ert(node_seconds: NDArray[Any], successes: NDArray[Any]) -> float:
    """Node-seconds per success; infinite without success.

    >>> ert(np.array([10.0, 30.0]), np.array([1, 3]))
    10.0
    """
    total = float(np.sum(successes))
    return float(np.sum(node_seconds)) / total if total > 0 else float("inf")


def resampled_sums(columns: NDArray[Any], samples: int = SAMPLES, seed: int = 0) -> Array:
    """Column sums of bootstrap samples of the rows, as [samples, columns]."""
    rows = columns.shape[0]
    random = np.random.default_rng(seed)
    block = max(1, _BLOCK // rows)
    even = np.full(rows, 1.0 / rows)
    sums = [random.multinomial(rows, even, size=min(block, samples - at)) @ columns for at in range(0, samples, block)]
    return np.concatenate(sums).astype(np.float64)


def ert_interval(node_seconds: NDArray[Any], successes: NDArray[Any], seed: int = 0) -> Interval:
    """95 % interval of ``ert``."""
    sums = resampled_sums(np.column_stack([node_seconds, successes]), seed=seed)
    return interval_of(quotient(sums[:, 0], sums[:, 1]))


def ert_ratio(
    node_seconds: NDArray[Any],
    successes: NDArray[Any],
    reference_node_seconds: NDArray[Any],
    reference_successes: NDArray[Any],
    seed: int = 0,
) -> tuple[float, Interval]:
    """ERT of a method over that of the reference on the same instances, with its paired 95 % interval."""
    columns = np.column_stack([node_seconds, successes, reference_node_seconds, reference_successes]).astype(np.float64)
    sums = resampled_sums(columns, seed=seed)
    value = quotient(*_cross(columns.sum(axis=0, keepdims=True)))[0]
    return float(value), interval_of(quotient(*_cross(sums)))


def with_interval(value: float, interval: Interval, form: str = ".1f") -> str:
    """The text of a value with its interval.

    >>> with_interval(2.0, (1.0, 3.5))
    '2.0 [1.0, 3.5]'
    """
    return f"{value:{form}} [{interval[0]:{form}}, {interval[1]:{form}}]"


def _cross(sums: Array) -> tuple[Array, Array]:
    """Numerator and denominator of the ratio of two cost-per-success quotients."""
    return sums[:, 0] * sums[:, 3], sums[:, 1] * sums[:, 2]


def quotient(numerator: Array, denominator: Array) -> Array:
    """Quotients; NaN and infinities where they have no value."""
    with np.errstate(divide="ignore", invalid="ignore"):
        result: Array = numerator / denominator
    return result


def interval_of(values: Array) -> Interval:
    """The 95 % interval of bootstrap values.

    Percentiles are not interpolated, which would turn infinities into NaN; NaN widens both ends.
    """
    tail = (1.0 - LEVEL) / 2.0
    low = np.quantile(np.nan_to_num(values, nan=0.0, posinf=np.inf), tail, method="inverted_cdf")
    high = np.quantile(np.nan_to_num(values, nan=np.inf, posinf=np.inf), 1.0 - tail, method="inverted_cdf")
    return float(low), float(high)
