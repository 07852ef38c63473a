"""A learner's rank, as a learning algorithm sees it: its actors, the other learners, and requests to stop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from rlctl.distributed.comm.polling import PolledCollectives

if TYPE_CHECKING:
    from mpi4py.MPI import Intracomm

    from rlctl.distributed.launch.signals import StopRequest
    from rlctl.distributed.learner.collector import Collector


class LearnerGroup:
    """Reductions over the learners of an agent, which sleep while they wait for each other.

    Args:
        comm: of the learners, for this alone.
        limit_s: the longest nap.
    """

    def __init__(self, comm: Intracomm, limit_s: float) -> None:
        self.size, self.rank = comm.size, comm.rank
        self._comm = PolledCollectives(comm, limit_s)

    def sum(self, array: NDArray[Any]) -> None:
        """Replace the array by the sum over all learners."""
        self._comm.allreduce(array)

    def max(self, array: NDArray[Any]) -> None:
        """Replace the array by the elementwise maximum over all learners."""
        from mpi4py import MPI

        self._comm.allreduce(array, MPI.MAX)

    def total(self, count: int) -> int:
        """The sum of a count over all learners."""
        array = np.array([count], np.int64)
        self.sum(array)
        return int(array[0])

    def gather(self, note: Any) -> list[Any] | None:
        """The notes of all learners, which JSON can hold, on the first one; None elsewhere."""
        return self._comm.gather_notes(note)

    def broadcast(self, note: Any) -> Any:
        """The first learner's note, which JSON can hold, on all."""
        return self._comm.bcast_note(note)


@dataclass(slots=True)
class LearnerContext:
    """What one learner's rank has.

    Attributes:
        agent: number of the agent.
        learners: all of the agent; None: this one is alone.
        actors: numbers of this learner's actors.
        environments: how many they have together.
        stop: whether the learner was asked to end.
        collector: of chunks; None in lock-step.
        comm: of the learners and actors of the agent, for lock-step.
        workers: ranks in ``comm`` of this learner's actors, in order of their numbers.
        limit_s: the longest nap of a wait.
        spaces: observation and action space of an environment, known after the first actor's hello.
    """

    agent: int
    learners: LearnerGroup | None
    actors: list[int]
    environments: int
    stop: StopRequest
    collector: Collector | None
    comm: Intracomm
    workers: list[int]
    limit_s: float
    spaces: tuple[gymnasium.Space[Any], gymnasium.Space[Any]] | None = None

    @property
    def first(self) -> bool:
        """Whether this learner writes TensorBoard files, checkpoints and the saved policy for its agent."""
        return self.learners is None or self.learners.rank == 0

    @property
    def number(self) -> int:
        """Of this learner within the agent."""
        return 0 if self.learners is None else self.learners.rank
