"""A learner's rank, as a learning algorithm sees it: its actors, the other learners, and requests to stop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gymnasium

if TYPE_CHECKING:
    from mpi4py.MPI import Intracomm

    from rlctl.distributed.comm.polling import RankGroup
    from rlctl.distributed.launch.signals import StopSignal
    from rlctl.distributed.learner.collector import Collector


@dataclass(slots=True)
class LearnerContext:
    """What one learner's rank has.

    Attributes:
        agent: number of the agent.
        learners: all of the agent; None: this one is alone.
        environments: of this learner's actors together.
        stop: whether the learner was asked to end.
        collector: of chunks; None in lock-step.
        comm: of the learners and actors of the agent, for lock-step.
        workers: ranks in ``comm`` of this learner's actors, in order of their numbers.
        limit_s: the longest nap of a wait.
        spaces: observation and action space of an environment, known after the first actor's hello.
    """

    agent: int
    learners: RankGroup | None
    environments: int
    stop: StopSignal
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
