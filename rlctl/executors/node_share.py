"""What a task asks of nodes, and what it is given of them."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

from rlctl.core.task import Resources

WHOLE = 1000
"""Thousandths of a GPU: shares are whole numbers, so that what is given back is exactly what was taken."""


class NodeShare(NamedTuple):
    """What a task has of one node: ``cores`` is a bit mask, ``gpus`` are (device, thousandths), memory is in MiB."""

    node: int
    ranks: int
    cores: int
    gpus: tuple[tuple[int, int], ...] = ()
    memory_mb: int = 0


Allocation = tuple[NodeShare, ...]
"""What a task has: a share of each of its nodes, nodes rising."""


def core_numbers(mask: int) -> list[int]:
    """The numbers that a bit mask means.

    >>> core_numbers(0b1011)
    [0, 1, 3]
    """
    return [number for number in range(mask.bit_length()) if mask >> number & 1]


class Demand(NamedTuple):
    """Resources for one rank in the units of a pool: ``share`` are thousandths of one GPU, ``devices`` whole GPUs."""

    ranks: int
    cores: int
    share: int
    devices: int
    memory_mb: int
    nodes: int | None


@functools.lru_cache(maxsize=1024)
def demand(need: Resources) -> Demand:
    """What resources mean; rounded up where a device cannot be cut: a rank that needs 1.5 GPUs gets two."""
    gpus = need.gpus_per_rank
    share = max(1, int(gpus * WHOLE + 1e-6)) if 0.0 < gpus < 1.0 else 0
    devices = 0 if share else math.ceil(gpus - 1e-9)
    return Demand(need.ranks, need.cores_per_rank, share, devices, need.memory_per_rank_mb or 0, need.nodes)
