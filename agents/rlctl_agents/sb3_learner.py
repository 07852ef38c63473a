"""The learners that rlctl ships: options are checked without PyTorch, which is loaded to learn."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rlctl.bundle.saved_policy import require_savable
from rlctl.bundle.spaces import describe
from rlctl.config.schema import Config
from rlctl.config.validation import check_options
from rlctl.core.errors import ConfigError, PolicyError
from rlctl.environments.reward_env import Game, game_spaces
from rlctl.plugins.learner import Learner
from rlctl_agents.action_support import require_learned
from rlctl_agents.algorithm import OPTIONS, LearnerOptions
from rlctl_agents.dqn.config import DQNConfig
from rlctl_agents.maskable_ppo.config import MaskablePPOConfig
from rlctl_agents.ppo.config import PPOConfig
from rlctl_agents.recurrent_ppo.config import RecurrentPPOConfig
from rlctl_agents.sac.config import SACConfig
from rlctl_agents.starting_policy import check_start
from rlctl_agents.td3.config import TD3Config

if TYPE_CHECKING:
    from rlctl.distributed.learner.context import LearnerContext
    from rlctl.monitoring.progress import Progress


class StableBaselinesLearner(Learner):
    """An algorithm of Stable-Baselines3 or sb3-contrib; ``kind`` are its options."""

    def __init__(self, kind: type[LearnerOptions], config: Config) -> None:
        super().__init__(config)
        self.options = check_options(kind, config.training.options, ".".join(OPTIONS))
        self.with_mask, self.with_privileged = kind.with_mask, kind.with_privileged
        self.chunk_steps = self.options.chunk_steps

    def check(self, game: Game) -> None:
        """Raise ConfigError if the campaign cannot be trained, or the policy not saved in the end."""
        observation, action = game_spaces(game, self.config.seed)
        require_learned(self.section.algorithm, action)
        self.options.check(self.config, game)
        try:
            require_savable(
                {
                    "name": self.section.algorithm,
                    "campaign": {"name": game.name, "version": game.version},
                    "spaces": describe(observation, action),
                    "network": self.options.manifest_network(game, self.config.seed),
                    "deterministic": True,
                }
            )
        except PolicyError as error:
            raise ConfigError(str(error), ("train", "algorithm")) from error
        check_start(self.config, self.options, game)

    def env_setup(self, environment: Any, campaign: str) -> Any:
        """See ``LearnerOptions.env_setup``."""
        return self.options.env_setup(environment, campaign)

    def train(self, out: Path, resume: bool, progress: Progress) -> Path:
        """Train in this process; see ``rlctl_agents.training``."""
        return cast(Path, self.train_on_ranks(out, resume, progress, None))

    def train_on_ranks(self, out: Path, resume: bool, progress: Progress, ranks: LearnerContext | None) -> Path | None:
        """Train on a learner's rank; None: in this process."""
        from rlctl_agents.training import train

        return train(self.config, self.options, out, resume, progress, ranks)


ppo = partial(StableBaselinesLearner, PPOConfig)
maskable_ppo = partial(StableBaselinesLearner, MaskablePPOConfig)
recurrent_ppo = partial(StableBaselinesLearner, RecurrentPPOConfig)
sac = partial(StableBaselinesLearner, SACConfig)
td3 = partial(StableBaselinesLearner, TD3Config)
dqn = partial(StableBaselinesLearner, DQNConfig)
