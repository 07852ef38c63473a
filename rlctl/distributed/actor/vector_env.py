"""The environments that an actor steps together, whatever they are, as rows."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cloudpickle
import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlctl.bundle.actions import action_heads
from rlctl.config.schema import Config, EnvironmentSection
from rlctl.core.campaign import CampaignFactory
from rlctl.core.errors import EnvironmentFault
from rlctl.distributed.actor.env_guard import Environment, Guard
from rlctl.distributed.comm.collective_env import Leader
from rlctl.distributed.comm.transition_spec import Ended, Float32, Layout, Seeds, Step, Worlds
from rlctl.environments.campaign_vector_env import CampaignVectorEnv
from rlctl.environments.masks import action_mask, late
from rlctl.environments.reward_env import Game, rewarded

_NUMBER = (int, float, np.number, np.bool_)


class SingleWorlds:
    """Gymnasium environments, stepped one after the other; each episode begins with a seed of its own.

    Args:
        makers: of the environments.
        seeds: of their episodes.
        with_mask: rows hold the masks of environments that tell some; see ``rlctl.environments.masks.action_mask``.
        with_privileged: rows hold ``info["privileged"]``.
        discount_s: seconds of ``info["duration_s"]`` in a unit of the discount; None: each step is one.
        section: what is done about those that fail.
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
        self._guards = [Guard(maker, section or EnvironmentSection(), failures) for maker in makers]
        first = self._guards[0].env
        assert first is not None
        self.observation_space, self.action_space = first.observation_space, first.action_space
        space = self.action_space
        self.heads = action_heads(space) if isinstance(space, spaces.Discrete | spaces.MultiDiscrete) else ()
        n_obs = int(spaces.flatdim(self.observation_space))
        self.episodes = [0] * self.count
        self._rows = np.zeros((self.count, 0), np.float32)
        self._returns = np.zeros(self.count)
        self._lengths = np.zeros(self.count, np.int64)
        # Only a reset tells whether there are masks, and how many privileged quantities.
        n_action = len(self.heads) or int(np.prod(space.shape or (1,)))
        self.layout = Layout(n_obs, 0, 0, n_action)
        seen, info = self._guarded_reset(0)
        mask = self._mask(0, info)
        self._tells = mask is not None
        told = np.zeros(0) if mask is None or not with_mask else mask
        privileged = np.ravel(info["privileged"]) if with_privileged and "privileged" in info else np.zeros(0)
        self.layout = Layout(n_obs, len(told), len(privileged), n_action)
        self._probe: Float32 | None = np.concatenate([seen, told, privileged], dtype=np.float32)
        self._probed = self.episodes[0]

    def begin(self) -> Float32:
        """Begin an episode in each; rows, [n, row]."""
        self._rows = np.zeros((self.count, self.layout.row), np.float32)
        self._returns[:] = 0.0
        self._lengths[:] = 0
        for i in range(self.count):
            self._begin(i)
        return self._rows.copy()

    def step(self, actions: NDArray[Any]) -> Step:
        """Answer the open decision of each."""
        rewards = np.zeros(self.count, np.float32)
        durations = np.ones(self.count, np.float32)
        terminated, truncated = np.zeros(self.count, np.bool_), np.zeros(self.count, np.bool_)
        ended: list[Ended] = []
        tasks: list[str] = []
        for i, guard in enumerate(self._guards):
            action = self._action(actions[i])
            row, rewards[i], terminated[i], truncated[i], info = guard.step(action, self._row, self._rows[i])
            if self._discount_s is not None and "duration_s" in info:
                durations[i] = float(info["duration_s"]) / self._discount_s
            tasks += info.get("tasks", ())
            self._rows[i] = row
            self._returns[i] += rewards[i]
            self._lengths[i] += 1
            over = bool(terminated[i] or truncated[i])
            self._put_mask(i, info, over)
            if over:
                figures = {k: float(v) for k, v in info.items() if isinstance(v, _NUMBER) and math.isfinite(v)}
                ended.append(Ended(i, self._rows[i].copy(), float(self._returns[i]), int(self._lengths[i]), figures))
                self._returns[i], self._lengths[i] = 0.0, 0
                self.episodes[i] += 1
                self._begin(i)
        return Step(self._rows.copy(), rewards, durations, terminated, truncated, ended, tasks)

    def save(self) -> bytes | None:
        """Everything that the future depends on; None where an environment cannot be saved."""
        envs = [guard.env for guard in self._guards]
        try:
            data: bytes = cloudpickle.dumps((envs, self.episodes, self._rows, self._returns, self._lengths))
            cloudpickle.loads(data)
        except Exception:  # whatever an environment holds: sockets, processes, generators
            return None
        return data

    def restore(self, state: bytes) -> Float32:
        """Go on where ``save`` was called; rows, [n, row]."""
        self.close()
        envs, self.episodes, self._rows, self._returns, self._lengths = cloudpickle.loads(state)
        for guard, env in zip(self._guards, envs, strict=True):
            guard.env = env
        self._probe = None
        return self._rows.copy()

    def close(self) -> None:
        """Let go of everything."""
        for guard in self._guards:
            guard.close()

    def _begin(self, i: int) -> None:
        fresh, self._probe = (self._probe, None) if i == 0 and self.episodes[0] == self._probed else (None, self._probe)
        if fresh is not None:
            self._rows[i] = fresh
            return
        self._rows[i], info = self._guarded_reset(i)
        self._put_mask(i, info, over=False)

    def _guarded_reset(self, i: int) -> tuple[Float32, Mapping[str, Any]]:
        """Begin the next episode that can begin."""
        self.episodes[i] -= 1

        def seed() -> int:
            self.episodes[i] += 1
            return self._seeds.episode(i, self.episodes[i])

        return self._guards[i].reset(seed, self._row)

    def _row(self, env: Environment, observation: Any, info: Mapping[str, Any]) -> Float32:
        """What is seen; where the mask stands, ones."""
        flat: Any = spaces.flatten(env.observation_space, observation)
        parts = [np.ravel(flat).astype(np.float32)]
        if self.layout.n_mask:
            parts.append(np.ones(self.layout.n_mask, np.float32))
        if self.layout.n_privileged:
            parts.append(np.ravel(info["privileged"]).astype(np.float32))
        row = np.concatenate(parts) if len(parts) > 1 else parts[0]
        if len(row) != self.layout.row:
            raise ValueError(f"{len(row)} numbers (observation, mask, privileged), not {self.layout.row}")
        return row

    def _put_mask(self, i: int, info: Mapping[str, Any], over: bool) -> None:
        """Into the row; what an episode ends with forbids nothing, nor does an environment that tells none this time.

        Raises:
            MaskError: it is of no use, or the environment told none when it was made.
        """
        mask = None if over else self._mask(i, info)
        if mask is None:
            return
        layout, env = self.layout, self._guards[i].env
        if not self._tells:
            assert env is not None
            raise late(env, int(self._lengths[i]))
        self._rows[i, layout.n_obs : layout.n_obs + layout.n_mask] = mask[: layout.n_mask]

    def _mask(self, i: int, info: Mapping[str, Any]) -> NDArray[np.bool_] | None:
        env = self._guards[i].env
        assert env is not None
        return action_mask(env, info, int(self._lengths[i]))

    def _action(self, action: NDArray[Any]) -> Any:
        space = self.action_space
        if isinstance(space, spaces.Discrete):
            return int(action[0]) + int(space.start)
        return np.asarray(action, space.dtype).reshape(space.shape or ())


