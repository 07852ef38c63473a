"""Twin delayed deep deterministic policy gradients (Fujimoto et al., arXiv:1802.09477)."""

from __future__ import annotations

from rlctl.config.schema import Config
from rlctl_agents.algorithm import AlgorithmSpec, Builder, parse_options
from rlctl_agents.sb3_learner import StableBaselinesLearner
from rlctl_agents.td3.config import TD3Config


def td3(config: Config) -> StableBaselinesLearner:
    """The learner ``td3``."""
    options = parse_options(TD3Config, config)

    def builder() -> Builder:
        from rlctl_agents.td3.builder import build

        return build(options)

    spec = AlgorithmSpec(
        options=options,
        builder=builder,
        check=lambda game: None,
        network=lambda game: options.manifest_network("squashed"),
    )
    return StableBaselinesLearner(config, spec)
