"""The cores and GPUs of this machine that the numbers in the books mean."""

from __future__ import annotations

import os
from typing import Protocol

from rlctl.errors import LaunchError
from rlctl.executors.base import Capacity
from rlctl.executors.pool import Placement, core_numbers


class Places(Protocol):
    """What a placement means on machines."""

    def cores(self, placement: Placement) -> list[int]:
        """Numbers of its cores, as the system has them."""

    def gpus(self, placement: Placement) -> list[str]:
        """Names of its GPUs, as ``CUDA_VISIBLE_DEVICES`` has them."""


class Layout:
    """Core i of node n is the core n * cores + i of those that this process may use; GPUs likewise.

    Args:
        first: nodes that other pools have of this machine, before the first one here.

    Raises:
        LaunchError: this process may not use as many, and they are not to be oversubscribed.
    """

    def __init__(self, capacity: Capacity, oversubscribe: bool = False, first: int = 0) -> None:
        self._capacity, self._first = capacity, first
        self._cores, self._gpus = available_cores(), available_gpus()
        if oversubscribe:
            return
        nodes = first + capacity.nodes
        if nodes * capacity.cores > len(self._cores):
            raise LaunchError(
                f"{nodes * capacity.cores} cores are asked for, this process may use {len(self._cores)}: "
                "lower machine.cores, or run where there are more",
                ("machine", "cores"),
            )
        wanted = nodes * capacity.gpus
        if self._gpus is not None and wanted > len(self._gpus):
            visible = os.environ.get("CUDA_VISIBLE_DEVICES")
            raise LaunchError(
                f"{wanted} GPUs are asked for, CUDA_VISIBLE_DEVICES={visible!r} allows {len(self._gpus)}: "
                "lower machine.gpus, or make more visible",
                ("machine", "gpus"),
            )

    def cores(self, placement: Placement) -> list[int]:
        """Numbers of the cores of a placement; where there are fewer than booked, some stand for several."""
        width, here = self._capacity.cores, self._cores
        numbers = [(self._first + part.node) * width + core for part in placement for core in core_numbers(part.cores)]
        return sorted({here[number % len(here)] for number in numbers})

    def gpus(self, placement: Placement) -> list[str]:
        """Names of the GPUs of a placement, as ``CUDA_VISIBLE_DEVICES`` has them."""
        width = self._capacity.gpus
        numbers = [(self._first + part.node) * width + device for part in placement for device, _ in part.gpus]
        names = self._gpus
        return [str(number) if names is None or number >= len(names) else names[number] for number in numbers]


def available_cores() -> list[int]:
    """Numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def available_gpus() -> list[str] | None:
    """Names of the GPUs that this process may use; None: nobody has said, so they are numbered."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return None if visible is None else [name for name in visible.split(",") if name.strip()]
