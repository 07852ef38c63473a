"""PPO's network: an actor that sees what a real campaign shows, a critic that also sees what only the twin knows.

The mask and the privileged quantities travel inside the observation, so that Stable-Baselines3's own PPO trains this
policy, and its own ``PPO.load`` reads it wherever this package can be imported, without ``rlctl`` unless it attends.
Asymmetric actor and critic: Pinto et al., arXiv:1710.06542.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import create_mlp
from torch import nn

from rlctl_agents.row_networks import MaskedHeads, RowTowers


class Towers(RowTowers):
    """Perceptrons."""

    def __init__(self, row_length: int, n_obs: int, n_mask: int, net_arch: list[int], clip: float | None) -> None:
        super().__init__(n_obs, n_mask, clip)
        self.policy_net = nn.Sequential(*create_mlp(n_obs, -1, net_arch, nn.Tanh))
        self.value_net = nn.Sequential(*create_mlp(row_length - n_mask, -1, net_arch, nn.Tanh))
        self.latent_dim_pi = net_arch[-1] if net_arch else n_obs
        self.latent_dim_vf = net_arch[-1] if net_arch else row_length - n_mask

    def _actor(self, observation: torch.Tensor) -> torch.Tensor:
        latent: torch.Tensor = self.policy_net(observation)
        return latent

    def _critic(self, observation: torch.Tensor, privileged: torch.Tensor) -> torch.Tensor:
        latent: torch.Tensor = self.value_net(torch.cat([observation, privileged], dim=1))
        return latent


class PrivilegedPolicy(ActorCriticPolicy):
    """Policy for ``stable_baselines3.PPO``, with masks of the choices of a MultiDiscrete action space, or none.

    Args:
        n_obs: numbers in the observation part.
        n_mask: numbers in the mask part: the choices of all heads, or 0.
        net_arch: hidden widths of each tower.
        logit_bias: initial biases of the flat logits; None means 0.
        observation_clip: the observation is clipped to plus or minus this.
        attention: ``rlctl.bundle.attention.AttentionSpec`` as a mapping, for observations that are made of sets; then
            ``net_arch`` does not count. None: perceptrons.
    """

    def __init__(
        self,
        observation_space: spaces.Box,
        action_space: spaces.Space[Any],
        lr_schedule: Any,
        *,
        n_obs: int,
        n_mask: int,
        net_arch: list[int] | None = None,
        logit_bias: list[float] | None = None,
        observation_clip: float | None = None,
        attention: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.attention = attention
        choices = int(np.sum(action_space.nvec)) if isinstance(action_space, spaces.MultiDiscrete) else 0
        if n_mask not in (0, choices):
            raise ValueError(f"n_mask is {n_mask}, but the heads have {choices} choices")
        self.n_obs, self.n_mask, self.logit_bias, self.observation_clip = n_obs, n_mask, logit_bias, observation_clip
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            net_arch=[128, 128] if net_arch is None else net_arch,
            **kwargs,
        )

    def _get_action_dist_from_latent(self, latent_pi: torch.Tensor) -> Distribution:
        if not isinstance(self.action_dist, MaskedHeads):
            return super()._get_action_dist_from_latent(latent_pi)
        mask = cast(RowTowers, self.mlp_extractor).mask
        return self.action_dist.proba_distribution(self.action_net(latent_pi), mask)

    def _build_mlp_extractor(self) -> None:
        sizes, clip = (self.features_dim, self.n_obs, self.n_mask), self.observation_clip
        towers: RowTowers
        if self.attention is None:
            towers = Towers(*sizes, cast(list[int], self.net_arch), clip)
        else:
            from rlctl.bundle.attention import AttentionSpec
            from rlctl_agents.set_networks import SetTowers

            towers = SetTowers(*sizes, AttentionSpec.model_validate(self.attention), clip)
        self.mlp_extractor = cast(Any, towers)

    def _build(self, lr_schedule: Any) -> None:
        """Build as Stable-Baselines3 does (orthogonal, small action head), then exchange the distribution."""
        super()._build(lr_schedule)
        if self.attention is not None:
            from rlctl_agents.set_networks import take_logits

            take_logits(self, lr_schedule)
        if self.n_mask:
            heads = cast(spaces.MultiDiscrete, self.action_space).nvec
            self.action_dist = MaskedHeads(tuple(int(n) for n in heads))
        if self.logit_bias is not None:
            set_bias(self.action_net, self.logit_bias)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        data: dict[str, Any] = super()._get_constructor_parameters()
        names = ("n_obs", "n_mask", "logit_bias", "observation_clip", "attention")
        return data | {name: getattr(self, name) for name in names}


def set_bias(layer: nn.Module, bias: list[float]) -> None:
    """Begin with these logits; raise ValueError if they are more or fewer."""
    linear = cast(nn.Linear, layer)
    if len(bias) != linear.out_features:
        raise ValueError(f"logit_bias has {len(bias)} numbers for {linear.out_features} choices")
    with torch.no_grad():
        linear.bias.copy_(torch.tensor(bias))
