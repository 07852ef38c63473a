"""Ended episodes of a chunk, as Stable-Baselines3's callbacks and statistics want to be told of them."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlctl.distributed.chunk import Chunk


def ended_infos(chunk: Chunk) -> tuple[list[dict[str, Any]], NDArray[np.bool_]]:
    """An info for each episode that ended in the chunk, and as many times True; never none of both."""
    infos: list[dict[str, Any]] = [
        {
            "episode": {"r": ended.ret, "l": ended.length, "t": round(time.process_time(), 6)},
            "campaign": dict(ended.figures),
        }
        for _, ended in chunk.ended
    ]
    return infos or [{}], np.ones(len(infos), np.bool_) if infos else np.zeros(1, np.bool_)
