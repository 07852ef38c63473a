"""Cores and GPUs of this machine: which are free, and which a task gets."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

from rlctl.errors import LaunchError
from rlctl.executors.base import Capacity
from rlctl.task import Resources


@dataclass(frozen=True, slots=True)
class Placement:
    """What a task was given: core numbers, and for each GPU its name and the share of it."""

    cores: tuple[int, ...]
    gpus: tuple[tuple[str, float], ...] = ()


class Slots:
    """Free cores and GPUs.

    >>> slots = Slots([0, 1], ["0"])
    >>> slots.take(Resources(ranks=2))
    Placement(cores=(0, 1), gpus=())
    >>> slots.take(Resources()) is None
    True
    """

    def __init__(self, cores: Sequence[int], gpus: Sequence[str]) -> None:
        self._cores = sorted(cores)
        self._gpus = dict.fromkeys(gpus, 1.0)

    def take(self, need: Resources) -> Placement | None:
        """Occupy what is needed, lowest numbers first; None if it is not free now.

        A rank that needs less than one GPU shares a device; one that needs more gets whole devices.
        """
        if need.cores > len(self._cores):
            return None
        free = dict(self._gpus)
        given: dict[str, float] = {}
        for share in _shares(need):
            device = next((name for name, left in free.items() if left >= share - 1e-9), None)
            if device is None:
                return None
            free[device] -= share
            given[device] = given.get(device, 0.0) + share
        placement = Placement(tuple(self._cores[: need.cores]), tuple(given.items()))
        self._cores = self._cores[need.cores :]
        self._gpus = free
        return placement

    def give(self, placement: Placement) -> None:
        """Take back what ``take`` gave."""
        self._cores = sorted([*self._cores, *placement.cores])
        for device, share in placement.gpus:
            self._gpus[device] = min(1.0, self._gpus[device] + share)


def _shares(need: Resources) -> list[float]:
    per_rank = [need.gpus_per_rank] if 0.0 < need.gpus_per_rank < 1.0 else [1.0] * math.ceil(need.gpus_per_rank)
    return per_rank * need.ranks


def machine_slots(capacity: Capacity) -> tuple[list[int], list[str]]:
    """Core numbers and GPU names that a capacity means on this machine.

    Raises:
        LaunchError: this process may not use as many.
    """
    cores = available_cores()
    if capacity.total_cores > len(cores):
        raise LaunchError(
            f"{capacity.total_cores} cores are asked for, this process may use {len(cores)}: "
            "lower machine.cores, or run where there are more",
            ("machine", "cores"),
        )
    wanted = capacity.nodes * capacity.gpus
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = [str(i) for i in range(wanted)] if visible is None else [name for name in visible.split(",") if name.strip()]
    if wanted > len(gpus):
        raise LaunchError(
            f"{wanted} GPUs are asked for, CUDA_VISIBLE_DEVICES={visible!r} allows {len(gpus)}: "
            "lower machine.gpus, or make more visible",
            ("machine", "gpus"),
        )
    return cores[: capacity.total_cores], gpus[:wanted]


def available_cores() -> list[int]:
    """Numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
