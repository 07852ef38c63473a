"""What stands under ``rlctl.learners`` as ``ppo``: options are checked without PyTorch, which loads to learn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rlctl.complaints import check_options
from rlctl.schema import Config
from rlctl_agents.ppo import options
from rlctl_agents.ppo.preparation import preparation

if TYPE_CHECKING:
    from rlctl.distributed.ranks import Ranks
    from rlctl.monitoring.progress import Progress
    from rlctl.rewarded import Game


class Learner:
    """See ``rlctl.registry.Learner``."""

    with_mask = True
    with_privileged = True

    def __call__(self, config: Config, out: Path, resume: bool, progress: Progress) -> Path:
        """Train; see ``rlctl_agents.ppo.learner.train``."""
        from rlctl_agents.ppo.learner import train

        return cast(Path, train(config, out, resume, progress))

    def on_ranks(self, config: Config, out: Path, resume: bool, progress: Progress, ranks: Ranks) -> Path | None:
        """Train on a learner's rank."""
        from rlctl_agents.ppo.learner import train

        return train(config, out, resume, progress, ranks)

    def prepare(self, config: Config) -> Callable[[Any, str], tuple[int, ...]]:
        """What actors do with their environments first; see ``rlctl_agents.ppo.preparation``."""
        section = config.train
        return preparation(check_options(options.Options, section.options if section else {}, "train.options"))

    def check(self, config: Config, factory: Game) -> None:
        """Refuse what cannot be used; see ``rlctl_agents.ppo.options.check``."""
        options.check(config, factory)


ppo = Learner()
