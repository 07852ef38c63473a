"""Golden pairs: real observations with their actions, which a policy must repeat wherever it is loaded.

Checksums show that the files are what was saved; the pairs show that this machine, this NumPy and this rlctl compute
the same policy from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlctl.bundle.actions import Categorical
from rlctl.bundle.arrays import Declared
from rlctl.bundle.attention import MAX_SCORES
from rlctl.bundle.manifest import MAX_STATISTICS, MIN_PAIRS, Manifest
from rlctl.bundle.network import MAX_PARAMETERS, NumpyPolicy
from rlctl.bundle.policy_network import PolicyNetwork
from rlctl.bundle.spaces import length
from rlctl.core.errors import PolicyError

PAIRS = 128
"""Fewer where observations are long; see ``most_pairs``."""
MAX_WORK = 1 << 36
"""Multiplications for all pairs where the network attends; about those of 4096 pairs of the largest perceptron."""

Pairs = Mapping[str, NDArray[Any]]


def statistics(observations: NDArray[Any]) -> dict[str, Any]:
    """Of each number over rows of flat observations, as the manifest holds them; of all as one where they are many."""
    rows = observations if observations.shape[1] <= MAX_STATISTICS else observations.reshape(-1, 1)
    figures = {
        "mean": rows.mean(axis=0, dtype=np.float64),
        "std": rows.std(axis=0, dtype=np.float64),
        "min": rows.min(axis=0),
        "max": rows.max(axis=0),
    }
    return {"count": len(observations), **{name: values.astype(float).tolist() for name, values in figures.items()}}


def require_usable(observations: NDArray[Any], masks: NDArray[Any] | None) -> None:
    """Raise PolicyError if there are too few observations, or some are not finite."""
    if observations.ndim != 2 or len(observations) < MIN_PAIRS or not np.isfinite(observations).all():
        raise PolicyError(f"a policy is saved with at least {MIN_PAIRS} rows of finite observations")
    if masks is not None and len(masks) != len(observations):
        raise PolicyError(f"{len(masks)} masks for {len(observations)} observations")


def make(policy: NumpyPolicy, observations: NDArray[np.float32], masks: NDArray[np.bool_] | None) -> Pairs:
    """Pairs for some of these observations, spread evenly over the rows."""
    count = min(PAIRS, len(observations), most_pairs(policy.observation_length, policy.distribution.outputs))
    picked = np.unique(np.linspace(0, len(observations) - 1, count).astype(int))
    rows = np.asarray(observations[picked], np.float32)
    pairs: dict[str, NDArray[Any]] = {"observations": rows}
    if isinstance(policy.distribution, Categorical):
        shape = (len(rows), policy.distribution.outputs)
        pairs["masks"] = np.ones(shape, np.bool_) if masks is None else np.asarray(masks[picked], np.bool_)
    pairs["logits"] = np.array([policy.logits(row) for row in rows])
    pairs["actions"] = policy.distribution.mode(pairs["logits"], pairs.get("masks"))
    return pairs


def most_pairs(numbers: int, outputs: int) -> int:
    """How many pairs there may be with so many numbers; raise PolicyError if fewer than there must be."""
    most = MAX_PARAMETERS // (numbers + 2 * outputs)
    if most < MIN_PAIRS:
        raise PolicyError(f"{MIN_PAIRS} golden pairs have more than {MAX_PARAMETERS:,} numbers")
    return most


def declared(manifest: Manifest, policy: NumpyPolicy) -> Declared:
    """Names, shapes and types of the arrays that the manifest declares; raise PolicyError if they are too large."""
    pairs, outputs, attention = manifest.golden_pairs, policy.distribution.outputs, manifest.network.attention
    if pairs > most_pairs(policy.observation_length, outputs):
        raise PolicyError(f"the golden pairs have more than {MAX_PARAMETERS:,} numbers")
    if attention is not None and pairs * attention.work > MAX_WORK:
        raise PolicyError(f"{pairs} golden pairs would take too long to compute")
    categorical = isinstance(policy.distribution, Categorical)
    arrays: dict[str, tuple[tuple[int, ...], Any]] = {
        "observations": ((pairs, length(manifest.spaces.observation)), np.float32),
        "logits": ((pairs, outputs), np.float32),
        "actions": (
            (pairs, len(policy.heads) if categorical else length(manifest.spaces.action)),
            policy.distribution.dtype,
        ),
    }
    return arrays | ({"masks": ((pairs, outputs), np.bool_)} if categorical else {})


def check(policy: NumpyPolicy, pairs: Pairs) -> None:
    """Raise PolicyError if logits differ by more than rounding, or actions where rounding cannot exchange them."""
    allowed = tolerance(policy, pairs["observations"])
    masks = pairs.get("masks")
    for row, observation in enumerate(pairs["observations"]):
        logits, mask = policy.logits(observation), None if masks is None else masks[row]
        off = np.abs(logits - pairs["logits"][row]) - allowed[row]
        if not (off <= 0.0).all():  # NaN is off, too
            raise PolicyError(f"golden pair {row}: it computes other logits than when it was saved")
        sure = policy.distribution.margin(logits, mask) > allowed[row]
        if sure and not np.allclose(policy.likeliest(logits, mask), pairs["actions"][row], 1e-5, allowed[row]):
            raise PolicyError(f"golden pair {row}: it answers otherwise than when it was saved")


def tolerance(policy: NumpyPolicy, observations: NDArray[np.float32]) -> NDArray[np.float64]:
    """How far two float32 computations of the logits of each observation may lie apart.

    20 times what float32 is off from float64 in the worst logit of all, and at least 1e-5 of the row's largest.
    """
    weights = {name: array.astype(np.float64) for name, array in policy.network.weights.items()}
    network, attention = PolicyNetwork(policy.network.network, weights), policy.network.network.attention
    # At a time: attention holds the scores of all rows in memory together.
    some = len(observations) if attention is None else max(1, MAX_SCORES // attention.scores)
    exact, rounded = [], []
    for i in range(0, len(observations), some):
        rows = observations[i : i + some]
        exact.append(network(rows.astype(np.float64), network.initial_state(len(rows)))[0])
        rounded.append(policy.logits(rows))
    logits = np.concatenate(exact)
    off = np.abs(np.concatenate(rounded) - logits).max()
    return np.asarray(np.maximum(20.0 * off, 1e-5 * np.maximum(1.0, np.abs(logits).max(axis=1))), np.float64)
