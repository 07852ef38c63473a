"""What most factories of campaigns have in common, so that a package of its own writes only what differs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from rlctl.config.validation import check_options
from rlctl.core.campaign import Campaign
from rlctl.core.machine import Capacity
from rlctl.core.simulation import TaskModel
from rlctl.environments.campaign_vector_env import CampaignVectorEnv


class NoOptions(BaseModel):
    """For campaigns that have nothing to set."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SimpleFactory:
    """A ``rlctl.core.campaign.CampaignFactory``, but for ``name``, ``version``, ``campaign`` and ``task_model``.

    Attributes:
        Options: the pydantic model of ``campaign.options``.
        options: the options given, as that model.

    Raises:
        ConfigError: unknown or unusable options.
    """

    name: str
    version: int = 1
    Options: ClassVar[type[BaseModel]] = NoOptions

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        self.options: Any = check_options(self.Options, options, "campaign.options")

    def campaign(self, seed: int) -> Campaign:
        """The rules of the game of instance ``seed``."""
        raise NotImplementedError(f"{type(self).__name__}.campaign(seed) is not written: it makes the campaign")

    def task_model(self, seed: int) -> TaskModel:
        """What the tasks of instance ``seed`` would do, for the simulated executor."""
        raise NotImplementedError(f"{type(self).__name__}.task_model(seed) is not written: it makes the twin")

    def privileged(self, seed: int) -> NDArray[np.float32]:
        """Nothing hidden is shown to the critic."""
        return np.zeros(0, np.float32)

    def prepare(self, folder: Path, seed: int) -> None:
        """The real programs need no files."""

    def vector_env(self, num_envs: int, seed: int, capacity: Capacity) -> CampaignVectorEnv:
        """Many campaigns stepped together, their tasks computed one by one."""
        return CampaignVectorEnv(self, num_envs, seed, capacity)
