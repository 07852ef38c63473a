"""A learner's rank, as a learning algorithm sees it: its actors, the other learners, and requests to stop."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import gymnasium

from rlctl.distributed.launch.signals import StopSignal

if TYPE_CHECKING:
    from rlctl.distributed.comm.polling import RankGroup
    from rlctl.distributed.comm.transition_spec import VectorEnvironment
    from rlctl.distributed.learner.collector import Collector


@dataclass(slots=True)
class LearnerContext:
    """What one learner's rank has.

    Attributes:
        collector: of chunks; None in lock-step.
        lockstep: the environments of all workers; None unless in lock-step.
        stop: whether the learner was asked to end.
        learners: all of the agent; None: this one is alone.
        agent: number of the agent.
        environments: of this learner's actors together.
        ranks: of the agent: learners, actors and what their environments span.
        spaces: observation and action space of an environment, known after the first actor's hello.
    """

    collector: Collector | None = None
    lockstep: VectorEnvironment | None = None
    stop: StopSignal = field(default_factory=StopSignal)
    learners: RankGroup | None = None
    agent: int = 0
    environments: int = 1
    ranks: int = 1
    spaces: tuple[gymnasium.Space[Any], gymnasium.Space[Any]] | None = None

    @property
    def first(self) -> bool:
        """Whether this learner writes TensorBoard files, checkpoints and the saved policy for its agent."""
        return self.number == 0

    @property
    def number(self) -> int:
        """Of this learner within the agent."""
        return 0 if self.learners is None else self.learners.rank

    @property
    def count(self) -> int:
        """Number of learners."""
        return 1 if self.learners is None else self.learners.size

    def total(self, number: int) -> int:
        """The sum of a number over all learners."""
        return number if self.learners is None else self.learners.total(number)
