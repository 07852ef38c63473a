"""Towers over sets: an actor that attends, and a critic that pools and also sees what only the twin knows.

The actor is what ``rlctl.bundle.attention`` computes in NumPy, with the same names of weights.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from rlctl.bundle.attention import ABSENT, AttentionSpec
from rlctl.core.sets import SetLayout
from rlctl_agents.row_networks import RowTowers

FAVOUR = 4.0
"""Initial factor of what a rule favours: it has exp(4) times the probability of any other choice."""


class Layer(nn.Module):
    """The choices look at all tokens, then at themselves."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.each = heads, width // heads
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: torch.Tensor, tokens: torch.Tensor, absent: torch.Tensor) -> torch.Tensor:
        """New tokens of the choices.

        Args:
            x: [n, choices, width].
            tokens: [n, all, width].
            absent: [n, 1, 1, all], which tokens stand for nothing.
        """
        n, choices, width = x.shape
        query = self.query(x).view(n, choices, self.heads, self.each).transpose(1, 2)
        key = self.key(tokens).view(n, -1, self.heads, self.each).permute(0, 2, 3, 1)
        value = self.value(tokens).view(n, -1, self.heads, self.each).transpose(1, 2)
        scores = torch.softmax((query @ key / math.sqrt(self.each)).masked_fill(absent, float(ABSENT)), dim=3)
        x = x + self.out((scores @ value).transpose(1, 2).reshape(n, choices, width))
        x = x + self.narrow(torch.relu(self.wide(x)))
        return x


class AttentionActor(nn.Module):
    """Logits of observations; at first those of a rule, if there is one, and 0 otherwise."""

    def __init__(self, spec: AttentionSpec) -> None:
        super().__init__()
        self.spec = spec
        width = spec.width
        self.once = nn.Linear(spec.once, width, bias=False) if spec.once else None
        read = spec.sets if spec.layers else spec.sets[:1]
        self.embed = nn.ModuleList(nn.Linear(numbers, width) for _, numbers in read)
        self.layers = nn.ModuleList(Layer(width, spec.heads) for _ in range(spec.layers))
        self.score = nn.Linear(width, 1)
        self.favour = nn.Parameter(torch.full((1,), FAVOUR))

    def begin(self) -> None:
        """Zero the scores: at first the rule decides, or chance without one."""
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        """Logits [n, choices]."""
        spec = self.spec
        sets = split(observation, spec.layout)[: len(self.embed)]
        tokens = [embed(x) for embed, x in zip(self.embed, sets, strict=True)]
        if self.once is not None:
            once = self.once(observation[:, : spec.once])[:, None]
            tokens = [token + once for token in tokens]
        tokens = [torch.relu(token) for token in tokens]
        absent = ~torch.cat([x[:, :, 0] > 0.5 for x in sets], dim=1)[:, None, None]
        for layer in self.layers:
            tokens[0] = layer(tokens[0], torch.cat(tokens, dim=1), absent)
        logits: torch.Tensor = self.score(tokens[0]).squeeze(2)
        if spec.prior is not None:
            logits = logits + self.favour * sets[0][:, :, spec.prior]
        return logits

    def weights(self) -> list[tuple[str, torch.Tensor]]:
        """By the names and in the order of ``AttentionSpec.shapes``."""
        found: dict[str, torch.Tensor] = {}
        if self.once is not None:
            found["once.weight"] = self.once.weight
        for i, embed in enumerate(self.embed):
            found |= {f"set{i}.{name}": tensor for name, tensor in embed.named_parameters()}
        for i, layer in enumerate(self.layers):
            found |= {f"layer{i}.{name}": tensor for name, tensor in layer.named_parameters()}
        found |= {"score.weight": self.score.weight, "score.bias": self.score.bias, "favour": self.favour}
        return [(name, found[name]) for name in self.spec.shapes()]


class PooledCritic(nn.Module):
    """Features of what is there once, of each set's mean and greatest, and of more."""

    def __init__(self, layout: SetLayout, more: int, width: int) -> None:
        super().__init__()
        self.layout = layout
        self.embed = nn.ModuleList(nn.Linear(numbers, width) for _, numbers in layout.sets)
        pooled = layout.once + 2 * width * len(layout.sets) + more
        self.dense = nn.Sequential(nn.Linear(pooled, 2 * width), nn.Tanh(), nn.Linear(2 * width, 2 * width), nn.Tanh())

    def forward(self, observation: torch.Tensor, more: torch.Tensor) -> torch.Tensor:
        """Features [n, 2 width]."""
        parts = [observation[:, : self.layout.once], more]
        for embed, x in zip(self.embed, split(observation, self.layout), strict=True):
            there = x[:, :, :1]
            y = torch.relu(embed(x)) * there
            parts += [y.sum(dim=1) / there.sum(dim=1).clamp(min=1.0), y.amax(dim=1)]
        features: torch.Tensor = self.dense(torch.cat(parts, dim=1))
        return features


class SetTowers(RowTowers):
    """Towers over sets; what the actor gives are logits already."""

    def __init__(self, row_length: int, n_obs: int, n_mask: int, spec: AttentionSpec, clip: float | None) -> None:
        super().__init__(n_obs, n_mask, clip)
        if spec.layout.length != n_obs:
            raise ValueError(f"sets of {spec.layout.length} numbers, but observations have {n_obs}")
        self.actor = AttentionActor(spec)
        self.critic = PooledCritic(spec.layout, row_length - n_obs - n_mask, spec.width)
        self.latent_dim_pi, self.latent_dim_vf = spec.layout.choices, 2 * spec.width

    def _actor(self, observation: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.actor(observation)
        return logits

    def _critic(self, observation: torch.Tensor, privileged: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.critic(observation, privileged)
        return features


def split(observation: torch.Tensor, layout: SetLayout) -> list[torch.Tensor]:
    """The sets, each [n, rows, numbers]."""
    sizes = [rows * numbers for rows, numbers in layout.sets]
    parts = torch.split(observation[:, layout.once :], sizes, dim=1)
    return [part.reshape(-1, *shape) for part, shape in zip(parts, layout.sets, strict=True)]


def take_logits(policy: Any, lr_schedule: Any) -> None:
    """Use the logits of the towers as they are: without an action layer, nor its weights in the optimiser."""
    policy.action_net = nn.Identity()
    policy.mlp_extractor.actor.begin()
    policy.optimizer = policy.optimizer_class(policy.parameters(), lr=lr_schedule(1), **policy.optimizer_kwargs)
