"""How often a policy decides otherwise than a rule would."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
        action, theirs = self._policy.act(decision), meant(decision, self._rule.act(decision))
        self.decisions += 1
        self.differing += theirs is None or not _same(action, theirs)
        return action

    def reset(self, seed: int) -> None:
        self._policy.reset(seed)
        self._rule.reset(seed)

    def state(self) -> Mapping[str, Any]:
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        return None


def _same(action: Action, other: NDArray[Any]) -> bool:
    ours, theirs = np.ravel(np.asarray(action)), np.ravel(other)
    return bool(np.allclose(ours, theirs, atol=0.05) if ours.dtype.kind == "f" else np.array_equal(ours, theirs))
