"""Many campaigns stepped together, on one task model call per step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from rlctl.core.campaign import Action
from rlctl.core.campaign_factory import CampaignFactory
from rlctl.core.machine import Capacity
from rlctl.environments.campaign_env import Episode, every_choice, twin
from rlctl.environments.twin_rollouts import compute_tasks
from rlctl.executors.simulated.backend import SimulatedExecutor


class CampaignVectorEnv(gymnasium.vector.VectorEnv[Any, Any, Any]):
    """``num_envs`` independent campaigns on simulated executors; a finished one begins anew in the same step.

    Instances are drawn from ``SeedSequence([seed, environment, episode])``. ``infos`` always holds ``action_mask``
    [num_envs, choices] (unless actions are numbers of a Box), ``privileged`` [num_envs, n] of the current states, and
    ``duration_s`` [num_envs], the time that passed in each campaign since the decision before; where an episode ended,
    ``final_obs`` and ``final_info`` as Gymnasium's own vector environments give them.

    Attributes:
        instance: gives the instance of an environment's n-th episode; may be replaced.
        observes: whether observations and masks are made; False where a wrapper makes its own.
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012

    def __init__(
        self, factory: CampaignFactory, num_envs: int, seed: int, capacity: Capacity, gamma: float = 1.0
    ) -> None:
        self.factory = factory
        self.instance: Callable[[int, int], int] = self._instance
        self.observes = True
        self.num_envs = num_envs
        self.capacity = capacity
        self.gamma = gamma
        self._seed = seed
        self._began = [0] * num_envs
        probe = factory.campaign(0)
        self.single_observation_space = probe.observation_space
        self.single_action_space = probe.action_space
        self.observation_space = gymnasium.vector.utils.batch_space(probe.observation_space, num_envs)
        self.action_space = gymnasium.vector.utils.batch_space(probe.action_space, num_envs)
        self.episodes: list[Episode] = []
        self._observations = np.zeros((num_envs, *probe.observation_space.shape), np.float32)
        self._masks = np.tile(every_choice(probe), (num_envs, 1))
        self._privileged = np.zeros((num_envs, factory.privileged(0).size), np.float32)

    def _instance(self, environment: int, episode: int) -> int:
        return int(np.random.SeedSequence([self._seed, environment, episode]).generate_state(1)[0])

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Begin all campaigns; a seed replaces that of the constructor."""
        if seed is not None:
            self._seed = int(seed if isinstance(seed, int) else seed[0] or 0)
            self._began = [0] * self.num_envs
        self._duration_s = np.zeros(self.num_envs)
        self.episodes = [self._begin(i) for i in range(self.num_envs)]
        self._now_s = np.array([episode.executor.now() for episode in self.episodes])
        for i in range(self.num_envs):
            self._look(i)
        return self._observations.copy(), self._infos()

    def step(
        self, actions: NDArray[Any] | Sequence[Action]
    ) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Answer every open decision; the tasks that this starts are computed together."""
        if isinstance(actions, np.ndarray):
            actions = list(actions.reshape(self.num_envs, -1))
        for episode, action in zip(self.episodes, actions, strict=True):
            episode.driver.answer(action)
        # Every executor here is a simulated one: ``_begin`` made it.
        compute_tasks(
            [e.executor for e in self.episodes if isinstance(e.executor, SimulatedExecutor)], self.factory.outcomes
        )
        rewards = np.array([episode.reward() for episode in self.episodes])
        now_s = np.array([episode.executor.now() for episode in self.episodes])
        self._duration_s, self._now_s = now_s - self._now_s, now_s
        terminated = np.array([episode.terminated for episode in self.episodes])
        truncated = np.array([episode.truncated for episode in self.episodes])
        final: list[tuple[int, NDArray[np.float32], dict[str, Any]]] = []
        for i in np.flatnonzero(terminated | truncated).tolist():
            ended = self.episodes[i]
            info = {"action_mask": ended.mask(), "privileged": self._privileged[i].copy(), **ended.figures()}
            final.append((i, ended.observation() if self.observes else self._observations[i].copy(), info))
            self.episodes[i] = self._begin(i)
            self._now_s[i] = self.episodes[i].executor.now()
        for i in range(self.num_envs):
            self._look(i)
        infos = self._infos()
        if final:
            observations = np.full(self.num_envs, None, dtype=object)
            present = np.zeros(self.num_envs, np.bool_)
            final_info: dict[str, Any] = {}
            for i, observation, info in final:
                observations[i] = observation
                present[i] = True
                final_info = self._add_info(final_info, info, i)
            infos |= {"final_obs": observations, "_final_obs": present, "final_info": final_info}
            infos["_final_info"] = present.copy()
        return self._observations.copy(), rewards, terminated, truncated, infos

    def begin_at(self, episodes: Sequence[int]) -> None:
        """Set the number of each environment's next episode."""
        self._began = list(episodes)

    def action_masks(self) -> NDArray[np.bool_]:
        """Allowed choices of each campaign, [num_envs, choices]."""
        return self._masks.copy()

    def close_extras(self, **kwargs: Any) -> None:
        """Drop the campaigns; nothing is held outside memory."""
        self.episodes = []

    def _begin(self, i: int) -> Episode:
        instance = self.instance(i, self._began[i])
        self._began[i] += 1
        executor = twin(self.factory, self.capacity, instance)
        episode = Episode(self.factory.campaign(instance), executor, self.gamma)
        episode.begin()
        self._privileged[i] = self.factory.privileged(instance)
        return episode

    def _look(self, i: int) -> None:
        if not self.observes:
            return
        self._observations[i] = self.episodes[i].observation()
        self._masks[i] = self.episodes[i].mask()

    def _infos(self) -> dict[str, Any]:
        everyone = np.ones(self.num_envs, np.bool_)
        masks = {"action_mask": self._masks.copy(), "_action_mask": everyone} if self._masks.size else {}
        return masks | {
            "privileged": self._privileged.copy(),
            "_privileged": everyone,
            "duration_s": self._duration_s,
            "_duration_s": everyone,
        }
