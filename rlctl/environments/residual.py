"""Policies that correct a rule: the network chooses among changes of what the rule says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rlctl.core.campaign import Action, Around, Decision
from rlctl.core.errors import ConfigError
from rlctl.core.policy import Policy


def around_rule(decision: Decision, rule: Policy) -> Around:
    """The choices around a rule's answer.

    Raises:
        ConfigError: the campaign offers none, or the rule does not answer with named quantities.
    """
    proposal = rule.act(decision)
    if decision.around is None or not isinstance(proposal, Mapping):
        raise ConfigError("residual: this campaign, or this rule, does not know choices around a rule's answer")
    return decision.around(proposal)


class ResidualPolicy:
    """A rule, and a network that corrects it."""

    def __init__(self, rule: Policy, network: Policy) -> None:
        self.rule = rule
        self.network = network
        self.name = network.name
        self.digest = getattr(network, "digest", None)

    def act(self, decision: Decision) -> Action:
        """The corrected answer, in named quantities."""
        around = around_rule(decision, self.rule)
        choice = self.network.act(decision.seen(around))
        return around.named(np.asarray(choice, np.int64))

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
