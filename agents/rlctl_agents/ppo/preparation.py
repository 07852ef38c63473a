"""What options ask of the environments, wherever they are stepped; loads no PyTorch."""

from __future__ import annotations

from typing import Any

from rlctl.core.errors import ConfigError
from rlctl.plugins.registry import make_rule
from rlctl_agents.ppo.options import RESIDUAL, ChoosingOptions
from rlctl_agents.recipe import Prepare


def discounted(gamma: float) -> Prepare:
    """Gives environments the discount that shapes rewards."""

    def prepare(environment: Any, name: str) -> None:
        if hasattr(environment, "gamma"):
            environment.gamma = gamma

    return prepare


def preparation(options: ChoosingOptions) -> Prepare:
    """Gives environments the discount that shapes rewards, and the rule around which choices are made."""

    def prepare(environment: Any, name: str) -> None:
        discounted(options.gamma)(environment, name)
        if options.residual is None:
            return
        if not hasattr(environment, "residual"):
            raise ConfigError(f"campaign {name!r} does not offer it: leave it out", RESIDUAL)
        environment.residual = make_rule(options.residual, "residual", RESIDUAL)

    return prepare
