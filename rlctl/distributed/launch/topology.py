"""Who is learner, actor and rank of an environment: a pure function of the number of ranks.

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
    """What a rank does."""

    LEARNER = "learner"
    ACTOR = "actor"
    ENVIRONMENT = "environment"
    SPARE = "spare"


@dataclass(frozen=True, slots=True)
class Shape:
    """What a training wants of its ranks.

    Attributes:
        agents: that learn side by side.
        learners: of each agent.
        ranks_per_env: of each environment.
    """

    agents: int = 1
    learners: int = 1
    ranks_per_env: int = 1

    @classmethod
    def of(cls, section: DistributedSection) -> Shape:
        """What ``train.distributed`` asks for."""
        return cls(max(1, len(section.agents)), section.learners, section.ranks_per_env)

    @property
    def smallest(self) -> int:
        """Ranks with which each learner has an actor.

        >>> Shape(agents=1, learners=2, ranks_per_env=4).smallest
        10
        """
        return self.agents * self.learners * (1 + self.ranks_per_env)

    def groups(self, world: int) -> int:
        """Environments of each agent in a world of so many ranks; may be too few, even negative."""
        return (world // self.agents - self.learners) // self.ranks_per_env

    def used(self, groups: int) -> int:
        """Ranks that have something to do where each agent has so many environments."""
        return self.agents * (self.learners + groups * self.ranks_per_env)


@dataclass(frozen=True, slots=True)
class Place:
    """What one rank of the world is.

    Attributes:
        rank: in the world.
        role: what it does.
        agent: whose; -1 of a spare rank.
        learner: number within the agent, of a learner itself, or of the one to which the rank's actor belongs; -1 of a
            spare rank.
        actor: number within the agent, of an actor itself, or of the one whose environment the rank is part of; -1 of
            learners and spare ranks.
        environment_rank: within the environment's communicator, 0 for actors; -1 of learners and spare ranks.
    """

    rank: int
    role: Role
    agent: int = -1
    learner: int = -1
    actor: int = -1
    environment_rank: int = -1

    def __str__(self) -> str:
        """As people are told of it.

        >>> str(Place(7, Role.ENVIRONMENT, agent=0, learner=0, actor=1, environment_rank=2))
        'rank 7 (rank 2 of environment 1 of agent 0)'
        """
        what = {
            Role.LEARNER: f"learner {self.learner} of agent {self.agent}",
            Role.ACTOR: f"actor {self.actor} of agent {self.agent}",
            Role.ENVIRONMENT: f"rank {self.environment_rank} of environment {self.actor} of agent {self.agent}",
            Role.SPARE: "spare",
        }
        return f"rank {self.rank} ({what[self.role]})"


def split(world: int, shape: Shape) -> tuple[Place, ...]:
    """The place of each rank, in order of rank; each agent gets as many environments as all can have.

    Actors are dealt out to the learners of their agent in turn, so that their numbers differ by one at most.

    >>> [place.role.name[0] for place in split(10, Shape(learners=2, ranks_per_env=4))]
    ['L', 'L', 'A', 'E', 'E', 'E', 'A', 'E', 'E', 'E']

    Raises:
        ConfigError: some learner would be without an actor; it says the smallest world.
    """
    groups = shape.groups(world)
    if groups < shape.learners:
        raise ConfigError(
            f"{_described(shape)} want at least {shape.smallest} ranks, not {world}: start more, or lower agents, "
            "learners or ranks_per_env",
            _KEY,
        )
    places: list[Place] = []
    for agent in range(shape.agents):
        places += [Place(len(places) + i, Role.LEARNER, agent, i) for i in range(shape.learners)]
        for actor in range(groups):
            learner = actor % shape.learners
            for within in range(shape.ranks_per_env):
                role = Role.ENVIRONMENT if within else Role.ACTOR
                places.append(Place(len(places), role, agent, learner, actor, within))
    places += [Place(rank, Role.SPARE) for rank in range(len(places), world)]
    return tuple(places)


def waste(world: int, shape: Shape) -> str | None:
    """One line on ranks that have nothing to do, and the numbers of ranks that would all be used; None: there are none.

    >>> waste(8, Shape(ranks_per_env=3))
    '1 of 8 ranks has nothing to do: 7 or 10 ranks would all be used'
    """
    groups = shape.groups(world)
    spare = world - shape.used(groups)
    if not spare:
        return None
    verb = "has" if spare == 1 else "have"
    return (
        f"{spare} of {world} ranks {verb} nothing to do: {shape.used(groups)} or {shape.used(groups + 1)} ranks would "
        "all be used"
    )


def _described(shape: Shape) -> str:
    agents = f"{shape.agents} agents of " if shape.agents > 1 else ""
    learners = f"{shape.learners} learner{'s' if shape.learners > 1 else ''}"
    ranks = f" and environments of {shape.ranks_per_env} ranks" if shape.ranks_per_env > 1 else " and an actor for each"
    return f"{agents}{learners}{ranks}"
