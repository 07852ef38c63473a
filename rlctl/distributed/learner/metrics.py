"""Metrics of a distributed training, from its chunks; see ``rlctl.monitoring.tags``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rlctl.distributed.comm.chunk import Chunk

PARTS = 4
"""Parts of the chunks, from those with the quickest steps to those with the slowest."""


def lag_metrics(chunks: Sequence[Chunk], version: int) -> dict[str, float]:
    """How many versions old the acting policy was, over all transitions and by the duration of their steps.

    Dropping stale chunks would drop those of slow simulations: whether their lag is larger must be visible.

    Args:
        version: of the newest policy.
    """
    if not chunks:
        return {}
    lags = [version - chunk.transitions["version"][:, 0] for chunk in chunks]
    means, largest = np.array([np.mean(lag) for lag in lags]), max(int(np.max(lag)) for lag in lags)
    sizes = np.array([chunk.size for chunk in chunks], float)
    slowness = np.array([chunk.busy_s / len(chunk.transitions) for chunk in chunks])
    metrics = {"learning/lag": float(np.average(means, weights=sizes)), "learning/lag_max": float(largest)}
    order = np.argsort(slowness, kind="stable")
    for part, which in enumerate(np.array_split(order, PARTS)):
        if len(which):
            mean = float(np.average(means[which], weights=sizes[which]))
            metrics[f"learning/lag_by_duration/quarter_{part + 1}"] = mean
    return metrics
