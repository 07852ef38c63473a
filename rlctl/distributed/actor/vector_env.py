"""The environments that an actor steps together: made from the configuration, and guarded one by one."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlctl.bundle.actions import action_heads
from rlctl.config.schema import Config, EnvironmentSection
from rlctl.core.campaign_factory import CampaignFactory
from rlctl.distributed.actor.env_guard import EnvGuard
from rlctl.distributed.actor.gymnasium_vector_env import NUMBER, GymnasiumVectorEnv, saved
from rlctl.distributed.comm.collective_env import CollectiveGroup, Environment
from rlctl.distributed.comm.transition_spec import EpisodeEnd, Float32, Seeds, Step, TransitionSpec, VectorEnvironment
from rlctl.environments.campaign_vector_env import CampaignVectorEnv
from rlctl.environments.masks import action_mask, late
from rlctl.environments.reward_env import Game, rewarded


class SequentialVectorEnv:
    """A ``VectorEnvironment`` that steps Gymnasium environments in turn; each episode has a seed of its own.

    Args:
        makers: of the environments.
        seeds: of their episodes.
        with_mask: observations hold masks, where environments have some; see ``rlctl.environments.masks.action_mask``.
        with_privileged: observations hold ``info["privileged"]``.
        discount_s: seconds of ``info["duration_s"]`` in a unit of the discount; None: each step is one.
        section: treatment of failures.
    """

    def __init__(
        self,
        makers: Sequence[Callable[[], Environment]],
        seeds: Seeds,
        *,
        with_mask: bool = True,
        with_privileged: bool = True,
        discount_s: float | None = None,
        section: EnvironmentSection | None = None,
    ) -> None:
        self._seeds, self._discount_s = seeds, discount_s
        self.count = len(makers)
        failures: Counter[str] = Counter()
        self.failures: Mapping[str, int] = failures
        self._guards = [EnvGuard(maker, section or EnvironmentSection(), failures) for maker in makers]
        env = self._guards[0].env
        assert env is not None
        self.observation_space, self.action_space = env.observation_space, env.action_space
        space = self.action_space
        self.heads = action_heads(space) if isinstance(space, spaces.Discrete | spaces.MultiDiscrete) else ()
        self.episodes = [0] * self.count
        self._observations = np.zeros((self.count, 0), np.float32)
        self._returns, self._lengths = [0.0] * self.count, [0] * self.count
        # Only a reset shows whether there are masks, and how many privileged quantities.
        n_obs, n_action = int(spaces.flatdim(self.observation_space)), len(self.heads) or int(np.prod(space.shape or 1))
        self.transition_spec = TransitionSpec(n_obs, 0, 0, n_action)
        observation, info = self._reset(0)
        mask = self._mask(0, info)
        self._has_masks = mask is not None
        kept = np.zeros(0) if mask is None or not with_mask else mask
        privileged = np.ravel(info["privileged"]) if with_privileged and "privileged" in info else np.zeros(0)
        self.transition_spec = TransitionSpec(n_obs, len(kept), len(privileged), n_action)
        self._first: Float32 | None = np.concatenate([observation, kept, privileged], dtype=np.float32)
        self._first_episode = self.episodes[0]

    def reset(self) -> Float32:
        """Begin an episode in each; observations [n, width]."""
        self._observations = np.zeros((self.count, self.transition_spec.width), np.float32)
        self._returns, self._lengths = [0.0] * self.count, [0] * self.count
        for i in range(self.count):
            self._begin(i)
        return self._observations.copy()

    def step(self, actions: NDArray[Any]) -> Step:
        """Apply an action in each."""
        rewards = np.zeros(self.count, np.float32)
        durations = np.ones(self.count, np.float32)
        terminated, truncated = np.zeros(self.count, np.bool_), np.zeros(self.count, np.bool_)
        ends: list[EpisodeEnd] = []
        tasks: list[str] = []
        for i, guard in enumerate(self._guards):
            last = self._observations[i]
            observation, reward, over, cut, info = guard.step(self._action(actions[i]), self._flattened, last)
            if self._discount_s is not None and "duration_s" in info:
                durations[i] = float(info["duration_s"]) / self._discount_s
            if "tasks" in info:
                tasks += info["tasks"]
            last[:] = observation
            rewards[i], terminated[i], truncated[i] = reward, over, cut
            self._returns[i] += float(rewards[i])
            self._lengths[i] += 1
            self._put_mask(i, info, over or cut)
            if over or cut:
                metrics = {k: float(v) for k, v in info.items() if isinstance(v, NUMBER) and math.isfinite(v)}
                ends.append(EpisodeEnd(i, last.copy(), self._returns[i], self._lengths[i], metrics))
                self._returns[i], self._lengths[i] = 0.0, 0
                self.episodes[i] += 1
                self._begin(i)
        return Step(self._observations.copy(), rewards, durations, terminated, truncated, ends, tasks)

    def save(self) -> bytes | None:
        """Complete state; None where an environment cannot be saved."""
        envs = [guard.env for guard in self._guards]
        return saved(envs, self.episodes, self._observations, self._returns, self._lengths)

    def restore(self, state: bytes) -> Float32:
        """Continue from ``save``; observations [n, width]."""
        self.close()
        envs, self.episodes, self._observations, self._returns, self._lengths = cloudpickle.loads(state)
        for guard, env in zip(self._guards, envs, strict=True):
            guard.env = env
        self._first = None
        return self._observations.copy()

    def close(self) -> None:
        """Close all environments."""
        for guard in self._guards:
            guard.close()

    def _begin(self, i: int) -> None:
        if i == 0 and self._first is not None and self.episodes[0] == self._first_episode:
            self._observations[0], self._first = self._first, None
            return
        self._observations[i], info = self._reset(i)
        self._put_mask(i, info, over=False)

    def _reset(self, i: int) -> tuple[Float32, Mapping[str, Any]]:
        """Begin the next episode that can begin."""
        self.episodes[i] -= 1

        def seed() -> int:
            self.episodes[i] += 1
            return self._seeds.episode(i, self.episodes[i])

        return self._guards[i].reset(seed, self._flattened)

    def _flattened(self, env: Environment, observation: Any, info: Mapping[str, Any]) -> Float32:
        """The observation, with ones in place of the mask."""
        spec, space = self.transition_spec, self.observation_space
        flat: Any = observation if isinstance(space, spaces.Box) else spaces.flatten(space, observation)
        parts = [np.asarray(flat, space.dtype).astype(np.float32, copy=False).reshape(-1)]
        if spec.n_mask:
            parts.append(np.ones(spec.n_mask, np.float32))
        if spec.n_privileged:
            parts.append(np.ravel(info["privileged"]).astype(np.float32))
        whole = np.concatenate(parts) if len(parts) > 1 else parts[0]
        if len(whole) != spec.width:
            raise ValueError(f"{len(whole)} numbers (observation, mask, privileged), not {spec.width}")
        return whole

    def _put_mask(self, i: int, info: Mapping[str, Any], over: bool) -> None:
        """Write the mask into the observation; the last one of an episode needs none.

        Raises:
            EnvironmentFault: it is invalid, or the environment's first reset gave none.
        """
        mask = None if over else self._mask(i, info)
        if mask is None:
            return
        spec, env = self.transition_spec, self._guards[i].env
        if not self._has_masks:
            assert env is not None
            raise late(env, self._lengths[i])
        self._observations[i, spec.n_obs : spec.n_obs + spec.n_mask] = mask[: spec.n_mask]

    def _mask(self, i: int, info: Mapping[str, Any]) -> NDArray[np.bool_] | None:
        env = self._guards[i].env
        assert env is not None
        return action_mask(env, info, self._lengths[i])

    def _action(self, action: NDArray[Any]) -> Any:
        space = self.action_space
        if isinstance(space, spaces.Discrete):
            return int(action[0]) + int(space.start)
        return np.asarray(action, space.dtype).reshape(space.shape or ())


def make_vector_env(
    config: Config,
    game: Game,
    seeds: Seeds,
    count: int,
    folder: Path,
    *,
    with_mask: bool = True,
    with_privileged: bool = True,
    env_setup: Callable[[Any, str], Any] = lambda environment, name: environment,
    group: CollectiveGroup | None = None,
) -> VectorEnvironment:
    """The environments that a configuration asks for.

    Args:
        folder: for the files of real tasks.
        env_setup: called with each environment, or a vector of them, and the campaign's name; returns what is used.
        group: of the ranks that each environment spans; None: this process alone.
    """
    distributed = config.training.distributed
    options: dict[str, Any] = {
        "with_mask": with_mask,
        "with_privileged": with_privileged,
        "discount_s": distributed.discount_s,
    }
    if rewarded(game):
        envs = [game.environment] * count if group is None else group.makers(game.environment, count)
        return SequentialVectorEnv(envs, seeds, section=distributed.environment, **options)
    campaigns: CampaignFactory = game  # type: ignore[assignment]
    if distributed.simulations == "executor":
        # Executors are twenty megabytes that other actors do without.
        from rlctl.distributed.actor.real_env import RealCampaigns

        def maker(real: RealCampaigns) -> Environment:
            made: Environment = env_setup(real.environment(), game.name)
            return made

        makers = [partial(maker, RealCampaigns(config, campaigns, folder / str(i))) for i in range(count)]
        return SequentialVectorEnv(makers, seeds, section=distributed.environment, **options)
    vector = CampaignVectorEnv(campaigns, count, seeds.seed, config.machine.capacity())
    vector.instance = seeds.episode
    return GymnasiumVectorEnv(env_setup(vector, game.name), name=f"campaign {game.name}", **options)
