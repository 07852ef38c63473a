"""``train.options`` of MaskablePPO; loads no PyTorch."""

from __future__ import annotations

from rlctl_agents.algorithm import LearnerOptions
from rlctl_agents.on_policy.options import ChoiceOptions, OnPolicyOptions


class MaskablePPOConfig(LearnerOptions, OnPolicyOptions, ChoiceOptions):
    """``train.options`` of MaskablePPO."""
