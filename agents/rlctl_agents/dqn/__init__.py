"""Deep Q-networks (Mnih et al. 2015)."""

from __future__ import annotations

from rlctl.config.schema import Config
from rlctl_agents.algorithm import AlgorithmSpec, Builder, parse_options
from rlctl_agents.dqn.config import DQNConfig
from rlctl_agents.sb3_learner import StableBaselinesLearner


def dqn(config: Config) -> StableBaselinesLearner:
    """The learner ``dqn``."""
    options = parse_options(DQNConfig, config)

    def builder() -> Builder:
        from rlctl_agents.dqn.builder import build

        return build(options)

    spec = AlgorithmSpec(
        options=options,
        builder=builder,
        check=lambda game: options.check_exploration(),
        network=lambda game: options.manifest_network("plain"),
    )
    return StableBaselinesLearner(config, spec)
