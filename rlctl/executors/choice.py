"""Which of several pools a task goes to: a rule in a few lines, or a learned policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from rlctl.core.task import TaskSpec


@dataclass(frozen=True, slots=True)
class PoolStatus:
    """A pool in which a task can run, as a ``Choice`` sees it.

    Attributes:
        at_once: whether there is room for the task now, besides all that wait there.
        cores: of all its nodes.
        free_cores: of those that are there.
        waiting_cores: cores that waiting tasks ask for.
    """

    name: str
    at_once: bool
    cores: int
    free_cores: int
    waiting_cores: int


class Choice(Protocol):
    """Says where a task goes that names no pool; it stays there."""

    def choose(self, spec: TaskSpec, statuses: Sequence[PoolStatus]) -> str:
        """The name of one of these pools: in all of them the task can run, they come in their order."""


class FirstFree:
    """The first pool that can start the task now; if there is none, that with the least waiting work per core.

    >>> from rlctl.core.task import TaskId
    >>> full, fuller = PoolStatus("here", False, 4, 0, 2), PoolStatus("cluster", False, 64, 1, 16)
    >>> FirstFree().choose(TaskSpec(TaskId("a"), executable="true"), [full, fuller])
    'cluster'
    """

    def choose(self, spec: TaskSpec, statuses: Sequence[PoolStatus]) -> str:
        """See the class."""
        free = next((pool for pool in statuses if pool.at_once), None)
        return (free or min(statuses, key=lambda pool: pool.waiting_cores / max(pool.cores, 1))).name
