"""What PPO's options ask of the environments, wherever they are stepped; loads no PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rlctl.errors import ConfigError
from rlctl.registry import make_rule
from rlctl.vector import CampaignVectorEnv
from rlctl_agents.ppo.options import RESIDUAL, Options


def preparation(options: Options) -> Callable[[Any, str], tuple[int, ...]]:
    """Gives environments the discount that shapes rewards, and the rule around which choices are made.

    It is called with a vector environment and the campaign's name, and returns the choices that mean "as the rule
    says"; none without a rule.
    """

    def prepare(vector: Any, name: str) -> tuple[int, ...]:
        if hasattr(vector, "gamma"):
            vector.gamma = options.gamma
        if options.residual is None:
            return ()
        if not isinstance(vector, CampaignVectorEnv):
            raise ConfigError(f"campaign {name!r} does not offer it: leave it out", RESIDUAL)
        vector.residual = make_rule(options.residual, "residual", RESIDUAL)
        vector.reset()
        return vector.centre

    return prepare
