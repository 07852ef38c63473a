"""Figures of a distributed training, from its chunks; see ``rlctl.monitoring.tags``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rlctl.distributed.comm.chunk import Chunk

PARTS = 4
"""Of the chunks, from those with the quickest steps to those with the slowest."""


def lag_figures(chunks: Sequence[Chunk], version: int) -> dict[str, float]:
    """How many policies old the one was that chose, over all transitions and by how long their steps took.

    Were stale chunks dropped, those of slow simulations would be the ones: whether their lag is larger must be seen.

    Args:
        version: of the newest policy.
    """
    if not chunks:
        return {}
    lags = np.array([np.mean(version - chunk.versions) for chunk in chunks])
    largest = max(int(np.max(version - chunk.versions)) for chunk in chunks)
    sizes = np.array([chunk.transitions for chunk in chunks], float)
    slowness = np.array([chunk.busy_s / len(chunk.versions) for chunk in chunks])
    figures = {"learning/lag": float(np.average(lags, weights=sizes)), "learning/lag_max": float(largest)}
    order = np.argsort(slowness, kind="stable")
    for part, which in enumerate(np.array_split(order, PARTS)):
        if len(which):
            figures[f"learning/lag_by_duration/quarter_{part + 1}"] = float(
                np.average(lags[which], weights=sizes[which])
            )
    return figures
