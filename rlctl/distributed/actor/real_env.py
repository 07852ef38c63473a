"""Real simulations inside an actor's environments: every episode is a campaign on a real executor."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from rlctl.config.provenance import provenance
from rlctl.config.schema import Config
from rlctl.core.campaign_factory import CampaignFactory
from rlctl.core.runner import TaskRunner
from rlctl.environments.campaign_env import CampaignEnv
from rlctl.executors.engine import Executor
from rlctl.executors.event_log import Journal
from rlctl.executors.factory import BackendFactory
from rlctl.plugins.registry import executor_factory, executor_options
from rlctl.steering.run_folder import JOURNAL, WORK


def executors_of_actors(config: Config) -> BackendFactory:
    """The executor of the configuration, with what else actors need unless it says otherwise.

    Raises:
        ConfigError: there is no such executor, or it refuses the options.
    """
    options = executor_options(config)
    executors = executor_factory(config.executor.name, options)
    more = executors.actor_options
    return executor_factory(config.executor.name, {**more, **options}) if more else executors


class RealCampaigns:
    """Makes environments whose episodes are real campaigns, each in a folder of its own.

    Args:
        folder: the episodes' files lie in ``folder/<number>``.
    """

    def __init__(self, config: Config, factory: CampaignFactory, folder: Path) -> None:
        self._config, self._factory, self._folder = config, factory, folder
        self._executors = executors_of_actors(config)
        self._executors.check(config.machine.capacity())
        self._keep = config.training.distributed.keep_simulations
        self._number = 0

    def environment(self) -> CampaignEnv:
        """An environment; real tasks begin with its first ``reset``."""
        return CampaignEnv(self._factory, self._config.machine.capacity(), self._open)

    @contextmanager
    def _open(self, instance: int) -> Iterator[TaskRunner]:
        self._number += 1
        folder = self._folder / f"{self._number:06d}"
        if folder.exists():
            shutil.rmtree(folder)  # of an actor in whose place this one is
        work = folder / WORK
        work.mkdir(parents=True)
        self._factory.prepare(work, instance)
        header = {"campaign": self._config.campaign.name, "instance": instance, "provenance": provenance()}
        with ExitStack() as stack:
            if not self._keep:
                stack.callback(shutil.rmtree, folder, ignore_errors=True)
            journal = stack.enter_context(Journal.create(folder / JOURNAL, header))
            executor = Executor.open(self._executors, self._config.machine.capacity(), work, journal, 0.0)
            yield stack.enter_context(closing(executor))
