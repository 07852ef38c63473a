"""How often a policy decides otherwise than a rule would."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rlctl.core.campaign import Action, Decision
from rlctl.core.campaign_factory import CampaignFactory
from rlctl.core.machine import Capacity
from rlctl.core.policy import Policy
from rlctl.environments.residual import meant
from rlctl.environments.twin_rollouts import rollout_on_twin


def differing_share(
    factory: CampaignFactory, capacity: Capacity, policy: Policy, rule: Policy, instances: Sequence[int]
) -> float:
    """Share of a policy's decisions in which the rule's answer comes nearest to another choice, or to none.

    Args:
        policy: a network that chooses; it plays the instances, and the rule only watches.
    """
    watched = [_Watched(copy.deepcopy(policy), copy.deepcopy(rule)) for _ in instances]
    rollout_on_twin(factory, capacity, list(zip(instances, watched, strict=True)))
    return sum(one.differing for one in watched) / max(1, sum(one.decisions for one in watched))


class _Watched:
    """A policy that asks a rule for its opinion at each decision."""

    def __init__(self, policy: Policy, rule: Policy) -> None:
        self.name = policy.name
        self._policy, self._rule = policy, rule
        self.decisions = self.differing = 0

    def act(self, decision: Decision) -> Action:
        action, theirs = self._policy.act(decision), self._rule.act(decision)
        self.decisions += 1
        self.differing += not _same(decision, action, theirs)
        return action

    def reset(self, seed: int) -> None:
        self._policy.reset(seed)
        self._rule.reset(seed)

    def state(self) -> Mapping[str, Any]:
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        return None


def _same(decision: Decision, ours: Action, theirs: Action) -> bool:
    """Whether two answers are the same: quantities of the same names by their values, others by what they mean."""
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping) and set(ours) == set(theirs):
        return all(_equal(value, theirs[name]) for name, value in ours.items())
    mine, other = meant(decision, ours), meant(decision, theirs)
    return mine is not None and other is not None and _equal(mine, other)


def _equal(ours: Any, theirs: Any) -> bool:
    a, b = np.ravel(np.asarray(ours)), np.ravel(np.asarray(theirs))
    if a.dtype.kind == "f" and isinstance(ours, np.ndarray):
        return bool(np.allclose(a, b, atol=0.05))  # of a Box
    return bool(np.array_equal(a, b))
