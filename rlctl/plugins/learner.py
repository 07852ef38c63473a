"""The interface of learning algorithms."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlctl.config.schema import Config, TrainSection
from rlctl.core.errors import ConfigError
from rlctl.environments.reward_env import Game

if TYPE_CHECKING:
    from rlctl.monitoring.progress import Progress

ALGORITHM = ("train", "algorithm")


class Learner:
    """A learning algorithm with its options; base class of entry points in ``rlctl.learners``.

    Each process calls ``Learner(config)`` once, which raises ``ConfigError`` for invalid ``train.options``.

    Attributes:
        with_mask: whether actors send action masks.
        with_privileged: whether actors send the hidden quantities of the twin.
        chunk_steps: steps that an actor sends together, unless the configuration sets them.
    """

    with_mask = True
    with_privileged = True
    chunk_steps = 64

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def section(self) -> TrainSection:
        """``train`` of the configuration."""
        return self.config.training

    def check(self, game: Game) -> None:
        """Raise ConfigError if ``game`` cannot be trained on; ``rlctl check`` calls it too."""

    def env_setup(self, environment: Any, campaign: str) -> Any:
        """Prepare a campaign's environment, or a vector of them; by default unchanged."""
        return environment

    def train(self, out: Path, resume: bool, progress: Progress) -> Path:
        """Train into the folder ``out``; return the folder of the saved policy."""
        raise NotImplementedError(f"{type(self).__name__}.train(out, resume, progress) is not written")

    def train_on_ranks(self, out: Path, resume: bool, progress: Progress, ranks: Any) -> Path | None:
        """Train on the rank of a learner.

        Args:
            ranks: see ``rlctl.distributed.learner.context.LearnerContext``.

        Returns:
            The folder of the saved policy; None after a stop request, and on all but the first learner.

        Raises:
            ConfigError: the algorithm learns in one process only.
        """
        raise ConfigError(f"{self.section.algorithm} learns in one process only: leave --ranks out", ALGORITHM)
