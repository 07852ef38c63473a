"""The machine as a campaign sees it: an allocation of nodes, which of them are available, and where a task may go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from rlctl.core.errors import LaunchError
from rlctl.core.task import Resources, TaskSpec


@dataclass(frozen=True, slots=True)
class NodeGroup:
    """Equal nodes among others; see ``Capacity``."""

    nodes: int
    cores: int
    gpus: int = 0
    memory_mb: int | None = None


@dataclass(frozen=True, slots=True)
class Capacity:
    """An allocation: ``nodes`` equal nodes of ``cores`` cores, ``gpus`` GPUs and ``memory_mb`` MiB each.

    One of unequal nodes is made by ``Capacity.of``; its ``cores``, ``gpus`` and ``memory_mb`` are those of the largest.

    Attributes:
        memory_mb: None: memory is not booked.
        groups: of unequal nodes, in the order in which the nodes are numbered; empty: all are equal.

    >>> machine = Capacity.of([NodeGroup(4, cores=8), NodeGroup(2, cores=16, gpus=4)])
    >>> machine.nodes, machine.total_cores, machine.total_gpus
    (6, 64, 8)
    """

    nodes: int = 1
    cores: int = 2
    gpus: int = 0
    memory_mb: int | None = None
    groups: tuple[NodeGroup, ...] = ()

    @classmethod
    def of(cls, groups: Sequence[NodeGroup]) -> Capacity:
        """An allocation of unequal nodes."""
        memories = [group.memory_mb for group in groups]
        return cls(
            sum(group.nodes for group in groups),
            max(group.cores for group in groups),
            max(group.gpus for group in groups),
            None if None in memories else max(memory for memory in memories if memory is not None),
            tuple(groups),
        )

    @property
    def kinds(self) -> tuple[NodeGroup, ...]:
        """The groups; equal nodes are one."""
        return self.groups or (NodeGroup(self.nodes, self.cores, self.gpus, self.memory_mb),)

    @property
    def total_cores(self) -> int:
        """Cores of all nodes."""
        return sum(group.nodes * group.cores for group in self.groups) if self.groups else self.nodes * self.cores

    @property
    def total_gpus(self) -> int:
        """GPUs of all nodes."""
        return sum(group.nodes * group.gpus for group in self.groups) if self.groups else self.nodes * self.gpus

    def require_equal(self, backend: str) -> None:
        """Raise LaunchError for unequal nodes."""
        if self.groups:
            raise LaunchError(f"{backend} has equal nodes: leave machine.groups out, or use several pools")

    def node(self) -> str:
        """One node in words.

        >>> Capacity(nodes=4, cores=8, gpus=2).node()
        '8 cores and 2 GPUs'
        """
        memory = "" if self.memory_mb is None else f", {self.memory_mb} MiB"
        return f"{'at most ' if self.groups else ''}{self.cores} cores{memory} and {self.gpus} GPUs"

    def check(self, spec: TaskSpec) -> None:
        """Raise LaunchError if the task asks for more than the whole allocation."""
        need = spec.resources
        if need.cores > self.total_cores or need.gpus > self.total_gpus:
            raise LaunchError(
                f"task {spec.uid} needs {need.cores} cores and {need.gpus:g} GPUs; the allocation has "
                f"{self.total_cores} cores and {self.total_gpus} GPUs: ask for less or allocate more"
            )


class Machine(NamedTuple):
    """Which nodes of an allocation are there.

    Attributes:
        nodes: how many are numbered, those that are down included.
        down: numbers of those that cannot be used now.
        paid: how many are paid for: lost ones are, those that have not come yet or were given back are not.
    """

    nodes: int
    down: frozenset[int]
    paid: int


@dataclass(frozen=True, slots=True)
class NodeState:
    """A node as a ``Scoring`` sees it; GPUs are counted in devices, fractions included."""

    index: int
    cores: int
    free_cores: int
    gpus: int
    free_gpus: float
    free_memory_mb: int | None


class Scoring(Protocol):
    """Says where a task should go: a rule in a few lines, or a learned policy."""

    def score(self, need: Resources, node: NodeState) -> float:
        """How well the task stands on a node that has room for at least one of its ranks; the highest come first."""
