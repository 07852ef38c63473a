"""The network that attends, for MaskablePPO: as that of ``ppo``, without privileged sight."""

from __future__ import annotations

from typing import Any, cast

from gymnasium import spaces
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy

from rlctl.bundle.attention import AttentionSpec
from rlctl_agents.set_networks import SetTowers, take_logits


class AttentiveMaskablePolicy(MaskableActorCriticPolicy):
    """Policy for ``sb3_contrib.MaskablePPO`` over observations that are made of sets.

    Args:
        attention: ``rlctl.bundle.attention.AttentionSpec`` as a mapping.
    """

    def __init__(
        self,
        observation_space: spaces.Box,
        action_space: spaces.Space[Any],
        lr_schedule: Any,
        *,
        attention: dict[str, Any],
        **kwargs: Any,
    ) -> None:
        self.attention = attention
        super().__init__(observation_space, action_space, lr_schedule, **kwargs)

    def _build_mlp_extractor(self) -> None:
        spec = AttentionSpec.model_validate(self.attention)
        length = spec.layout.length
        self.mlp_extractor = cast(Any, SetTowers(length, length, 0, spec, None))

    def _build(self, lr_schedule: Any) -> None:
        super()._build(lr_schedule)
        take_logits(self, lr_schedule)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        data: dict[str, Any] = super()._get_constructor_parameters()
        return data | {"attention": self.attention}
