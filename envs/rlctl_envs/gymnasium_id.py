"""Any environment that Gymnasium knows by an id, trained and compared by a configuration alone.

A Gymnasium environment is not a campaign. It has rewards instead of node-seconds, steps of equal length instead of
tasks, and nothing that could be run for real; pressed into the noun Campaign, each of these would be a lie. So what is
made here is a ``RewardFactory``: it trains with the same learners, ``rlctl evaluate`` compares returns,
and ``tune`` and ``steer`` refuse it.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import gymnasium
from gymnasium.vector import AutoresetMode
from pydantic import BaseModel, ConfigDict, Field

from rlctl.bundle.spaces import describe
from rlctl.config.validation import check_options
from rlctl.core.errors import ConfigError, PolicyError, RlctlError, brief, one_line, reason
from rlctl.core.machine import Capacity
from rlctl.distributed.comm.transition_spec import Seeds
from rlctl.environments.checked_env import CheckedEnv
from rlctl.environments.masks import action_mask, late
from rlctl.environments.reward_env import RewardFactory
from rlctl.system import crash_report

if TYPE_CHECKING:
    from mpi4py.MPI import Intracomm

_ID = ("campaign", "options", "id")
_COMMUNICATOR = ("campaign", "options", "communicator")
LONGEST = 300
"""Characters of a message of an environment; some repeat all that they were given."""


class GymnasiumOptions(BaseModel):
    """What a user can set.

    Attributes:
        id: as for ``gymnasium.make``; ``module:Name-v0`` imports the module first.
        kwargs: of the environment.
        module: imported first, for ids that it registers.
        communicator: the environment's argument that takes the MPI communicator of the ranks that it spans, as many as
            ``train.distributed.ranks_per_env``, or None for a process alone; null: it spans one rank only.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(min_length=1)
    kwargs: dict[str, Any] = Field(default_factory=dict)
    module: str | None = None
    communicator: str | None = Field(default=None, pattern=r"^[A-Za-z_]\w*$")


class GymnasiumId(RewardFactory):
    """Makes environments by their id. Observations are flattened, and answers checked: see ``CheckedEnv``.

    Raises:
        ConfigError: there is no such environment, it cannot be made, or no policy can be saved for its spaces.
    """

    version = 1

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        self.options = check_options(GymnasiumOptions, options, "campaign.options")
        self.collective = self.options.communicator is not None
        if self.options.communicator in self.options.kwargs:
            raise ConfigError(
                f"{brief(self.options.communicator)} stands in kwargs as well: leave it out there", _COMMUNICATOR
            )
        # A saved policy knows its environment by this name, which may not hold all that an id may.
        self.name = ("gymnasium " + re.sub(r"[^\w.+-]", ".", self.options.id))[:100]
        if self.options.module is not None:
            try:
                importlib.import_module(self.options.module)
            except (Exception, SystemExit) as error:  # whatever a module may do when it is imported
                raise ConfigError(
                    f"cannot be imported: {one_line(str(error), LONGEST)}", ("campaign", "options", "module")
                ) from error
        probe = self.environment()
        self.observation_space, self.action_space = probe.observation_space, probe.action_space
        self.own_observation_space = probe.env.observation_space
        probe.close()
        try:
            describe(self.observation_space, self.action_space)
        except PolicyError as error:
            raise ConfigError(str(error), _ID) from error

    def environment(self, comm: Intracomm | None = None) -> gymnasium.Wrapper[Any, Any, Any, Any]:
        """One environment, observations in a row and answers checked; ``comm`` is of the ranks that it spans."""
        return self._make(self.options.id, comm)

    def vector_env(self, num_envs: int, seed: int, capacity: Capacity) -> gymnasium.vector.VectorEnv[Any, Any, Any]:
        """Environments stepped one after the other; those that end begin anew in the same step."""
        # Not ``gymnasium.make_vec``, which would take arguments of the environment for its own.
        names = [f"{self.options.id} ({i + 1} of {num_envs})" for i in range(num_envs)]
        makers = [partial(self._numbered, name, Seeds(seed), i) for i, name in enumerate(names)]
        return gymnasium.vector.SyncVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP)

    def _numbered(self, name: str, seeds: Seeds, number: int) -> gymnasium.Env[Any, Any]:
        return VectorMember(self._make(name, None), seeds, number)

    def _make(self, name: str, comm: Intracomm | None) -> gymnasium.Wrapper[Any, Any, Any, Any]:
        try:
            return CheckedEnv(gymnasium.make(self.options.id, **self._kwargs(comm)), name)
        except gymnasium.error.Error as error:
            raise ConfigError(one_line(str(error), LONGEST), _ID) from error
        except ImportError as error:
            raise ConfigError(
                f"{brief(self.options.id)} cannot be imported: {one_line(str(error), LONGEST)}", _ID
            ) from error
        except (TypeError, ValueError) as error:
            said = str(error)
            refused = [name for name in self.options.kwargs if f"'{name}'" in said.partition(" was raised from")[0]]
            key = ("campaign", "options", "kwargs", *refused[:1])
            raise ConfigError(f"{brief(self.options.id)} refuses it: {one_line(str(error), LONGEST)}", key) from error
        except RlctlError:
            raise
        except (Exception, SystemExit) as error:
            place = crash_report.origin(error).place
            said = f"{reason(error)}{f' ({place})' if place else ''}"
            raise ConfigError(f"{brief(self.options.id)} cannot be made: {said}", _ID) from error

    def _kwargs(self, comm: Intracomm | None) -> dict[str, Any]:
        name = self.options.communicator
        return dict(self.options.kwargs) if name is None else {**self.options.kwargs, name: comm}


class VectorMember(gymnasium.Wrapper[Any, Any, Any, Any]):
    """One of several environments: each episode has a seed of its own, unless it is given one, as actors' environments.

    Its masks are in ``info["action_mask"]``, of one form, as vectors of environments want them; what an episode ends
    with forbids nothing.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], seeds: Seeds, number: int) -> None:
        super().__init__(env)
        self._seeds, self._number, self._episode = seeds, number, 0
        self._steps = 0
        self._masked: bool | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        own = self._seeds.episode(self._number, self._episode)
        self._episode += 1
        self._steps = 0
        observation, info = self.env.reset(seed=own if seed is None else seed, options=options)
        return observation, self._with_mask(info)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Continue."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._steps += 1
        if terminated or truncated:
            info.pop("action_mask", None)
        else:
            info = self._with_mask(info)
        return observation, reward, terminated, truncated, info

    def _with_mask(self, info: dict[str, Any]) -> dict[str, Any]:
        mask = action_mask(self.env, info, self._steps)
        if self._masked is None:
            self._masked = mask is not None
        if mask is not None and not self._masked:
            raise late(self.env, self._steps)
        return info if mask is None else {**info, "action_mask": mask}
