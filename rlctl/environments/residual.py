"""Policies that correct a rule: a network chooses among changes of the rule's answer, or sees what the rule advises.

``ResidualActions`` (for one environment) and ``ResidualVectorActions`` (for many) make those choices the actions of a
campaign, for learning; ``ResidualPolicy`` joins rule and network again.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any, cast

import gymnasium
import numpy as np
from numpy.typing import NDArray

from rlctl.core.campaign import Action, Decision, Mask, ResidualChoices
from rlctl.core.campaign_factory import CampaignFactory
from rlctl.core.errors import ConfigError
from rlctl.core.machine import Capacity
from rlctl.core.policy import Policy, Preferring, Remembering
from rlctl.environments.campaign_env import CampaignEnv
from rlctl.environments.campaign_vector_env import CampaignVectorEnv

Heads = tuple[int, ...]


def residual_choices(decision: Decision, rule: Policy, advised: Heads | None = None) -> ResidualChoices:
    """The choices around a rule's answer; ConfigError if the campaign offers none, or the answer is not named.

    What a rule remembers stands behind what the network reads.

    Args:
        advised: how many choices each head of the campaign has: these are the choices then, and the network sees which
            of them the rule means. None: they are relative to the answer.
    """
    proposal = rule.act(decision)
    if advised is not None:
        choices = _advised(decision, proposal, advised)
    else:
        if _is(type(rule), Preferring) and isinstance(proposal, Mapping):
            proposal = {**proposal, "preferences": cast(Preferring, rule).preferences(decision)}
        if decision.residual is None or not isinstance(proposal, Mapping):
            raise ConfigError("residual: this campaign, or this rule, does not know choices around a rule's answer")
        choices = decision.residual(proposal)
    if not _is(type(rule), Remembering):
        return choices
    shown = decision.observation if choices.observation is None else choices.observation
    remembered = np.asarray(cast(Remembering, rule).remembered(decision), np.float32)
    return replace(choices, observation=np.r_[shown, remembered])


def meant(decision: Decision, answer: Action) -> NDArray[Any] | None:
    """The choices, or numbers of a Box, that a policy's answer means at a decision; None: none of them does.

    Raises:
        ConfigError: it answers with named quantities, of which the campaign does not say which choice is nearest.
    """
    if not isinstance(answer, Mapping):
        return np.asarray(answer)
    if decision.nearest is None:
        raise ConfigError("the campaign does not say which choice is nearest to a rule's answer (Decision.nearest)")
    return decision.nearest(answer)


def _advised(decision: Decision, proposal: Action, heads: Heads) -> ResidualChoices:
    """Behind the observation, 1 for the rule's choice of each head and 0 for the others; its choice is its answer."""
    answer = meant(decision, proposal)
    shown = np.zeros(sum(heads), np.float32)
    if answer is not None:
        shown[np.cumsum((0, *heads[:-1])) + np.asarray(answer, np.int64).reshape(-1)] = 1.0

    def named(indices: NDArray[np.int64]) -> Action:
        return proposal if answer is not None and np.array_equal(indices, answer) else indices

    return ResidualChoices((), decision.mask, named, np.r_[decision.observation, shown])


def residual_observation_space(
    factory: CampaignFactory, capacity: Capacity, rule: Policy, advised: Heads | None = None
) -> gymnasium.spaces.Box | None:
    """The space of what a network reads that corrects a rule; None: the campaign's own.

    Raises:
        ConfigError: the campaign offers no choices around the rule's answer.
    """
    campaign, asked = factory.campaign(0), copy.deepcopy(rule)
    campaign.begin(capacity)
    asked.reset(0)
    decision = campaign.decision()
    shown = None if decision is None else residual_choices(decision, asked, advised).observation
    if shown is None or shown.shape == campaign.observation_space.shape:
        return None
    low, high = campaign.observation_space.low.min(), campaign.observation_space.high.max()
    return gymnasium.spaces.Box(low, high, shown.shape, np.float32)


@cache
def _is(rule: type[Policy], protocol: type) -> bool:
    return issubclass(rule, protocol)  # takes longer than the decision itself


