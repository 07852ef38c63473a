"""RecurrentPPO of sb3-contrib, for what must be remembered; it knows no masks: the campaign replaces masked choices."""

from __future__ import annotations

from rlctl.config.schema import Config
from rlctl.core.errors import ConfigError
from rlctl.environments.reward_env import Game
from rlctl_agents.algorithm import AlgorithmSpec, Builder, parse_options
from rlctl_agents.recurrent_ppo.config import RecurrentPPOConfig
from rlctl_agents.sb3_learner import StableBaselinesLearner


def recurrent_ppo(config: Config) -> StableBaselinesLearner:
    """The learner ``recurrent_ppo``."""
    options = parse_options(RecurrentPPOConfig, config)

    def check(game: Game) -> None:
        options.check_memory(config)
        if config.train is not None and config.train.distributed.learners > 1:
            raise ConfigError("recurrent_ppo learns on one learner: set it to 1", ("train", "distributed", "learners"))

    def builder() -> Builder:
        from rlctl_agents.recurrent_ppo.builder import build

        return build(options)

    spec = AlgorithmSpec(
        options=options,
        builder=builder,
        check=check,
        network=lambda game: {"hidden": options.net_arch, "lstm": options.lstm_units},
        chunk_steps=options.chunk_steps,
        bootstrap=options.bootstrap,
    )
    return StableBaselinesLearner(config, spec)
