"""The cores and GPUs of this machine that the numbers in the books mean."""

from __future__ import annotations

import os
from typing import Protocol

from rlctl.core.errors import LaunchError
from rlctl.core.machine import Capacity
from rlctl.executors.devices import visible_devices
from rlctl.executors.local.cores import affinity, usable_cores
from rlctl.executors.node_share import Allocation, core_numbers


class Places(Protocol):
    """What a placement means on machines."""

    def cores(self, placement: Allocation) -> list[int]:
        """Numbers of its cores, as the system has them."""

    def gpus(self, placement: Allocation) -> dict[str, str]:
        """Variables that show a program its GPUs."""


class Layout:
    """Core i of node n is the core n * cores + i of those that this process may use; GPUs likewise.

    Where it may use fewer cores than it may run on, as under a quota, which ones is the system's choice: others who
    have a quota here would take the first ones too.

    Args:
        first: nodes that other pools have of this machine, before the first one here.

    Raises:
        LaunchError: this process may not use as many, and they are not to be oversubscribed.
    """

    def __init__(self, capacity: Capacity, oversubscribe: bool = False, first: int = 0) -> None:
        self._capacity, self._first = capacity, first
        self._cores, self._gpus = affinity(), visible_devices(os.environ)
        usable, why = usable_cores()
        self._which = usable == len(self._cores)
        if oversubscribe:
            return
        nodes = first + capacity.nodes
        if nodes * capacity.cores > usable:
            raise LaunchError(
                f"{nodes * capacity.cores} cores are asked for, this process may use {usable}{why and f' ({why})'}: "
                "lower machine.cores, or run where there are more",
                ("machine", "cores"),
            )
        wanted, names = nodes * capacity.gpus, self._gpus.names
        if names is not None and wanted > len(names):
            raise LaunchError(
                f"{wanted} GPUs are asked for, {self._gpus.source} allows {len(names)}: "
                "lower machine.gpus, or make more visible",
                ("machine", "gpus"),
            )

    def cores(self, placement: Allocation) -> list[int]:
        """Numbers of the cores of a placement; where there are fewer than booked, some stand for several."""
        width, here = self._capacity.cores, self._cores
        if not self._which:
            return here
        numbers = [(self._first + part.node) * width + core for part in placement for core in core_numbers(part.cores)]
        return sorted({here[number % len(here)] for number in numbers})

    def gpus(self, placement: Allocation) -> dict[str, str]:
        """Variables that show a program the GPUs of a placement."""
        width = self._capacity.gpus
        return self._gpus.variables_for(
            (self._first + part.node) * width + device for part in placement for device, _ in part.gpus
        )


def available_cores() -> list[int]:
    """Numbers of as many cores as this process may keep busy."""
    return affinity()[: usable_cores()[0]]