class ResidualActions(gymnasium.ActionWrapper[Any, Any, Any]):
    """A campaign's environment whose actions are choices around what a rule says; masks are of these.

    Args:
        env: a ``CampaignEnv``, which may be wrapped.
        rule: it may have a memory.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], rule: Policy, advised: Heads | None = None) -> None:
        super().__init__(env)
        self._advised = advised
        self._rule = copy.deepcopy(rule)
        self._choices: ResidualChoices | None = None
        campaigns = cast(CampaignEnv, env.unwrapped)
        space = residual_observation_space(campaigns.factory, campaigns.capacity, rule, advised)
        if space is not None:
            self.observation_space = space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin a campaign."""
        self._rule.reset(0)
        return self._around(*self.env.reset(seed=seed, options=options))

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Answer the open decision."""
        observation, reward, terminated, truncated, info = self.env.step(self.action(action))
        observation, info = self._around(observation, info)
        return observation, reward, terminated, truncated, info

    def action(self, action: Any) -> Any:
        """The named quantities of a choice."""
        return action if self._choices is None else self._choices.named(np.asarray(action, np.int64).reshape(-1))

    def action_masks(self) -> Mask:
        """Allowed choices, flat over the heads, as sb3-contrib asks for them."""
        mask: Mask = self.env.get_wrapper_attr("action_masks")() if self._choices is None else self._choices.mask
        return mask

    def _around(self, observation: Any, info: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        decision = cast(CampaignEnv, self.env.unwrapped).episode.decision
        self._choices = choices = None if decision is None else residual_choices(decision, self._rule, self._advised)
        if choices is None:
            return observation, info
        return (
            observation if choices.observation is None else choices.observation,
            {**info, "action_mask": choices.mask},
        )


class ResidualVectorActions(gymnasium.vector.VectorActionWrapper):
    """The same for a ``CampaignVectorEnv``."""

    def __init__(self, env: CampaignVectorEnv, rule: Policy, advised: Heads | None = None) -> None:
        super().__init__(env)
        self._campaigns, self._advised = env, advised
        self._rules = [copy.deepcopy(rule) for _ in range(env.num_envs)]
        self._choices: list[ResidualChoices] = []
        space = residual_observation_space(env.factory, env.capacity, rule, advised)
        if space is not None:
            self.single_observation_space = space
            self.observation_space = gymnasium.vector.utils.batch_space(space, env.num_envs)

    @property
    def centre(self) -> tuple[int, ...]:
        """The choices that mean "as the rule says"; known after the first reset."""
        return self._choices[0].centre

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin all campaigns."""
        for rule in self._rules:
            rule.reset(0)
        return self._around(*self._campaigns.reset(seed=seed, options=options))

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Answer every open decision."""
        last = self._choices
        observations, rewards, terminated, truncated, infos = self._campaigns.step(self.actions(actions))
        for i in np.flatnonzero(infos.get("_final_obs", ())).tolist():
            self._rules[i].reset(0)
            if last[i].observation is not None:
                infos["final_obs"][i] = last[i].observation
        observations, infos = self._around(observations, infos)
        return observations, rewards, terminated, truncated, infos

    def actions(self, actions: Any) -> Any:
        """The named quantities of each choice."""
        rows = np.asarray(actions).reshape(self.num_envs, -1)
        return [choices.named(row) for choices, row in zip(self._choices, rows, strict=True)]

    def action_masks(self) -> NDArray[np.bool_]:
        """Allowed choices of each campaign, [num_envs, choices]."""
        return np.array([choices.mask for choices in self._choices])

    def _around(self, observations: Any, infos: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        decisions = [episode.decision for episode in self._campaigns.episodes]
        asked = zip(decisions, self._rules, strict=True)
        self._choices = [residual_choices(d, rule, self._advised) for d, rule in asked if d is not None]
        shown = [choices.observation for choices in self._choices if choices.observation is not None]
        self._campaigns.observes = not shown
        if shown:
            observations = np.stack(shown)
        return observations, {**infos, "action_mask": self.action_masks()}


class ResidualPolicy:
    """A rule, and a network that corrects it.

    Args:
        digest: of the network's bundle.
        advised: see ``residual_choices``.
    """

    def __init__(self, rule: Policy, network: Policy, digest: str | None = None, advised: Heads | None = None) -> None:
        self.rule, self.advised = rule, advised
        self.network = network
        self.name = network.name
        self.digest = digest

    def act(self, decision: Decision) -> Action:
        """The network's answer, in named quantities if it corrects the rule's."""
        choices = residual_choices(decision, self.rule, self.advised)
        return choices.named(np.asarray(self.network.act(decision.among(choices)), np.int64))

    def reset(self, seed: int) -> None:
        """Forget all subjects."""
        self.rule.reset(seed)
        self.network.reset(seed)

    def state(self) -> Mapping[str, Any]:
        """Of both."""
        states = {"rule": dict(self.rule.state()), "network": dict(self.network.state())}
        return {key: value for key, value in states.items() if value}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Of both."""
        self.rule.restore(state.get("rule", {}))
        self.network.restore(state.get("network", {}))
