"""The learners that rlctl ships: options are checked without PyTorch, which is loaded to learn."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rlctl.bundle.saved_policy import require_savable
from rlctl.bundle.spaces import describe
from rlctl.config.schema import Config
from rlctl.core.errors import ConfigError, PolicyError
from rlctl.environments.reward_env import Game, game_spaces
from rlctl.plugins.learner import Learner
from rlctl_agents.action_support import require_learned
from rlctl_agents.algorithm import AlgorithmSpec
from rlctl_agents.env_setup import env_setup
from rlctl_agents.starting_policy import starting_policy

if TYPE_CHECKING:
    from rlctl.distributed.learner.context import LearnerContext
    from rlctl.monitoring.progress import Progress


class StableBaselinesLearner(Learner):
    """An algorithm of Stable-Baselines3 or sb3-contrib."""

    def __init__(self, config: Config, spec: AlgorithmSpec) -> None:
        super().__init__(config)
        self.spec = spec
        self.with_mask, self.with_privileged = spec.with_mask, spec.with_privileged
        self.chunk_steps = spec.chunk_steps

    def check(self, game: Game) -> None:
        """Check that the campaign can be trained, and the policy saved in the end.

        Raises:
            ConfigError: actions, options or sizes do not allow it.
        """
        observation, action = game_spaces(game, self.config.seed)
        require_learned(self.section.algorithm, action)
        self.spec.check(game)
        try:
            require_savable(
                {
                    "name": self.section.algorithm,
                    "campaign": {"name": game.name, "version": game.version},
                    "spaces": describe(observation, action),
                    "network": self.spec.network(game),
                    "deterministic": True,
                }
            )
        except PolicyError as error:
            raise ConfigError(str(error), ("train", "algorithm")) from error
        starting_policy(self.config, self.spec.residual)

    def env_setup(self, environment: Any, campaign: str) -> Any:
        """See ``rlctl_agents.env_setup``."""
        return env_setup(self.spec, environment, campaign)

    def train(self, out: Path, resume: bool, progress: Progress) -> Path:
        """Train in this process; see ``rlctl_agents.training``."""
        return cast(Path, self._train(out, resume, progress, None))

    def train_on_ranks(self, out: Path, resume: bool, progress: Progress, ranks: LearnerContext) -> Path | None:
        """Train on a learner's rank."""
        return self._train(out, resume, progress, ranks)

    def _train(self, out: Path, resume: bool, progress: Progress, ranks: LearnerContext | None) -> Path | None:
        from rlctl_agents.training import train

        return train(self.config, self.spec, out, resume, progress, ranks)
