"""Environments of this process as Stable-Baselines3 wants them, with mask and privileged sight in the observation."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from rlctl.bundle.actions import action_heads
from rlctl.distributed.actor.gymnasium_vector_env import GymnasiumVectorEnv
from rlctl.distributed.comm.chunk import Chunk
from rlctl.distributed.comm.transition_spec import EpisodeEnd, TransitionSpec, VectorEnvironment

Float32 = NDArray[np.float32]


def learner_spaces(
    layout: TransitionSpec, observation: spaces.Space[Any], action: spaces.Space[Any], mask_in_row: bool
) -> tuple[spaces.Space[Any], spaces.Space[Any]]:
    """What an algorithm sees of environments whose rows have this layout.

    Where it reads rows with masks, choices are several heads, however many there are; choices count from 0.
    """
    whole = mask_in_row and layout.width > layout.n_obs
    if not whole and isinstance(observation, spaces.Box) and observation.shape == (layout.n_obs,):
        row = spaces.Box(observation.low.astype(np.float32), observation.high.astype(np.float32), dtype=np.float32)
    else:
        row = spaces.Box(-np.inf, np.inf, (layout.width if whole else layout.n_obs,), np.float32)
    if mask_in_row and layout.n_mask and isinstance(action, spaces.Discrete | spaces.MultiDiscrete):
        return row, spaces.MultiDiscrete(list(action_heads(action)))
    return row, spaces.Discrete(int(action.n)) if isinstance(action, spaces.Discrete) else action


def end_info(ended: EpisodeEnd, began_s: float = 0.0) -> dict[str, Any]:
    """The info of an ended episode as Stable-Baselines3's callbacks read it."""
    episode = {"r": ended.episode_return, "l": ended.length, "t": round(time.monotonic() - began_s, 6)}
    return {"episode": episode, "campaign": dict(ended.metrics)}


def ended_infos(chunks: Sequence[Chunk]) -> tuple[list[dict[str, Any]], NDArray[np.bool_]]:
    """An info for each episode that ended, and as many times True; one empty info and False if none did."""
    infos = [end_info(ended) for chunk in chunks for _, ended in chunk.episode_ends]
    return (infos, np.ones(len(infos), np.bool_)) if infos else ([{}], np.zeros(1, np.bool_))


class RemoteEnvSpec(VecEnv):
    """The spaces of environments that actors hold, as environments that cannot be stepped.

    Args:
        layout: of rows and actions; see ``learner_spaces``.
        count: of environments.
    """

    render_mode = None

    def __init__(
        self,
        layout: TransitionSpec,
        observation: spaces.Space[Any],
        action: spaces.Space[Any],
        mask_in_row: bool = True,
        count: int = 1,
    ) -> None:
        self.layout, self.env_spaces = layout, (observation, action)
        self.n_obs, self.n_mask, self.n_privileged = layout.n_obs, layout.n_mask, layout.n_privileged
        self.heads = action_heads(action) if isinstance(action, spaces.Discrete | spaces.MultiDiscrete) else ()
        super().__init__(count, *learner_spaces(layout, observation, action, mask_in_row))

    def reset(self) -> Float32:
        """Zeros."""
        space = self.observation_space
        return np.zeros((1, *(space.shape or ())), space.dtype)

    def step_async(self, actions: NDArray[Any]) -> None:
        """There is nothing to step."""
        raise NotImplementedError("actors step the environments; here are only their spaces")

    def step_wait(self) -> Any:
        """There is nothing to step."""
        raise NotImplementedError("actors step the environments; here are only their spaces")

    def close(self) -> None:
        """No environment is held."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """An attribute of this object, once per environment."""
        return [getattr(self, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute of this object."""
        setattr(self, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """Call a method of this object that gives a row per environment, as ``action_masks`` does."""
        rows = getattr(self, method_name)(*args, **kwargs)
        return [rows[i] for i in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """Never: there are no single environments to wrap."""
        return [False for _ in self._get_indices(indices)]


class TrainingVecEnv(RemoteEnvSpec):
    """``VectorEnvironment`` of this process as a ``VecEnv``.

    Infos of environments that go on are one shared empty dict: at hundreds of environments a dict for each would cost
    more than the network.

    Args:
        bootstrap: whether a truncated episode is worth what the critic thinks of its last state; otherwise nothing
            follows it.
        mask_in_row: whether observations are whole rows; otherwise masks are asked for by ``action_masks``.
    """

    def __init__(self, environments: VectorEnvironment, bootstrap: bool = True, mask_in_row: bool = True) -> None:
        self.environments = environments
        self._bootstrap, self._whole = bootstrap, mask_in_row
        layout, action = environments.transition_spec, environments.action_space
        super().__init__(layout, environments.observation_space, action, mask_in_row, environments.count)
        self._infos: list[dict[str, Any]] = [{}] * environments.count
        self._actions: NDArray[Any] = np.zeros((environments.count, layout.n_action), dtype=np.int64)
        self._masks: NDArray[np.bool_] = np.ones((environments.count, sum(self.heads)), np.bool_)
        self._began_s = time.monotonic()

    def reset(self) -> Float32:
        """Start all campaigns anew."""
        seed = self._seeds[0]
        self._reset_seeds()
        self._reset_options()
        if seed is not None and isinstance(self.environments, GymnasiumVectorEnv):
            return self._seen(self.environments.reset(seed))
        return self._seen(self.environments.reset())

    def restore(self, state: bytes) -> Float32 | None:
        """Go on where the environments were saved; None where some could not be."""
        rows = self.environments.restore(state)
        return None if rows is None else self._seen(rows)

    def step_async(self, actions: NDArray[Any]) -> None:
        """Remember the actions."""
        self._actions = np.reshape(actions, (self.num_envs, -1))

    def step_wait(self) -> tuple[Float32, Float32, NDArray[np.bool_], list[dict[str, Any]]]:
        """Answer one decision in every environment."""
        step = self.environments.step(self._actions)
        dones = np.logical_or(step.terminated, step.truncated)
        out = self._infos
        if step.episode_ends:
            out = list(out)
            for ended in step.episode_ends:
                i = ended.environment
                cut = bool(self._bootstrap and step.truncated[i] and not step.terminated[i])
                seen = ended.observation if self._whole else ended.observation[: self.n_obs]
                out[i] = {
                    "terminal_observation": seen,
                    "TimeLimit.truncated": cut,
                    **end_info(ended, self._began_s),
                }
        return self._seen(step.observations), step.rewards, dones, out

    def action_masks(self) -> NDArray[np.bool_]:
        """The mask of the open decision of each environment; all is allowed where they tell none."""
        return self._masks

    def close(self) -> None:
        """Close the environments."""
        self.environments.close()

    def _seen(self, rows: Float32) -> Float32:
        if self.n_mask:
            self._masks = rows[:, self.n_obs : self.n_obs + self.n_mask] > 0.5
        return rows if self._whole else rows[:, : self.n_obs]
