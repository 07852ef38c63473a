"""Real simulations inside an actor's environments: every episode is a campaign on a real executor."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from rlctl.config.provenance import provenance
from rlctl.config.schema import Config
from rlctl.core.campaign_factory import CampaignFactory
from rlctl.core.machine import Machine
from rlctl.core.runner import TaskRunner
from rlctl.core.task import Event, Resources, TaskId, TaskSpec
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
        self._keep = config.train is not None and config.train.distributed.keep_simulations
        self._number = 0

    def environment(self) -> CampaignEnv:
        """An environment; real tasks begin with its first ``reset``."""
        return CampaignEnv(self._factory, self._config.machine.capacity(), self._open)

    def _open(self, instance: int) -> TaskRunner:
        self._number += 1
        folder = self._folder / f"{self._number:06d}"
        if folder.exists():
            shutil.rmtree(folder)  # of an actor in whose place this one is
        work = folder / WORK
        work.mkdir(parents=True)
        self._factory.prepare(work, instance)
        header = {"campaign": self._config.campaign.name, "instance": instance, "provenance": provenance()}
        journal = Journal.create(folder / JOURNAL, header)
        try:
            executor = Executor.open(self._executors, self._config.machine.capacity(), work, journal, 0.0)
        except BaseException:
            journal.close()
            raise
        return OneEpisode(executor, journal, None if self._keep else folder)


class OneEpisode:
    """An executor that is closed with its journal.

    Args:
        folder: removed then; None: it stays.
    """

    def __init__(self, executor: TaskRunner, journal: Journal, folder: Path | None) -> None:
        self.capacity = executor.capacity
        self._executor, self._journal, self._folder = executor, journal, folder

    def now(self) -> float:
        """Seconds since the campaign began."""
        return self._executor.now()

    def submit_task(self, spec: TaskSpec, attempt: int = 1) -> Any:
        """Queue a task."""
        return self._executor.submit_task(spec, attempt)

    def cancel(self, uid: TaskId, grace_s: float = 5.0) -> None:
        """Stop a task."""
        self._executor.cancel(uid, grace_s)

    def update(self, uid: TaskId, *, resources: Resources | None = None) -> None:
        """Change what a task asks for."""
        self._executor.update(uid, resources=resources)

    def machine(self) -> Machine:
        """Which nodes are there now."""
        return self._executor.machine()

    def wait(self, timeout_s: float | None = None, *, idle: bool = False) -> list[Event]:
        """Start what fits, then wait for the next events."""
        return self._executor.wait(timeout_s, idle=idle)

    def close(self) -> None:
        """Stop everything that still runs, and let go of it."""
        try:
            self._executor.close()
        finally:
            self._journal.close()
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)
