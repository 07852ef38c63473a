"""Environments: a campaign and an executor as a ``gymnasium.Env``, on the same driver that steers real campaigns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import gymnasium
import numpy as np
from numpy.typing import NDArray

from rlctl.core.campaign import Action, Around, Campaign, CampaignFactory, Decision, Placing, Unsteady
from rlctl.core.driver import Driver
from rlctl.core.machine import Capacity
from rlctl.core.policy import Policy
from rlctl.core.records import Recorder
from rlctl.core.runner import TaskRunner
from rlctl.core.simulation import TaskModel
from rlctl.environments.residual import around_rule
from rlctl.executors.simulated.backend import SimulatedExecutor

Observation = NDArray[np.float32]
Info = dict[str, Any]


class Episode:
    """One campaign as a sequence of rewards.

    The reward of a decision is minus the node-seconds allocated until the next decision, or what the campaign's price
    has risen by, scaled, plus the difference
    of the campaign's potential, ``gamma * after - before`` (Ng, Harada, Russell 1999), which leaves the best policy
    what it was. Reaching the goal terminates; the end of the allocation truncates, and the potential stays that of the
    state then, since the campaign would go on in another allocation.
    """

    def __init__(self, campaign: Campaign, executor: TaskRunner, gamma: float) -> None:
        self.campaign = campaign
        self.executor = executor
        self.driver = Driver(campaign, executor)
        self.gamma = gamma
        self.decision: Decision | None = None
        self._seen: Decision | None = None
        self.terminated = False
        self.truncated = False
        self._potential = 0.0
        self._price = 0.0

    def begin(self) -> None:
        """Run to the first decision."""
        self.decision = self.driver.begin()
        outcome = self.campaign.outcome()
        self._potential, self._price = outcome.potential, outcome.price or 0.0

    def reward(self) -> float:
        """Go on to the next decision after ``driver.answer``; returns the reward of that answer."""
        self.decision = self.driver.advance()
        outcome = self.campaign.outcome()
        if outcome.price is not None:
            cost, self._price = outcome.price - self._price, outcome.price
        else:
            cost = self.driver.uncharged() if self.decision is None else self.decision.cost
        self.terminated = outcome.reached
        self.truncated = outcome.ended and not outcome.reached
        before, self._potential = self._potential, outcome.potential
        return self.gamma * outcome.potential - before - self.campaign.reward_scale * cost

    def observation(self) -> Observation:
        """What the policy sees; once the campaign has ended, what it saw last."""
        self._seen = self.decision or self._seen
        if self._seen is None:
            raise ValueError("the campaign ended before its first decision: its deadline is too short")
        return self._seen.observation

    def mask(self) -> NDArray[np.bool_]:
        """Allowed choices, flat over the heads; all once the campaign has ended."""
        return self.decision.mask if self.decision is not None else np.ones(choices(self.campaign), np.bool_)

    def figures(self) -> dict[str, float]:
        """The result so far, for logs and tables."""
        outcome, ledger = self.campaign.outcome(), self.driver.ledger
        capacity = self.executor.capacity
        allocated = ledger.node_seconds * capacity.total_cores / capacity.nodes
        return {
            "successes": float(outcome.successes),
            "reached": float(outcome.reached),
            "node_seconds": ledger.node_seconds,
            "price": ledger.node_seconds if outcome.price is None else outcome.price,
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
    """The simulated executor of an instance, with what happens to its nodes.

    Args:
        journal: is told of submissions and launches, as by a real executor.
        model: in place of the factory's.
    """
    outages = factory.outages(instance, capacity) if isinstance(factory, Unsteady) else ()
    scoring = factory.scoring if isinstance(factory, Placing) else None
    model = factory.task_model(instance) if model is None else model
    return SimulatedExecutor(capacity, model, journal, outages=outages, scoring=scoring)


def choices(campaign: Campaign) -> int:
    """Length of a campaign's flat mask."""
    space = campaign.action_space
    return int(space.nvec.sum()) if isinstance(space, gymnasium.spaces.MultiDiscrete) else int(space.n)


class CampaignEnv(gymnasium.Env[Observation, Any]):
    """A campaign as a Gymnasium environment; on the simulated executor unless another one is given.

    Args:
        factory: makes the campaigns; each ``reset`` draws a new instance.
        capacity: the allocation.
        executor: makes the executor of an instance; None: simulated, with the factory's task model.
        gamma: discount of the learner, which the shaping must share.

    ``info`` holds ``action_mask``, ``privileged``, ``duration_s`` since the decision before, ``tasks`` that it has
    started, and the figures of the campaign so far. With ``residual``, a rule without memory, actions are choices
    around what the rule says, and masks are of these.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012  (Gymnasium's own convention)

    def __init__(
        self,
        factory: CampaignFactory,
        capacity: Capacity,
        executor: Callable[[int], TaskRunner] | None = None,
        gamma: float = 1.0,
    ) -> None:
        self.factory = factory
        self.capacity = capacity
        self.gamma = gamma
        self.residual: Policy | None = None
        self._around: Around | None = None
        self._now_s = 0.0
        self._executor = executor
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
        executor: TaskRunner
        if self._executor is not None:
            executor = self._executor(instance)
        else:
            executor = twin(self.factory, self.capacity, instance)
        self._episode = Episode(self.factory.campaign(instance), executor, self.gamma)
        self._episode.begin()
        self._now_s = executor.now()
        info = self._info()
        return self._observation(), info

    def step(self, action: Action) -> tuple[Observation, float, bool, bool, Info]:
        """Answer the open decision."""
        episode = self.episode
        if not isinstance(action, Mapping) and isinstance(self.action_space, gymnasium.spaces.Discrete):
            action = np.asarray([action], np.int64).reshape(-1)
        if self._around is not None:
            action = self._around.named(np.asarray(action, np.int64))
        episode.driver.answer(action)
        reward = episode.reward()
        info = self._info()
        return self._observation(), reward, episode.terminated, episode.truncated, info

    def action_masks(self) -> NDArray[np.bool_]:
        """Allowed choices, flat over the heads, as sb3-contrib asks for them."""
        return self.episode.mask() if self._around is None else self._around.mask

    def close(self) -> None:
        """Stop the executor of the campaign in play."""
        if self._episode is not None:
            self._episode.executor.close()

    def _observation(self) -> Observation:
        around = self._around
        return self.episode.observation() if around is None or around.observation is None else around.observation

    def _info(self) -> Info:
        episode, before_s = self.episode, self._now_s
        self._now_s = episode.executor.now()
        rule, decision = self.residual, episode.decision
        self._around = None if rule is None or decision is None else around_rule(decision, rule)
        return {
            "action_mask": self.action_masks(),
            "privileged": self.factory.privileged(self._instance),
            "duration_s": self._now_s - before_s,
            "tasks": tuple(episode.driver.started),
            **episode.figures(),
        }


def make_env(
    campaign: str, options: Mapping[str, Any] | None = None, capacity: Capacity | None = None, gamma: float = 1.0
) -> CampaignEnv:
    """The environment behind ``gymnasium.make("rlctl/...")``: a registered campaign on the simulated executor."""
    from rlctl.plugins.registry import campaign_factory

    factory = campaign_factory(campaign, dict(options or {}))
    if capacity is None:
        capacity = cast(Capacity, getattr(factory, "capacity", Capacity()))
    return CampaignEnv(factory, capacity, gamma=gamma)
