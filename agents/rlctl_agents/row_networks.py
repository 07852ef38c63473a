"""Parts of networks that read rows of [observation, mask, privileged]."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from stable_baselines3.common.distributions import Distribution
from torch import nn

MASKED_LOGIT = -1e8
"""Small enough for a probability of exactly 0, large enough that 0 times its logarithm is 0 and not NaN."""


class MaskedHeads(Distribution):
    """Independent categorical heads over flat logits in which what is masked has probability 0.

    Stable-Baselines3's own ``MultiCategoricalDistribution`` makes one torch distribution per head and call; this one
    does the same arithmetic in fewer operations.
    """

    def __init__(self, heads: tuple[int, ...]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.heads = heads
        self.log_probs: list[torch.Tensor] = []

    def proba_distribution_net(self, latent_dim: int) -> nn.Linear:
        """The layer that gives the logits of all heads."""
        return nn.Linear(latent_dim, sum(self.heads))

    def proba_distribution(self, logits: torch.Tensor, mask: torch.Tensor) -> MaskedHeads:
        """Set the logits; ``mask`` is above 0.5 where a choice is allowed."""
        masked = torch.where(mask > 0.5, logits, MASKED_LOGIT)
        self.log_probs = [part.log_softmax(dim=-1) for part in torch.split(masked, list(self.heads), dim=-1)]
        return self

    def log_prob(self, actions: torch.Tensor) -> torch.Tensor:
        """Log-probability of the indices of all heads together."""
        columns = torch.split(actions.long().reshape(-1, len(self.heads)), 1, dim=1)
        picked = [part.gather(1, column) for part, column in zip(self.log_probs, columns, strict=True)]
        return torch.cat(picked, dim=1).sum(dim=1)

    def entropy(self) -> torch.Tensor:
        """Sum of the heads' entropies, in nats."""
        log_probs = torch.cat(self.log_probs, dim=1)
        return -(log_probs.exp() * log_probs).sum(dim=1)

    def sample(self) -> torch.Tensor:
        """A random index per head: the largest of log-probability + Gumbel noise."""
        return torch.stack(
            [(part - torch.empty_like(part).exponential_().log()).argmax(1) for part in self.log_probs], 1
        )

    def mode(self) -> torch.Tensor:
        """The likeliest index per head."""
        return torch.stack([part.argmax(dim=1) for part in self.log_probs], dim=1)

    def actions_from_params(
        self, logits: torch.Tensor, mask: torch.Tensor, deterministic: bool = False
    ) -> torch.Tensor:
        """Indices for given logits."""
        return self.proba_distribution(logits, mask).get_actions(deterministic=deterministic)

    def log_prob_from_params(self, logits: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Indices for given logits, and their log-probability."""
        actions = self.actions_from_params(logits, mask)
        return actions, self.log_prob(actions)


class RowTowers(nn.Module, ABC):
    """A tower of the actor and one of the critic, in the place of Stable-Baselines3's extractor; nothing is shared.

    A subclass has the towers, as ``_actor`` and ``_critic``.

    Attributes:
        mask: [n, n_mask], of the rows that the actor has read last, for the distribution that follows.
    """

    mask: torch.Tensor
    latent_dim_pi: int
    latent_dim_vf: int

    def __init__(self, n_obs: int, n_mask: int, clip: float | None) -> None:
        super().__init__()
        self.n_obs, self.n_mask, self.clip = n_obs, n_mask, clip

    def forward_actor(self, rows: torch.Tensor) -> torch.Tensor:
        """Features, or logits, of the observation alone; ``mask`` becomes that of the rows."""
        self.mask = rows[:, self.n_obs : self.n_obs + self.n_mask]
        return self._actor(self._observation(rows))

    def forward_critic(self, rows: torch.Tensor) -> torch.Tensor:
        """Features of the observation and the privileged quantities."""
        return self._critic(self._observation(rows), rows[:, self.n_obs + self.n_mask :])

    def forward(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features of actor and critic."""
        return self.forward_actor(rows), self.forward_critic(rows)

    @abstractmethod
    def _actor(self, observation: torch.Tensor) -> torch.Tensor: ...

    @abstractmethod
    def _critic(self, observation: torch.Tensor, privileged: torch.Tensor) -> torch.Tensor: ...

    def _observation(self, rows: torch.Tensor) -> torch.Tensor:
        observation = rows[:, : self.n_obs]
        return observation if self.clip is None else observation.clamp(-self.clip, self.clip)
