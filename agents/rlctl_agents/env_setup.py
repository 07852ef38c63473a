"""What options ask of environments, wherever they are stepped; loads no PyTorch."""

from __future__ import annotations

from typing import Any

from rlctl.core.errors import ConfigError
from rlctl.plugins.registry import make_rule
from rlctl_agents.algorithm import OPTIONS, AlgorithmSpec


def env_setup(spec: AlgorithmSpec, environment: Any, campaign: str) -> None:
    """Give an environment the discount that shapes rewards, and the rule around which choices are made.

    Args:
        environment: or a vector of them.
        campaign: its name, for the message.

    Raises:
        ConfigError: the environment knows no choices around a rule.
    """
    if hasattr(environment, "gamma"):
        environment.gamma = spec.options.gamma
    if spec.residual is None:
        return
    where = (*OPTIONS, "residual")
    if not hasattr(environment, "residual"):
        raise ConfigError(f"campaign {campaign!r} does not offer it: leave it out", where)
    environment.residual = make_rule(spec.residual, "residual", where)
