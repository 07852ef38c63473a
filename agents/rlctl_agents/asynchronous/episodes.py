"""EpisodeEnd episodes of chunks, as Stable-Baselines3's callbacks and statistics want to be told of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlctl.distributed.comm.chunk import Chunk


def ended_infos(chunks: Sequence[Chunk]) -> tuple[list[dict[str, Any]], NDArray[np.bool_]]:
    """An info for each episode that ended, and as many times True; one empty info and False if none did."""
    infos: list[dict[str, Any]] = [
        {
            "episode": {"r": ended.episode_return, "l": ended.length, "t": round(time.monotonic(), 6)},
            "campaign": dict(ended.metrics),
        }
        for chunk in chunks
        for _, ended in chunk.episode_ends
    ]
    return (infos, np.ones(len(infos), np.bool_)) if infos else ([{}], np.zeros(1, np.bool_))
