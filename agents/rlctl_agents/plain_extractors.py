"""Feature extractors of plain models: clipping and attention, which Stable-Baselines3's own layers lack.

The file of such a model holds the code of these classes: it runs with PyTorch and Stable-Baselines3 alone.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor

from rlctl_agents.set_networks import AttentionActor


class Clipped(BaseFeaturesExtractor):
    """The observation in a row, each number within plus or minus ``clip``."""

    def __init__(self, observation_space: spaces.Space[Any], clip: float) -> None:
        super().__init__(observation_space, int(np.prod(observation_space.shape or (1,))))
        self.clip = clip

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """[n, numbers]."""
        return observations.flatten(1).clamp(-self.clip, self.clip)


class Attending(BaseFeaturesExtractor):
    """The logits of ``rlctl_agents.set_networks.AttentionActor``; the layer behind them passes them on.

    Args:
        attention: ``rlctl.bundle.attention.AttentionSpec`` as a mapping.
        clip: of the observation, or None.
    """

    def __init__(self, observation_space: spaces.Space[Any], attention: dict[str, Any], clip: float | None) -> None:
        super().__init__(observation_space, attention["sets"][0][0])
        spec: Any = SimpleNamespace(**attention)
        spec.layout = spec
        self.clip = clip
        self.actor = AttentionActor(spec)

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """[n, choices]."""
        seen = observations if self.clip is None else observations.clamp(-self.clip, self.clip)
        logits: torch.Tensor = self.actor(seen)
        return logits
