"""``train.options`` of MaskablePPO; loads no PyTorch."""

from __future__ import annotations

from rlctl_agents.algorithm import CommonOptions
from rlctl_agents.on_policy.options import ChoiceOptions, OnPolicyOptions


class MaskablePPOConfig(CommonOptions, OnPolicyOptions, ChoiceOptions):
    """``train.options`` of MaskablePPO."""
