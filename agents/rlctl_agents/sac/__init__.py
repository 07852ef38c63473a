"""Soft actor-critic (Haarnoja et al., arXiv:1801.01290)."""

from __future__ import annotations

from rlctl.config.schema import Config
from rlctl_agents.algorithm import AlgorithmSpec, Builder, parse_options
from rlctl_agents.sac.config import SACConfig
from rlctl_agents.sb3_learner import StableBaselinesLearner


def sac(config: Config) -> StableBaselinesLearner:
    """The learner ``sac``."""
    options = parse_options(SACConfig, config)

    def builder() -> Builder:
        from rlctl_agents.sac.builder import build

        return build(options)

    spec = AlgorithmSpec(
        options=options,
        builder=builder,
        check=lambda game: options.check_entropy(),
        network=lambda game: options.manifest_network("squashed_gaussian"),
    )
    return StableBaselinesLearner(config, spec)
