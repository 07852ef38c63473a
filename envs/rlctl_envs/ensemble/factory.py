"""Makes ensembles and what belongs to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlctl.complaints import check_options
from rlctl.executors.base import Capacity
from rlctl.executors.simulated import Outage
from rlctl.task import TaskId, TaskSpec
from rlctl.vector import CampaignVectorEnv
from rlctl_envs.ensemble.campaign import EnsembleCampaign
from rlctl_envs.ensemble.job import Job, Shape
from rlctl_envs.ensemble.model import EnsembleModel
from rlctl_envs.ensemble.options import Options
from rlctl_envs.ensemble.workload import Workload, outages


class Ensemble:
    """Unequal, uncertain and unreliable tasks that share an allocation; see the README of this folder.

    Args:
        options: see ``Options``.

    Raises:
        ConfigError: unknown or unusable options.
    """

    name = "ensemble"
    version = 1

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        self.options = check_options(Options, options, "campaign.options")
        self.capacity = Capacity(nodes=32, cores=1)
        self._key = self.options.model_dump_json()

    def check(self, capacity: Capacity, real: bool) -> None:
        """Refuse a machine that the campaign cannot be played on."""

    def campaign(self, seed: int) -> EnsembleCampaign:
        """The game of instance ``seed``."""
        workload = self.workload(seed)

        def truth(number: int, shape: Shape) -> float:
            return workload.duration_s(number, shape.ranks, shape.gpu)

        return EnsembleCampaign(self.options, workload.jobs, self._spec, truth if self.options.clairvoyant else None)

    def workload(self, seed: int) -> Workload:
        """What is hidden of instance ``seed``."""
        return _drawn(self._key, seed)

    def task_model(self, seed: int) -> EnsembleModel:
        """What the tasks of instance ``seed`` do."""
        return EnsembleModel(self.workload(seed), self.options, seed)

    def outages(self, seed: int, capacity: Capacity) -> Sequence[Outage]:
        """When nodes are not there, in instance ``seed``."""
        return outages(self.options, seed, capacity)

    def privileged(self, seed: int) -> NDArray[np.float32]:
        """Scaling, spreads, total work and troubles, [8], each number about within -1 to 1."""
        return self.workload(seed).as_array(self.options)

    def prepare(self, folder: Path, seed: int) -> None:
        """Write what the programs of instance ``seed`` need."""

    def vector_env(self, num_envs: int, seed: int, capacity: Capacity, gamma: float = 1.0) -> CampaignVectorEnv:
        """Many ensembles stepped together."""
        return CampaignVectorEnv(self, num_envs, seed, capacity, gamma=gamma)

    def _spec(self, job: Job, shape: Shape, uid: TaskId) -> TaskSpec:
        parameters = {"task": job.number, "ranks": shape.ranks, "gpu": shape.gpu}
        return TaskSpec(uid, function="time:sleep", parameters=parameters, resources=job.need(shape))


@lru_cache(maxsize=4096)
def _drawn(options: str, seed: int) -> Workload:
    return Workload.draw(Options.model_validate_json(options), seed)
