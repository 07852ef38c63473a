"""MaskablePPO of sb3-contrib: PPO on what the environment shows, with masks beside it."""

from __future__ import annotations

from rlctl.config.schema import Config
from rlctl.environments.reward_env import Game
from rlctl_agents.algorithm import AlgorithmSpec, Builder, parse_options
from rlctl_agents.maskable_ppo.config import MaskablePPOConfig
from rlctl_agents.sb3_learner import StableBaselinesLearner


def maskable_ppo(config: Config) -> StableBaselinesLearner:
    """The learner ``maskable_ppo``."""
    options = parse_options(MaskablePPOConfig, config)

    def check(game: Game) -> None:
        options.check_memory(config)
        options.check_choices(config, game)

    def builder() -> Builder:
        from rlctl_agents.maskable_ppo.builder import build

        return build(options)

    spec = AlgorithmSpec(
        options=options,
        builder=builder,
        check=check,
        network=lambda game: options.manifest_network(options.net_arch, game, config.seed),
        with_mask=True,
        chunk_steps=options.chunk_steps,
        bootstrap=options.bootstrap,
        residual=options.residual,
        attends=options.network == "attention",
    )
    return StableBaselinesLearner(config, spec)
