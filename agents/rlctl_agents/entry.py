"""What stands under ``rlctl.learners``: options are checked without PyTorch, which loads to learn."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, cast

from rlctl.bundle.saved_policy import require_savable
from rlctl.bundle.spaces import describe
from rlctl.config.schema import Config
from rlctl.core.errors import ConfigError, PolicyError
from rlctl.environments.reward_env import Game, game_spaces
from rlctl_agents.actions import require_learned
from rlctl_agents.recipe import Description, Prepare, Recipe
from rlctl_agents.start import starting_policy

if TYPE_CHECKING:
    from rlctl.distributed.learner.context import LearnerContext
    from rlctl.monitoring.progress import Progress


CHUNK_STEPS = 64


class Learner:
    """See ``rlctl.plugins.registry.Learner``.

    Args:
        description: of the algorithm.
        recipe: ``module:name`` of its recipe, which is imported to learn.
    """

    def __init__(self, description: Description, recipe: str) -> None:
        self._description, self._recipe = description, recipe
        self.with_mask, self.with_privileged = description.with_mask, description.with_privileged

    def __call__(self, config: Config, out: Path, resume: bool, progress: Progress) -> Path:
        """Train; see ``rlctl_agents.training.train``."""
        return cast(Path, self._train(config, out, resume, progress, None))

    def on_ranks(
        self, config: Config, out: Path, resume: bool, progress: Progress, ranks: LearnerContext
    ) -> Path | None:
        """Train on a learner's rank."""
        return self._train(config, out, resume, progress, ranks)

    def check(self, config: Config, factory: Game) -> None:
        """Refuse what cannot be used: what passes here can be trained, and saved in the end.

        Raises:
            ConfigError: it cannot.
        """
        assert config.train is not None
        observation, action = game_spaces(factory, config.seed)
        require_learned(config.train.algorithm, action)
        self._description.check(config, factory)
        try:
            require_savable(
                {
                    "name": config.train.algorithm,
                    "campaign": {"name": factory.name, "version": factory.version},
                    "spaces": describe(observation, action),
                    "network": self._description.network(config, factory),
                    "deterministic": True,
                }
            )
        except PolicyError as error:
            raise ConfigError(str(error), ("train", "algorithm")) from error
        starting_policy(config, self._description.options(config))

    def prepare(self, config: Config) -> Prepare:
        """What actors do with their environments first."""
        return self._description.prepare(self._description.options(config))

    def chunk_steps(self, config: Config) -> int:
        """Steps of a chunk, unless the configuration says: small for those who learn from their newest steps only.

        Of each actor one chunk is under way and one is being made, together a quarter of what an update learns from.
        """
        n_steps = getattr(self._description.options(config), "n_steps", None)
        return CHUNK_STEPS if n_steps is None else max(1, n_steps // 8)

    def _train(
        self, config: Config, out: Path, resume: bool, progress: Progress, ranks: LearnerContext | None
    ) -> Path | None:
        from rlctl_agents.training import train

        module, _, name = self._recipe.partition(":")
        recipe: Recipe = getattr(importlib.import_module(module), name)
        return train(recipe, config, out, resume, progress, ranks)
