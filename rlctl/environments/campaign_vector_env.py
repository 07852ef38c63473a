"""Many campaigns stepped together, on one task model call per step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from rlctl.core.campaign import Action, CampaignFactory
from rlctl.core.errors import ContractError
from rlctl.core.machine import Capacity
from rlctl.core.plugin_calls import asking
from rlctl.core.policy import Policy
from rlctl.core.simulation import Launch, Simulated, TaskModel
from rlctl.environments.campaign_env import Episode, every_choice, twin
from rlctl.executors.simulated.backend import SimulatedExecutor

Batch = Callable[[Sequence[tuple[TaskModel, Launch]]], list[Simulated]]
"""What many tasks of many instances do, computed together."""


def compute(executors: Sequence[SimulatedExecutor], batch: Batch) -> None:
    """Ask for everything that these executors have yet to know, together, and deliver it."""
    wanted = [(e.model, launch) for e in executors for launch in e.uncomputed]
    if not wanted:
        return
    with asking("the task model", f"outcomes() of {len(wanted)} tasks", len(wanted)):
        answers = batch(wanted)
    at = 0
    for executor in executors:
        count = len(executor.uncomputed)
        if count:
            executor.deliver(answers[at : at + count])
            at += count


MOST_DECISIONS = 1_000_000
"""Of a campaign on its twin: one that has not ended then never does."""


def play(
    factory: CampaignFactory,
    capacity: Capacity,
    players: Sequence[tuple[int, Policy]],
    watch: Callable[[int, Episode], None] | None = None,
) -> list[dict[str, float]]:
    """Play whole campaigns on simulated executors, all of them in step.

    Args:
        factory: makes the campaigns.
        capacity: the allocation of each.
        players: (instance, policy) of each campaign; a policy that keeps memory plays one campaign at a time.
        watch: told of each campaign, by its position, when it stands at a decision or has ended.

    Returns:
        ``Episode.figures`` of each campaign, in order.

    Raises:
        ContractError: a campaign does not end, or its cost is not finite.
    """
    executors = [twin(factory, capacity, instance) for instance, _ in players]
    episodes = [Episode(factory.campaign(i), e, 1.0) for (i, _), e in zip(players, executors, strict=True)]
    for (instance, policy), episode in zip(players, episodes, strict=True):
        policy.reset(instance)
        episode.begin()
    if watch is not None:
        for n, episode in enumerate(episodes):
            watch(n, episode)
    live = [n for n, episode in enumerate(episodes) if episode.decision is not None]
    while live:
        for n in live:
            decision = episodes[n].decision
            assert decision is not None
            if decision.number == MOST_DECISIONS:
                raise ContractError(
                    f"campaign {factory.name}, instance {players[n][0]}: outcome() has not ended after "
                    f"{MOST_DECISIONS:,} decisions of policy {players[n][1].name}: does time pass, and does it end at "
                    "deadline_s?"
                )
            with asking(f"policy {players[n][1].name}", f"decision {decision.number} of instance {players[n][0]}"):
                action = players[n][1].act(decision)
            episodes[n].driver.answer(action)
        compute([executors[n] for n in live], factory.outcomes)
        for n in live:
            episodes[n].reward()
            if watch is not None:
                watch(n, episodes[n])
        live = [n for n in live if episodes[n].decision is not None]
    figures = [episode.figures() for episode in episodes]
    for (instance, _), of in zip(players, figures, strict=True):
        if not math.isfinite(of["cost"]):
            raise ContractError(f"campaign {factory.name}, instance {instance}: outcome().cost is {of['cost']}")
    return figures


class EpisodeSeeds(Protocol):
    """Where instances come from, if from elsewhere than the seed."""

    def episode(self, environment: int, episode: int) -> int:
        """The instance of an environment's n-th episode."""


class CampaignVectorEnv(gymnasium.vector.VectorEnv[Any, Any, Any]):
    """``num_envs`` independent campaigns on simulated executors; a finished one begins anew in the same step.

    Instances are drawn from ``SeedSequence([seed, environment, episode])``. ``infos`` always holds ``action_mask``
    [num_envs, choices] (unless actions are numbers of a Box), ``privileged`` [num_envs, n] of the current states, and
    ``duration_s`` [num_envs], the time that passed in each campaign since the decision before; where an episode ended,
    ``final_obs`` and ``final_info`` as Gymnasium's own vector environments give them.
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012

    def __init__(
        self,
        factory: CampaignFactory,
        num_envs: int,
        seed: int,
        capacity: Capacity,
        gamma: float = 1.0,
    ) -> None:
        self.factory = factory
        self.seeds: EpisodeSeeds | None = None
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
        self._observations = np.zeros((num_envs, *self._shape(probe.observation_space)), np.float32)
        self._masks = np.tile(every_choice(probe), (num_envs, 1))
        self._privileged = np.zeros((num_envs, factory.privileged(0).size), np.float32)

    @staticmethod
    def _shape(space: gymnasium.spaces.Box) -> tuple[int, ...]:
        return tuple(space.shape)

    def instance(self, environment: int, episode: int) -> int:
        """The instance that an environment plays in its n-th episode."""
        if self.seeds is not None:
            return self.seeds.episode(environment, episode)
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
        compute([e.executor for e in self.episodes if isinstance(e.executor, SimulatedExecutor)], self.factory.outcomes)
        rewards = np.array([episode.reward() for episode in self.episodes])
        now_s = np.array([episode.executor.now() for episode in self.episodes])
        self._duration_s, self._now_s = now_s - self._now_s, now_s
        terminated = np.array([episode.terminated for episode in self.episodes])
        truncated = np.array([episode.truncated for episode in self.episodes])
        final: list[tuple[int, NDArray[np.float32], dict[str, Any]]] = []
        for i in np.flatnonzero(terminated | truncated).tolist():
            ended = self.episodes[i]
            info = {"action_mask": ended.mask(), "privileged": self._privileged[i].copy(), **ended.figures()}
            final.append((i, ended.observation(), info))
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
        """The next episode of each environment has this number."""
        self._began = list(episodes)

    def action_masks(self) -> NDArray[np.bool_]:
        """Allowed choices of each campaign, [num_envs, choices]."""
        return self._masks.copy()

    def close_extras(self, **kwargs: Any) -> None:
        """Nothing is held outside memory."""
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
