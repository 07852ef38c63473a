"""Controls against self-deception: a policy that has learned to read its campaign must lose when it is misled.

Each control plays the policy's own network on the instances that it has just played, with what it sees or answers
exchanged. Masks, and the proposals of a rule that the network corrects, are those of the instance that is played. To
show a network without memory what it saw in another instance would be the same as to replay its actions there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlctl.bundle.network import NumpyPolicy
from rlctl.core.campaign import Decision
from rlctl.core.campaign_factory import CampaignFactory
from rlctl.core.machine import Capacity
from rlctl.core.policy import Policy
from rlctl.environments.residual import ResidualPolicy
from rlctl.evaluation.rollout import TOGETHER, Rollout, roll_out

REPLAY = "replay of its actions in another instance"
SHUFFLED = "observations of any time and instance"
BLANK = "observations of zeros"
CONTROLS = (REPLAY, SHUFFLED, BLANK)

Numbers = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Seen:
    """What a network saw and answered in one campaign, decision by decision."""

    observations: list[Numbers] = field(default_factory=list)
    answers: list[Numbers] = field(default_factory=list)


Act = Callable[[NumpyPolicy, Decision, int], Numbers]
"""Answers in place of a network; the number is that of the decision since the last reset."""


class ControlledNetwork:
    """A network that another function answers for.

    Args:
        acts: by instance, which is the seed of ``reset``.
    """

    def __init__(self, network: NumpyPolicy, acts: Mapping[int, Act]) -> None:
        self.name = network.name
        self._network, self._acts = network, acts
        self._instance = self._number = 0
        self.state, self.restore = network.state, network.restore

    def act(self, decision: Decision) -> Numbers:
        """The answer."""
        answer = self._acts[self._instance](self._network, decision, self._number)
        self._number += 1
        return answer

    def reset(self, seed: int) -> None:
        """A new campaign begins."""
        self._instance, self._number = seed, 0
        self._network.reset(seed)


def play_controls(
    factory: CampaignFactory, capacity: Capacity, policy: Policy, instances: Sequence[int], seed: int = 0
) -> dict[str, list[Rollout]]:
    """Play the policy, recorded, and then each control on the same instances.

    Returns:
        the rollouts by control; those of the policy itself are under its name.
    """
    seen = {instance: Seen() for instance in instances}

    def record(instance: int) -> Act:
        def act(network: NumpyPolicy, decision: Decision, number: int) -> Numbers:
            answer = network.act(decision)
            seen[instance].observations.append(np.array(decision.observation))
            seen[instance].answers.append(np.array(answer))
            return answer

        return act

    played = {policy.name: _play(factory, capacity, policy, {i: record(i) for i in instances})}
    following = dict(zip(instances, [*instances[1:], instances[0]], strict=True))
    pool = [numbers for one in seen.values() for numbers in one.observations]
    random = np.random.default_rng(seed)
    orders = {i: random.integers(len(pool), size=4096) for i in instances}

    def replay(instance: int) -> Act:
        answers = seen[following[instance]].answers
        return lambda network, decision, number: _allowed(network, decision, answers[number % len(answers)])

    def showing(show: Callable[[int, int], Numbers]) -> Callable[[int], Act]:
        return lambda instance: lambda network, decision, number: network.act(_shown(decision, show(instance, number)))

    controls: dict[str, Callable[[int], Act]] = {
        REPLAY: replay,
        SHUFFLED: showing(lambda instance, number: pool[orders[instance][number % 4096]]),
        BLANK: showing(lambda instance, number: np.zeros_like(pool[0])),
    }
    for name, control in controls.items():
        played[name] = _play(factory, capacity, policy, {i: control(i) for i in instances})
    return played


def _play(factory: CampaignFactory, capacity: Capacity, policy: Policy, acts: Mapping[int, Act]) -> list[Rollout]:
    players = [(_controlled(policy, {instance: act}), instance) for instance, act in acts.items()]
    parts = (players[at : at + TOGETHER] for at in range(0, len(players), TOGETHER))
    return [rollout for part in parts for rollout in roll_out(factory, capacity, part)]


def _controlled(policy: Policy, acts: Mapping[int, Act]) -> Policy:
    if isinstance(policy, ResidualPolicy):
        return ResidualPolicy(policy.rule, _controlled(policy.network, acts), policy.digest, policy.advised)
    assert isinstance(policy, NumpyPolicy)
    return ControlledNetwork(policy, acts)


def _shown(decision: Decision, observation: Numbers) -> Decision:
    return Decision(
        decision.subject, decision.time_s, decision.fields, observation, decision.mask, decision.cost, decision.number
    )


def _allowed(network: NumpyPolicy, decision: Decision, answer: Numbers) -> Numbers:
    """The answer, with the first allowed choice in place of one that is not allowed here."""
    if not network.heads:
        return answer
    parts = np.split(decision.mask, np.cumsum(network.heads)[:-1])
    return np.array([n if part[n] else int(part.argmax()) for n, part in zip(answer, parts, strict=True)], np.int64)
