"""Environments with rewards, which are no campaigns: they can be trained on and compared, and no more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeGuard

import gymnasium

from rlctl.core.campaign import CampaignFactory
from rlctl.core.machine import Capacity

if TYPE_CHECKING:
    from mpi4py.MPI import Intracomm


class RewardFactory(Protocol):
    """What a package may register under ``rlctl.campaigns`` in place of a ``CampaignFactory``.

    It has no tasks, hence no task model, no cost and nothing to steer.

    It may have an attribute ``collective``: whether its environments take the communicator of the MPI ranks that they
    span; without it they do not. And ``own_observation_space``, of which ``observation_space`` is the flat form: the
    file for Stable-Baselines3 reads that where it can.
    """

    name: str
    version: int
    observation_space: gymnasium.Space[Any]
    action_space: gymnasium.Space[Any]

    def environment(self, comm: Intracomm | None = None) -> gymnasium.Env[Any, Any]:
        """One environment, observations in a row.

        Args:
            comm: of the ranks that make it together, and call the same on it; None: this process alone. Given only
                where ``collective`` is true.
        """

    def vector_env(self, num_envs: int, seed: int, capacity: Capacity) -> gymnasium.vector.VectorEnv[Any, Any, Any]:
        """Many of them, with autoreset in the same step."""


Game = CampaignFactory | RewardFactory
"""What can be trained on."""


def rewarded(game: Game) -> TypeGuard[RewardFactory]:
    """Whether it is an environment with rewards."""
    return hasattr(game, "environment")


def collective(game: Game) -> TypeGuard[RewardFactory]:
    """Whether its environments can span several MPI ranks."""
    return rewarded(game) and bool(getattr(game, "collective", False))


def game_spaces(game: Game, seed: int) -> tuple[gymnasium.Space[Any], gymnasium.Space[Any]]:
    """What a policy observes and what it answers."""
    if rewarded(game):
        return game.observation_space, game.action_space
    campaign = game.campaign(seed)  # type: ignore[union-attr]
    return campaign.observation_space, campaign.action_space
