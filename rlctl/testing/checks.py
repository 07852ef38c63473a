"""``check_campaign`` and ``check_policy``: test a campaign or a policy from outside, as Gymnasium's ``check_env`` does.

Training, comparison, steering and resuming all rest on what ``rlctl.core.campaign`` and ``rlctl.core.policy`` promise.
A violation shows late and far from its cause; these checks find it on simulated tasks, in seconds.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rlctl.core.campaign import Action, Decision, action_to_json
from rlctl.core.campaign_factory import CampaignFactory
from rlctl.core.errors import ContractError
from rlctl.core.machine import Capacity
from rlctl.core.plugin_calls import asking
from rlctl.core.policy import Policy
from rlctl.testing.leaks import find_leak
from rlctl.testing.played_campaign import PlayedCampaign, call, comparable

ENOUGH_DECISIONS = 64
"""Of a campaign, to see whether a policy keeps its memory."""


@dataclass(frozen=True, slots=True)
class Checked:
    """Counts over a campaign that passed ``check_campaign``.

    Attributes:
        decisions: over all campaigns that were played.
        tasks: likewise.
        reached: for each policy, in how many of the instances it reached the goal; ``random`` chooses by chance. Empty
            for an environment with rewards, which has no goal.
        cut: episodes of such an environment that had not ended after ``evaluate.max_steps``.
    """

    decisions: int
    tasks: int
    instances: int
    reached: Mapping[str, int]
    cut: int = 0


def check_campaign(
    factory: CampaignFactory,
    capacity: Capacity | None = None,
    policies: Sequence[Policy] = (),
    instances: int = 4,
    seed: int = 0,
) -> Checked:
    """Play a campaign on its twin and check that it keeps what ``rlctl.core.campaign`` promises.

    Args:
        factory: of the campaign.
        capacity: the allocation; None: the factory's.
        policies: rules that should reach the goal; without any, nothing is said of a goal that chance does not reach.
        instances: how many are played, by chance and by each policy.
        seed: of the first instance.

    Raises:
        ContractError: one line: which method, what it did, what it should do.
    """
    capacity = capacity or factory.capacity
    _check_factory(factory, seed)
    leak = call("decision()", find_leak, factory, capacity)
    if leak is not None:
        raise ContractError(f"decision(): {leak}: policies must not read what only the twin knows")
    seeds = [seed + i for i in range(instances)]
    played: dict[str, list[PlayedCampaign]] = {"random": []}
    for instance in seeds:
        played["random"].append(PlayedCampaign(factory, instance, capacity).play())
    first = played["random"][0]
    # Again, after others were played: the same seed and events must give the same campaign.
    again = PlayedCampaign(factory, seed, capacity).play()
    _compare(first, again)
    quiet = PlayedCampaign(factory, seed, capacity, foreign_events=False).play()
    if quiet.decisions != first.decisions or quiet.outcome != first.outcome:
        raise ContractError("on_event() of a task that the campaign never started changes what comes: ignore the event")
    _check_replay(factory, first, capacity)
    _check_masked(factory, first, capacity)
    for instance in seeds:
        PlayedCampaign(factory, instance, capacity, faults=True).play()
    for policy in policies:
        played[policy.name] = [PlayedCampaign(factory, instance, capacity).play(policy) for instance in seeds]
    reached = {name: sum(play.outcome.reached for play in plays) for name, plays in played.items()}
    if policies and not any(reached.values()):
        raise ContractError(
            f"outcome(): none of {', '.join(reached)} reached the goal in {instances} instances: is it within reach "
            "before deadline_s, and does on_event() count what the twin's results say?"
        )
    everything = [play for plays in played.values() for play in plays]
    return Checked(
        decisions=sum(len(play.decisions) for play in everything),
        tasks=sum(len(play.campaign.started) for play in everything),
        instances=instances,
        reached=reached,
    )


def check_policy(
    factory: CampaignFactory, policy: Policy, capacity: Capacity | None = None, instances: int = 2, seed: int = 0
) -> None:
    """Play a campaign and check that a policy keeps what ``rlctl.core.policy`` promises.

    Args:
        factory: of a campaign that keeps its own promises; see ``check_campaign``.
        capacity: as in ``check_campaign``.
        instances: whose beginnings are played, that of the first one twice.
        seed: of the first instance.

    Raises:
        ContractError: one line: which method, what it did, what it should do.
    """
    capacity = capacity or factory.capacity
    fresh = copy.deepcopy(policy)
    first = PlayedCampaign(factory, seed, capacity).play(policy, ENOUGH_DECISIONS)
    for instance in range(seed + 1, seed + instances):
        PlayedCampaign(factory, instance, capacity).play(_Resumed(policy, fresh, instance), ENOUGH_DECISIONS)
    again = PlayedCampaign(factory, seed, capacity).play(policy, ENOUGH_DECISIONS)
    if again.decisions != first.decisions:
        raise ContractError("reset(seed) should forget all: an instance that is played again goes another way")


class _Resumed:
    """Compares each answer of a policy with that of a fresh one that restores its state, as a resumed campaign does."""

    def __init__(self, policy: Policy, fresh: Policy, seed: int) -> None:
        self.name, self.reset, self.state, self.restore = policy.name, policy.reset, policy.state, policy.restore
        self._policy, self._fresh, self._seed = policy, fresh, seed

    def act(self, decision: Decision) -> Action:
        other = copy.deepcopy(self._fresh)
        other.reset(self._seed)
        state = call("state()", self._policy.state)
        if state:  # an empty one is not kept
            kept = call("state() gives what JSON cannot hold: it", json.dumps, dict(state))
            call("restore(state())", other.restore, json.loads(kept))
        with asking(f"policy {self.name}", f"decision {decision.number}"):
            action = self._policy.act(decision)
        if action_to_json(other.act(decision)) != action_to_json(action):
            raise ContractError(
                f"restore(state()) gives a policy that answers decision {decision.number} differently: "
                "state() should give all that act() remembers, as JSON"
            )
        return action


def _check_factory(factory: CampaignFactory, seed: int) -> None:
    if not isinstance(factory.name, str) or not isinstance(factory.version, int):
        raise ContractError(
            f"factory: name must be text and version a number, got {factory.name!r}, {factory.version!r}"
        )
    hidden = [call(f"privileged({s})", factory.privileged, s) for s in (seed, seed + 1, seed)]
    for array in hidden:
        if not isinstance(array, np.ndarray) or array.ndim != 1 or not np.isfinite(array).all():
            raise ContractError(f"privileged() returned {array!r}, it should return a row of finite numbers")
    if hidden[0].shape != hidden[1].shape or not np.array_equal(hidden[0], hidden[2]):
        raise ContractError("privileged() should have one length for all instances, and one value for a seed")


def _check_replay(factory: CampaignFactory, play: PlayedCampaign, capacity: Capacity) -> None:
    """Check that a replayed campaign asks and ends as the first one, as resuming needs."""
    asked = [i for i, record in enumerate(play.journal) if record.kind == "decision"]
    for number in sorted({0, len(asked) // 2, len(asked) - 1}):
        fresh = PlayedCampaign(factory, play.instance, capacity)
        decision = fresh.driver.replay(play.journal[: asked[number]], {})
        if comparable(decision) != play.decisions[number]:
            raise ContractError(
                f"a replayed campaign asks differently at decision {number}: its state must follow from the seed, the "
                "actions and the events alone (no clock, no global state, no randomness without a seed)"
            )
    fresh = PlayedCampaign(factory, play.instance, capacity)
    fresh.driver.replay(play.journal, {})
    if fresh.campaign.outcome() != play.outcome:
        raise ContractError(
            "outcome() of a replayed campaign differs: its state must follow from seed, actions, events"
        )


def _check_masked(factory: CampaignFactory, play: PlayedCampaign, capacity: Capacity) -> None:
    """Check that a choice that the mask forbids raises no exception."""
    asked = [i for i, record in enumerate(play.journal) if record.kind == "decision"]
    for number, mask in enumerate(play.masks):
        if not mask.all():
            fresh = PlayedCampaign(factory, play.instance, capacity)
            fresh.driver.replay(play.journal[: asked[number]], {})
            parts = np.split(mask, np.cumsum(fresh.campaign.heads)[:-1])
            fresh.campaign.apply(np.array([int(np.argmin(part)) for part in parts], np.int64))
            return


def _compare(first: PlayedCampaign, again: PlayedCampaign) -> None:
    for number, (one, other) in enumerate(zip(first.decisions, again.decisions, strict=False)):
        if one != other:
            raise ContractError(
                f"decision {number} of instance {first.instance} differs when played again with the same answers: "
                "campaign(seed) and task_model(seed) must be fixed by the seed"
            )
    if first.campaign.started != again.campaign.started or first.outcome != again.outcome:
        raise ContractError("apply() or outcome() differs when an instance is played again with the same answers")
