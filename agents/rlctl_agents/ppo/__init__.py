"""Proximal policy optimisation (Schulman et al., arXiv:1707.06347), with masks and a critic that sees the twin."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rlctl.config.schema import Config
    from rlctl.environments.reward_env import Game
    from rlctl_agents.algorithm import Builder
    from rlctl_agents.sb3_learner import StableBaselinesLearner


def ppo(config: Config) -> StableBaselinesLearner:
    """The learner ``ppo``."""
    # Here, so that Stable-Baselines3 loads the policy class from this package without rlctl.
    from gymnasium.spaces import Discrete, MultiDiscrete

    from rlctl.bundle.actions import action_heads
    from rlctl.environments.reward_env import game_spaces
    from rlctl_agents.algorithm import AlgorithmSpec, parse_options
    from rlctl_agents.ppo.config import PPOConfig
    from rlctl_agents.sb3_learner import StableBaselinesLearner

    options = parse_options(PPOConfig, config)

    def check(game: Game) -> None:
        options.check_memory(config)
        _, actions = game_spaces(game, config.seed)
        options.check_bias(sum(action_heads(actions)) if isinstance(actions, Discrete | MultiDiscrete) else 0)
        options.check_choices(config, game)

    def builder() -> Builder:
        from rlctl_agents.ppo.builder import build

        return build(options)

    spec = AlgorithmSpec(
        options=options,
        builder=builder,
        check=check,
        network=lambda game: options.manifest_network(options.net_arch, game, config.seed),
        with_mask=True,
        with_privileged=True,
        mask_in_row=True,
        chunk_steps=options.chunk_steps,
        bootstrap=options.bootstrap,
        residual=options.residual,
        attends=options.network == "attention",
    )
    return StableBaselinesLearner(config, spec)
