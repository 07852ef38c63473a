"""Guards a real campaign against failures of its policy: a fallback decides where the policy cannot."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from gymnasium.spaces import Box

from rlctl.core.campaign import Action, ActionSpace, Decision, first_allowed, head_sizes
from rlctl.core.plugin_calls import asking
from rlctl.core.policy import Policy
from rlctl.system.watchdog import NoAnswer, timeout_message

log = logging.getLogger(__name__)

_PATIENCE = 3
"""Largest number of timeouts in a row before the campaign stops, since each costs the time limit."""


class PolicyGuard:
    """Asks the policy, and the fallback where observation or action are invalid or the policy raises or hangs.

    Without a fallback policy, invalid actions and exceptions lead to the first allowed choice, and timeouts stop the
    campaign, as three timeouts in a row do with one.

    Args:
        refuses: why an action is not allowed at the open decision; see ``Campaign.refuses``.
        clean_answers: after a failure the fallback decides until the policy, which is asked too, has given so many
            valid answers in a row.
    """

    def __init__(
        self,
        policy: Policy,
        fallback: Policy | None,
        action_space: ActionSpace,
        refuses: Callable[[Action], str | None] = lambda action: None,
        clean_answers: int = 0,
    ) -> None:
        self.policy = policy
        self.fallback = fallback
        self._space, self._choices = action_space, head_sizes(action_space)
        self._refuses, self._clean_answers = refuses, clean_answers
        self._unanswered = 0
        self._suspended = 0
        self._failed = False

    def reset(self, seed: int) -> None:
        """Reset the policies for a new campaign."""
        self._suspended, self._failed = 0, False
        for policy in self._policies().values():
            policy.reset(seed)

    def act(self, decision: Decision) -> tuple[Action, str | None]:
        """Choose an action; returns it with the reason why the fallback chose, or None if the policy did.

        NoAnswer: the time limit has passed, and no fallback may decide.
        """
        action, reason = self._policy_answer(decision)
        if action is not None and not self._suspended:
            return action, None
        if action is not None:
            self._suspended -= 1
            reason = "suspended"
        else:
            self._failed, self._suspended = True, self._clean_answers if self.fallback is not None else 0
            log.warning("decision %d on %s falls back: %s", decision.number, decision.subject, reason)
        if self.fallback is not None:
            action, _ = self._ask(self.fallback, decision)
            if action is not None:
                return action, reason
        return first_allowed(self._space, decision.mask), reason

    def _policy_answer(self, decision: Decision) -> tuple[Action | None, str]:
        """The policy's answer, unless the observation that it reads is not finite."""
        if decision.observed and not np.isfinite(decision.observation).all():
            return None, "observation"
        action, reason = self._ask(self.policy, decision)
        if decision.observed and not np.isfinite(decision.observation).all():
            return None, "observation"
        return action, reason

    def state(self) -> dict[str, Any]:
        """The states of the policies that have one, and once the policy has failed, whether it is suspended."""
        states = {role: dict(policy.state()) for role, policy in self._policies().items()}
        found: dict[str, Any] = {role: state for role, state in states.items() if state}
        return found | {"suspended": self._suspended} if self._failed and self._clean_answers else found

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state`` returned."""
        self._failed, self._suspended = "suspended" in state, int(state.get("suspended", 0))
        for role, policy in self._policies().items():
            if role in state:
                policy.restore(state[role])

    def _policies(self) -> dict[str, Policy]:
        return {"policy": self.policy} | ({"fallback": self.fallback} if self.fallback is not None else {})

    def _ask(self, policy: Policy, decision: Decision) -> tuple[Action | None, str]:
        try:
            with asking(f"policy {policy.name}", f"decision {decision.number}"):
                action = policy.act(decision)
            self._unanswered = 0 if policy is self.policy else self._unanswered
        except NoAnswer as error:
            self._unanswered += 1
            if self.fallback is None or policy is self.fallback or self._unanswered >= _PATIENCE:
                raise
            log.warning("%s", timeout_message(error))
            return None, "timeout"
        except Exception as error:  # a policy of any package
            log.warning("policy %s raised %r", policy.name, error, exc_info=log.isEnabledFor(logging.DEBUG))
            return None, "exception"
        if not self._valid(action):
            return None, "action"
        with asking("the campaign", "refuses()"):
            refused = self._refuses(action)
        if refused is not None:
            log.warning("policy %s: decision %d: %s", policy.name, decision.number, refused)
            return None, "refused"
        return action, ""

    def _valid(self, action: Action) -> bool:
        if isinstance(action, Mapping):
            return not any(isinstance(value, float) and not math.isfinite(value) for value in action.values())
        if isinstance(self._space, Box):
            numbers = np.asarray(action)
            return (
                numbers.shape == self._space.shape
                and numbers.dtype.kind in "iuf"
                and self._space.contains(numbers.astype(self._space.dtype))
            )
        indices = np.atleast_1d(action)
        if indices.shape != self._choices.shape or indices.dtype.kind not in "iu":
            return False
        return bool(((indices >= 0) & (indices < self._choices)).all())
