"""What a learning algorithm is given on a learner's rank: its actors, its fellow learners, and when to stop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from rlctl.distributed.comm.polling import Asleep

if TYPE_CHECKING:
    from mpi4py.MPI import Intracomm

    from rlctl.distributed.launch.signals import Stop
    from rlctl.distributed.learner.collector import Collector


class AllLearners:
    """Sums over the learners of an agent, who wait for each other asleep.

    Args:
        comm: the learners' own.
        limit_s: the longest nap.
    """

    def __init__(self, comm: Intracomm, limit_s: float) -> None:
        self.size, self.rank = comm.size, comm.rank
        self._comm = Asleep(comm, limit_s)

    def sum(self, array: NDArray[Any]) -> None:
        """Replace the array by the sum over all learners."""
        self._comm.allreduce(array)

    def largest(self, array: NDArray[Any]) -> None:
        """Replace the array by the largest over all learners, number by number."""
        from mpi4py import MPI

        self._comm.allreduce(array, MPI.MAX)

    def total(self, count: int) -> int:
        """The sum of a count over all learners."""
        array = np.array([count], np.int64)
        self.sum(array)
        return int(array[0])

    def gather(self, thing: Any) -> list[Any] | None:
        """Everyone's small object, on the first learner."""
        return self._comm.gather(thing)

    def told_by_first(self, thing: Any) -> Any:
        """The first learner's object, on all."""
        return self._comm.bcast_object(thing)


@dataclass(slots=True)
class Ranks:
    """Of one learner.

    Attributes:
        agent: number of the agent.
        learners: all of the agent; None: this one is alone.
        actors: numbers of the actors that this learner has.
        environments: how many they have together.
        stop: whether the learner was asked to end.
        collector: of chunks; None in lock-step.
        comm: of the learners and actors of the agent, for lock-step.
        workers: ranks in ``comm`` of this learner's actors, in order of their numbers.
        limit_s: the longest nap of a wait.
        spaces: observation and action space of an environment, once an actor has told of them.
    """

    agent: int
    learners: AllLearners | None
    actors: list[int]
    environments: int
    stop: Stop
    collector: Collector | None
    comm: Intracomm
    workers: list[int]
    limit_s: float
    spaces: tuple[gymnasium.Space[Any], gymnasium.Space[Any]] | None = None

    @property
    def first(self) -> bool:
        """Whether this learner writes for its agent: board, checkpoints, the saved policy."""
        return self.learners is None or self.learners.rank == 0

    @property
    def number(self) -> int:
        """Of this learner within the agent."""
        return 0 if self.learners is None else self.learners.rank
