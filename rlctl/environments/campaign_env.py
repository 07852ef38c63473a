"""A campaign on an executor as a ``gymnasium.Env``, on the driver that also steers real campaigns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, closing
from typing import Any, cast

import gymnasium
import numpy as np
from numpy.typing import NDArray

from rlctl.core.campaign import NO_MASK, Action, Campaign, Decision, Mask, head_sizes
from rlctl.core.campaign_factory import CampaignFactory
from rlctl.core.driver import Driver
from rlctl.core.machine import Capacity
from rlctl.core.records import Recorder
from rlctl.core.runner import TaskRunner
from rlctl.core.simulation import TaskModel
from rlctl.executors.simulated.backend import SimulatedExecutor

Observation = NDArray[np.float32]
Info = dict[str, Any]


class Episode:
    """One campaign as a sequence of rewards.

    The reward of a decision is minus the node-seconds allocated until the next one, or what the campaign's own cost has
    risen by, scaled, plus the difference of the campaign's potential, ``gamma * after - before`` (Ng, Harada, Russell
    1999), which leaves the best policy what it was. Reaching the goal terminates; the end of the allocation truncates,
    and the potential stays that of the state then, since the campaign would go on in another allocation.
    """

    def __init__(self, campaign: Campaign, executor: TaskRunner, gamma: float) -> None:
        self.campaign = campaign
        self.executor = executor
        self.driver = Driver(campaign, executor)
        self.gamma = gamma
        self.decision: Decision | None = None
        self._last: Decision | None = None
        self.terminated = False
        self.truncated = False
        self._potential = 0.0
        self._cost = 0.0

    def begin(self) -> None:
        """Run to the first decision."""
        self.decision = self.driver.begin()
        outcome = self.campaign.outcome()
        self._potential, self._cost = outcome.potential, outcome.cost or 0.0

    def reward(self) -> float:
        """Go on to the next decision after ``driver.answer``; returns the reward of that answer."""
        self.decision = self.driver.advance()
        outcome = self.campaign.outcome()
        if outcome.cost is not None:
            cost, self._cost = outcome.cost - self._cost, outcome.cost
        else:
            cost = self.driver.uncharged() if self.decision is None else self.decision.cost
        self.terminated = outcome.reached
        self.truncated = outcome.ended and not outcome.reached
        before, self._potential = self._potential, outcome.potential
        return self.gamma * outcome.potential - before - self.campaign.reward_scale * cost

    def observation(self) -> Observation:
        """Of the open decision; once the campaign has ended, of the last one."""
        self._last = self.decision or self._last
        if self._last is None:
            raise ValueError("the campaign ended before its first decision: its deadline is too short")
        return self._last.observation

    def mask(self) -> Mask:
        """Allowed choices, flat over the heads; all once the campaign has ended."""
        return self.decision.mask if self.decision is not None else every_choice(self.campaign)

    def figures(self) -> dict[str, float]:
        """The result so far, for logs and tables."""
        outcome, ledger = self.campaign.outcome(), self.driver.ledger
        capacity = self.executor.capacity
        allocated = ledger.node_seconds * capacity.total_cores / capacity.nodes
        return {
            "successes": float(outcome.successes),
            "reached": float(outcome.reached),
            "node_seconds": ledger.node_seconds,
            "cost": ledger.node_seconds if outcome.cost is None else outcome.cost,
            "utilisation": ledger.core_seconds / allocated if allocated > 0.0 else 0.0,
            "decisions": float(self.driver.decisions),
            **outcome.extra,
        }


def twin(
    factory: CampaignFactory,
    capacity: Capacity,
    instance: int,
    journal: Recorder | None = None,
    model: TaskModel | None = None,
) -> SimulatedExecutor:
    """The simulated executor of an instance, with the outages of its nodes.

    Args:
        journal: records submissions and launches, as of a real executor.
        model: in place of the factory's.
    """
    model = factory.task_model(instance) if model is None else model
    outages = factory.outages(instance, capacity)
    return SimulatedExecutor(capacity, model, journal, outages=outages, scoring=factory.scoring)


def every_choice(campaign: Campaign) -> Mask:
    """The mask that allows each choice; empty for a Box."""
    sizes = head_sizes(campaign.action_space)
    return np.ones(int(sizes.sum()), np.bool_) if sizes.size else NO_MASK


class CampaignEnv(gymnasium.Env[Observation, Any]):
    """A campaign as a Gymnasium environment; on the simulated executor unless another one is given.

    Args:
        factory: makes the campaigns; each ``reset`` draws a new instance.
        capacity: the allocation.
        executor: opens the executor of an instance until the episode is over; None: simulated, with the factory's task
            model.
        gamma: discount of the learner, which the shaping must share.

    ``info`` holds ``action_mask`` (unless actions are numbers of a Box), ``privileged``, ``duration_s`` since the
    decision before, ``tasks`` that the answer has started, and the figures of the campaign so far.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012  (Gymnasium's own convention)

    def __init__(
        self,
        factory: CampaignFactory,
        capacity: Capacity,
        executor: Callable[[int], AbstractContextManager[TaskRunner]] | None = None,
        gamma: float = 1.0,
    ) -> None:
        self.factory = factory
        self.capacity = capacity
        self.gamma = gamma
        self._now_s = 0.0
        self._executor, self._opened = executor, ExitStack()
        probe = factory.campaign(0)
        self.observation_space = cast(gymnasium.Space[Observation], probe.observation_space)
        self.action_space = probe.action_space
        self._episode: Episode | None = None

    @property
    def episode(self) -> Episode:
        """The campaign in play.

        Raises:
            gymnasium.error.ResetNeeded: ``reset`` was never called.
        """
        if self._episode is None:
            raise gymnasium.error.ResetNeeded("call reset() before step()")
        return self._episode

    def reset(self, *, seed: int | None = None, options: Mapping[str, Any] | None = None) -> tuple[Observation, Info]:
        """Begin a new campaign; ``options={"instance": n}`` asks for a certain one."""
        super().reset(seed=seed)
        self.close()
        instance = int((options or {}).get("instance", self.np_random.integers(2**31)))
        self._instance = instance
        opened: AbstractContextManager[TaskRunner]
        if self._executor is not None:
            opened = self._executor(instance)
        else:
            opened = closing(twin(self.factory, self.capacity, instance))
        executor = self._opened.enter_context(opened)
        self._episode = Episode(self.factory.campaign(instance), executor, self.gamma)
        self._episode.begin()
        self._now_s = executor.now()
        info = self._info()
        return self._episode.observation(), info

    def step(self, action: Action) -> tuple[Observation, float, bool, bool, Info]:
        """Answer the open decision."""
        episode = self.episode
        if not isinstance(action, Mapping) and isinstance(self.action_space, gymnasium.spaces.Discrete):
            action = np.asarray([action], np.int64).reshape(-1)
        episode.driver.answer(action)
        reward = episode.reward()
        info = self._info()
        return episode.observation(), reward, episode.terminated, episode.truncated, info

    def action_masks(self) -> Mask:
        """Allowed choices, flat over the heads, as sb3-contrib asks for them."""
        return self.episode.mask()

    def close(self) -> None:
        """Stop the executor of the campaign in play."""
        self._opened.close()

    def _info(self) -> Info:
        episode, before_s = self.episode, self._now_s
        self._now_s = episode.executor.now()
        masked = not isinstance(self.action_space, gymnasium.spaces.Box)
        return {
            **({"action_mask": self.action_masks()} if masked else {}),
            "privileged": self.factory.privileged(self._instance),
            "duration_s": self._now_s - before_s,
            "tasks": tuple(episode.driver.started),
            **episode.figures(),
        }
