"""Roles of the ranks, learner, actor or rank of an environment: a pure function of their number.

Agents follow one another. Each has its learners first, then its environments of k ranks; the first rank of an
environment is the actor, which alone talks to a learner:

    agent 0: L0 L1 [A0 e e] [A1 e e]   agent 1: L0 L1 [A0 e e] [A1 e e]   spare
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from rlctl.core.errors import ConfigError

if TYPE_CHECKING:
    from rlctl.config.schema import DistributedSection

_KEY = ("train", "distributed")


class Role(StrEnum):
    """Role of a rank."""

    LEARNER = "learner"
    ACTOR = "actor"
    ENVIRONMENT = "environment"
    SPARE = "spare"


@dataclass(frozen=True, slots=True)
class TrainingShape:
    """Agents, learners and environments of a training.

    Attributes:
        agents: that learn side by side.
        learners: of each agent.
        ranks_per_env: of each environment.
    """

    agents: int = 1
    learners: int = 1
    ranks_per_env: int = 1

    @classmethod
    def of(cls, section: DistributedSection) -> TrainingShape:
        """The shape that ``train.distributed`` asks for."""
        return cls(max(1, len(section.agents)), section.learners, section.ranks_per_env)

    @property
    def min_ranks(self) -> int:
        """Ranks with which each learner has an actor.

        >>> TrainingShape(agents=1, learners=2, ranks_per_env=4).min_ranks
        10
        """
        return self.agents * self.learners * (1 + self.ranks_per_env)

    def environments(self, ranks: int) -> int:
        """Environments of each agent with so many ranks; may be too few, even negative."""
        return (ranks // self.agents - self.learners) // self.ranks_per_env

    def used_ranks(self, environments: int) -> int:
        """Ranks that are used where each agent has so many environments."""
        return self.agents * (self.learners + environments * self.ranks_per_env)

    def __str__(self) -> str:
        agents = f"{self.agents} agents of " if self.agents > 1 else ""
        learners = f"{self.learners} learner{'s' if self.learners > 1 else ''}"
        ranks = f"environments of {self.ranks_per_env} ranks" if self.ranks_per_env > 1 else "an actor for each"
        return f"{agents}{learners} and {ranks}"


@dataclass(frozen=True, slots=True)
class RankAssignment:
    """Role and numbers of a rank.

    Attributes:
        rank: in the job.
        role: its role.
        agent: number of its agent; -1 for a spare rank.
        learner: number within the agent, of a learner itself, or of the one to which the rank's actor belongs; -1 for a
            spare rank.
        actor: number within the agent, of an actor itself, or of the one whose environment the rank is part of; -1 for
            learners and spare ranks.
        environment_rank: within the environment's communicator, 0 for actors; -1 for learners and spare ranks.
    """

    rank: int
    role: Role
    agent: int = -1
    learner: int = -1
    actor: int = -1
    environment_rank: int = -1

    def __str__(self) -> str:
        """For messages.

        >>> str(RankAssignment(7, Role.ENVIRONMENT, agent=0, learner=0, actor=1, environment_rank=2))
        'rank 7 (rank 2 of environment 1 of agent 0)'
        """
        what = {
            Role.LEARNER: f"learner {self.learner} of agent {self.agent}",
            Role.ACTOR: f"actor {self.actor} of agent {self.agent}",
            Role.ENVIRONMENT: f"rank {self.environment_rank} of environment {self.actor} of agent {self.agent}",
            Role.SPARE: "spare",
        }
        return f"rank {self.rank} ({what[self.role]})"


def assign_roles(ranks: int, shape: TrainingShape) -> tuple[RankAssignment, ...]:
    """The assignment of each rank, in order; each agent gets the same number of environments, as large as possible.

    Actors are dealt out to the learners of their agent in turn, so that their numbers differ by one at most.

    >>> [one.role.name[0] for one in assign_roles(10, TrainingShape(learners=2, ranks_per_env=4))]
    ['L', 'L', 'A', 'E', 'E', 'E', 'A', 'E', 'E', 'E']

    Raises:
        ConfigError: some learner would be without an actor; it says how many ranks are needed.
    """
    environments = shape.environments(ranks)
    if environments < shape.learners:
        raise ConfigError(
            f"{shape} want at least {shape.min_ranks} ranks, not {ranks}: start more, or lower agents, learners or "
            "ranks_per_env",
            _KEY,
        )
    assigned: list[RankAssignment] = []
    for agent in range(shape.agents):
        assigned += [RankAssignment(len(assigned) + i, Role.LEARNER, agent, i) for i in range(shape.learners)]
        for actor in range(environments):
            for within in range(shape.ranks_per_env):
                role = Role.ENVIRONMENT if within else Role.ACTOR
                assigned.append(RankAssignment(len(assigned), role, agent, actor % shape.learners, actor, within))
    assigned += [RankAssignment(rank, Role.SPARE) for rank in range(len(assigned), ranks)]
    return tuple(assigned)


def idle_ranks_warning(ranks: int, shape: TrainingShape) -> str | None:
    """One line on spare ranks, with the numbers of ranks that would all be used; None: there are none.

    >>> idle_ranks_warning(8, TrainingShape(ranks_per_env=3))
    '1 of 8 ranks has nothing to do: 7 or 10 ranks would all be used'
    """
    environments = shape.environments(ranks)
    used, more = shape.used_ranks(environments), shape.used_ranks(environments + 1)
    spare = ranks - used
    if not spare:
        return None
    verb = "has" if spare == 1 else "have"
    return f"{spare} of {ranks} ranks {verb} nothing to do: {used} or {more} ranks would all be used"
