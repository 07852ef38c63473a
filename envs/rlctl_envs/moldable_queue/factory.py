"""Makes moldable queues and what belongs to them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlctl.config.validation import check_options
from rlctl.core.campaign import CampaignFactory
from rlctl.core.errors import ConfigError
from rlctl.core.machine import Capacity
from rlctl_envs.moldable_queue.campaign import QueueCampaign
from rlctl_envs.moldable_queue.workload import Options, QueueModel, Workload


class MoldableQueue(CampaignFactory):
    """Tasks of unknown scaling on a simulated machine; see the README of this folder.

    Args:
        options: see ``Options``.

    Raises:
        ConfigError: unknown or unusable options.
    """

    name = "moldable_queue"
    version = 1

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        self.options = check_options(Options, options, "campaign.options")
        self.capacity = Capacity(nodes=32, cores=1)

    def check(self, capacity: Capacity, real: bool) -> None:
        """Refuse real programs: there are none.

        Raises:
            ConfigError: ``real``.
        """
        if real:
            raise ConfigError(
                "moldable_queue is only ever simulated; train and evaluate it, but do not steer it",
                ("campaign", "name"),
            )

    def campaign(self, seed: int) -> QueueCampaign:
        """The game of instance ``seed``; it learns the estimates of the first tasks and nothing else."""
        workload = _workload(self.options, seed)
        return QueueCampaign(self.options, [job.estimate_s for job in workload.jobs[: workload.initial]])

    def task_model(self, seed: int) -> QueueModel:
        """What the tasks of instance ``seed`` do."""
        return QueueModel(_workload(self.options, seed))

    def privileged(self, seed: int) -> NDArray[np.float32]:
        """Scaling, spreads and total work, [5], each number about within -1 to 1."""
        return _workload(self.options, seed).as_array()

    def prepare(self, folder: Path, seed: int) -> None:
        """Refuse: there is no program to run.

        Raises:
            ConfigError: always.
        """
        self.check(self.capacity, real=True)


@lru_cache(maxsize=4096)
def _workload(options: Options, seed: int) -> Workload:
    return Workload.draw(options, seed)
