"""What stands under ``rlctl.learners`` as ``ppo``: options are checked without PyTorch, which loads to learn."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rlctl.schema import Config
from rlctl_agents.ppo import options

if TYPE_CHECKING:
    from rlctl.monitoring.progress import Progress
    from rlctl.rewarded import Game


class Learner:
    """See ``rlctl.registry.Learner``."""

    def __call__(self, config: Config, out: Path, resume: bool, progress: Progress) -> Path:
        """Train; see ``rlctl_agents.ppo.learner.train``."""
        from rlctl_agents.ppo.learner import train

        return train(config, out, resume, progress)

    def check(self, config: Config, factory: Game) -> None:
        """Refuse what cannot be used; see ``rlctl_agents.ppo.options.check``."""
        options.check(config, factory)


ppo = Learner()
