"""Renders an evaluation of a campaign that runs users' programs, without running it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from rlctl.config.schema import Config
from rlctl.core.campaign_factory import CampaignFactory
from rlctl.core.errors import LaunchError
from rlctl.core.task import TaskSpec
from rlctl.plugins.preflight import check_game
from rlctl.plugins.registry import executor_factory, executor_options
from rlctl.programs.rendered import RenderedEvaluation, rendered


def first_sample(config: Config, factory: CampaignFactory) -> TaskSpec | None:
    """The task that shows what is run; None: the campaign shows none."""
    samples = factory.sample_tasks(config.machine.capacity(), config.seed)
    return samples[0][1] if samples else None


def sample_evaluation(config: Config) -> RenderedEvaluation | None:
    """The evaluation that a campaign shows; None: it runs no programs of users, or shows none.

    Raises:
        ConfigError: it cannot be rendered.
    """
    with config.source.located():
        factory = check_game(config)
        if not isinstance(factory, CampaignFactory) or (spec := first_sample(config, factory)) is None:
            return None
        executors = executor_factory(config.executor.name, executor_options(config))
        with tempfile.TemporaryDirectory(prefix="rlctl-check-") as folder:
            factory.prepare(Path(folder), config.seed)
            try:
                command = executors.command(spec)
            except LaunchError:  # told by ``preflight.check_programs``; the nodes may have it
                command = [str(spec.executable), *spec.arguments]
            return rendered(spec, command, Path(folder))