class VectorWorlds:
    """A Gymnasium ``VectorEnv`` with autoreset in the same step, as the twins of campaigns are.

    Masks and privileged quantities come from ``infos["action_mask"]`` and ``infos["privileged"]``, [n, ...] each, where
    the first reset gives some; durations from ``infos["duration_s"]``.

    Args:
        name: of the campaign, for messages.

    Raises:
        EnvironmentFault: observations or rewards are not finite.
    """

    def __init__(
        self,
        env: gymnasium.vector.VectorEnv[Any, Any, Any],
        *,
        with_mask: bool = True,
        with_privileged: bool = True,
        discount_s: float | None = None,
        seed: int | None = None,
        name: str = "the environment",
    ) -> None:
        self.env, self.count = env, env.num_envs
        self._name, self._steps = name, 0
        self.observation_space, self.action_space = env.single_observation_space, env.single_action_space
        self._discount_s, self._with_privileged = discount_s, with_privileged
        space = self.action_space
        self._first_choice = int(space.start) if isinstance(space, spaces.Discrete) else None
        self.heads = action_heads(space) if isinstance(space, spaces.Discrete | spaces.MultiDiscrete) else ()
        self._n_obs = int(np.prod(self.observation_space.shape or ()))
        self.failures: Mapping[str, int] = {}
        self.episodes = [0] * self.count
        self._returns = np.zeros(self.count)
        self._lengths = np.zeros(self.count, np.int64)
        self._last: Float32 = np.zeros((self.count, 0), np.float32)
        # Only a reset tells whether there are masks, and how many privileged quantities.
        observations, infos = env.reset(seed=seed)
        self._n_mask = sum(self.heads) if with_mask and "action_mask" in infos else 0
        self._first: Float32 | None = self._rows(observations, infos)
        n_action = len(self.heads) or int(np.prod(space.shape or (1,)))
        rest = self._first.shape[1] - self._n_obs - self._n_mask
        self.layout = Layout(self._n_obs, self._n_mask, rest, n_action)

    def begin(self, seed: int | None = None) -> Float32:
        """Begin an episode in each; rows, [n, row]."""
        first, self._first = self._first, None
        campaigns = self.env.unwrapped
        if any(self.episodes) and isinstance(campaigns, CampaignVectorEnv):
            first = None
            campaigns.begin_at(self.episodes)
        return first if first is not None and seed is None else self._reset(seed)

    def step(self, actions: NDArray[Any]) -> Step:
        """Answer the open decision of each."""
        space = self.action_space
        answers = np.asarray(actions, space.dtype).reshape((self.count, *(space.shape or ())))
        if self._first_choice is not None:
            answers = answers + self._first_choice
        self._steps += 1
        observations, rewards, terminated, truncated, infos = self.env.step(answers)
        rows = self._rows(observations, infos)
        with np.errstate(over="ignore"):
            rewards = np.asarray(rewards, dtype=np.float32)
        self._require_finite("the reward", rewards)
        self._returns += rewards
        self._lengths += 1
        done = np.logical_or(terminated, truncated)
        ended: list[Ended] = []
        if done.any():
            ended = [self._end(int(i), infos) for i in np.flatnonzero(done)]
            self._returns[done] = 0.0
            self._lengths[done] = 0
        if self._discount_s is not None and "duration_s" in infos:
            durations = np.asarray(infos["duration_s"], np.float32) / np.float32(self._discount_s)
        else:
            durations = np.ones(self.count, np.float32)
        tasks = infos.get("tasks", ())
        return Step(rows, rewards, durations, np.asarray(terminated), np.asarray(truncated), ended, tasks)

    def save(self) -> bytes | None:
        """Everything that the future depends on; None where the environment cannot be pickled."""
        try:
            data: bytes = cloudpickle.dumps((self.env, self.episodes, self._returns, self._lengths, self._last))
            cloudpickle.loads(data)
        except Exception:
            return None
        return data

    def restore(self, state: bytes) -> Float32:
        """Go on where ``save`` was called; rows, [n, row]."""
        self.env.close()
        self.env, self.episodes, self._returns, self._lengths, self._last = cloudpickle.loads(state)
        self._first = None
        return self._last.copy()

    def close(self) -> None:
        """Let go of everything."""
        self.env.close()

    def _reset(self, seed: int | None) -> Float32:
        observations, infos = self.env.reset(seed=seed)
        self._returns[:] = 0.0
        self._lengths[:] = 0
        return self._rows(observations, infos)

    def _rows(self, observations: Any, infos: dict[str, Any]) -> Float32:
        parts = [np.reshape(observations, (self.count, -1))]
        if self._n_mask:
            parts.append(self._masks(infos))
        if self._with_privileged and "privileged" in infos:
            parts.append(infos["privileged"])
        with np.errstate(over="ignore"):
            self._last = np.concatenate(parts, axis=1, dtype=np.float32)
        self._require_finite("the observation", self._last)
        return self._last

    def _masks(self, infos: dict[str, Any]) -> NDArray[np.bool_]:
        """Of each environment; all allowed where it told none."""
        masks = np.asarray(infos.get("action_mask", np.ones((self.count, self._n_mask))), np.bool_)
        told = infos.get("_action_mask")
        return masks if told is None else masks | ~np.asarray(told)[:, None]

    def _end(self, i: int, infos: dict[str, Any]) -> Ended:
        final = _entry(infos.get("final_info", {}), i)
        parts = [np.ravel(infos["final_obs"][i])]
        mask = final.pop("action_mask", np.ones(self._n_mask))
        if self._n_mask:
            parts.append(np.ravel(mask))
        privileged = final.pop("privileged", None)
        if self.layout.n_privileged:
            parts.append(np.ravel(privileged))
        figures = {k: float(v) for k, v in final.items() if isinstance(v, _NUMBER)}
        self.episodes[i] += 1
        row = np.concatenate(parts, dtype=np.float32)
        self._require_finite("the last observation", row[None], i)
        return Ended(i, row, float(self._returns[i]), int(self._lengths[i]), figures)

    def _require_finite(self, what: str, numbers: Float32, first: int = 0) -> None:
        """Refuse what would poison all that is learned from it; environments that check themselves say more."""
        fine = np.isfinite(numbers).reshape(len(numbers), -1).all(axis=1)
        if not fine.all():
            i = int(np.argmin(fine))
            bad = np.ravel(numbers[i])
            bad = bad[~np.isfinite(bad)]
            raise EnvironmentFault(
                f"{self._name}, environment {first + i + 1} of {self.count}, step {self._steps} of this training: "
                f"{what} has {bad[0]}, which nothing can be learned from",
                "not_finite",
            )


