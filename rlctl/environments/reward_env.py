"""Environments with rewards that are no campaigns: they can be trained on and compared, and no more."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, TypeGuard

import gymnasium

from rlctl.core.campaign_factory import CampaignFactory
from rlctl.core.machine import Capacity

if TYPE_CHECKING:
    from mpi4py.MPI import Intracomm


class RewardFactory(ABC):
    """What a package may register under ``rlctl.campaigns`` in place of a ``CampaignFactory``; a subclass.

    It has no tasks, hence no task model, no cost and nothing to steer.

    Attributes:
        collective: whether its environments take the communicator of the MPI ranks that they span.
        own_observation_space: of which ``observation_space`` is the flat form, for the file for Stable-Baselines3;
            None: it is the same.
    """

    name: str
    version: int = 1
    observation_space: gymnasium.Space[Any]
    action_space: gymnasium.Space[Any]
    collective: bool = False
    own_observation_space: gymnasium.Space[Any] | None = None

    @abstractmethod
    def environment(self, comm: Intracomm | None = None) -> gymnasium.Env[Any, Any]:
        """One environment, observations in a row.

        Args:
            comm: of the ranks that make it together, and call the same on it; None: this process alone. Given only
                where ``collective`` is true.
        """

    @abstractmethod
    def vector_env(self, num_envs: int, seed: int, capacity: Capacity) -> gymnasium.vector.VectorEnv[Any, Any, Any]:
        """Many of them, with autoreset in the same step."""


Game = CampaignFactory | RewardFactory
"""What can be trained on."""


def rewarded(game: Game) -> TypeGuard[RewardFactory]:
    """Whether it is an environment with rewards."""
    return isinstance(game, RewardFactory)


def collective(game: Game) -> TypeGuard[RewardFactory]:
    """Whether its environments can span several MPI ranks."""
    return isinstance(game, RewardFactory) and game.collective


def game_spaces(game: Game, seed: int) -> tuple[gymnasium.Space[Any], gymnasium.Space[Any]]:
    """What a policy observes and what it answers."""
    if isinstance(game, RewardFactory):
        return game.observation_space, game.action_space
    campaign = game.campaign(seed)
    return campaign.observation_space, campaign.action_space