def make_worlds(
    config: Config,
    game: Game,
    seeds: Seeds,
    count: int,
    folder: Path,
    *,
    with_mask: bool = True,
    with_privileged: bool = True,
    prepare: Callable[[Any, str], Any] = lambda environment, name: environment,
    leader: Leader | None = None,
) -> Worlds:
    """The environments that a configuration asks for.

    Args:
        folder: for the files of real tasks.
        prepare: called with each environment, or with a vector of them, and the campaign's name; gives what is used.
        leader: of the ranks that each environment spans; None: this process alone.
    """
    assert config.train is not None
    distributed = config.train.distributed
    options: dict[str, Any] = {
        "with_mask": with_mask,
        "with_privileged": with_privileged,
        "discount_s": distributed.discount_s,
    }
    if rewarded(game):
        envs = [game.environment] * count if leader is None else leader.lead(game.environment, count)
        return SingleWorlds(envs, seeds, section=distributed.environment, **options)
    campaigns: CampaignFactory = game  # type: ignore[assignment]
    if distributed.simulations == "executor":
        # Executors are twenty megabytes that other actors do without.
        from rlctl.distributed.actor.real_env import RealCampaigns

        def maker(real: RealCampaigns) -> Environment:
            prepared: Environment = prepare(real.environment(), game.name)
            return prepared

        makers = [partial(maker, RealCampaigns(config, campaigns, folder / str(i))) for i in range(count)]
        return SingleWorlds(makers, seeds, section=distributed.environment, **options)
    vector = CampaignVectorEnv(campaigns, count, seeds.seed, config.machine.capacity())
    vector.seeds = seeds
    return VectorWorlds(prepare(vector, game.name), name=f"campaign {game.name}", **options)


def _entry(infos: Any, i: int) -> dict[str, Any]:
    """What a vector environment's infos say of environment ``i``: from a dict of arrays, or from an array of dicts."""
    if not isinstance(infos, dict):
        return dict(infos[i] or {})
    return {
        key: _entry(value, i) if isinstance(value, dict) else value[i]
        for key, value in infos.items()
        if not key.startswith("_") and np.all(infos.get(f"_{key}", np.ones(i + 1))[i])
    }
