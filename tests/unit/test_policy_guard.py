import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Discrete, MultiDiscrete

from rlctl.core.campaign import Action, Decision
from rlctl.steering.policy_guard import PolicyGuard


class Says:
    def __init__(self, answer: Any) -> None:
        self.name = "says"
        self.answer = answer

    def act(self, decision: Decision) -> Action:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer  # type: ignore[no-any-return]

    def reset(self, seed: int) -> None: ...

    def state(self) -> Mapping[str, Any]:
        return {} if isinstance(self.answer, Exception) else {"answer": self.answer}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.answer = state["answer"]


SPACE = MultiDiscrete([3, 2])
FALLBACK = {"temperature": 1.0}


def decision(observation: float = 0.0) -> Decision:
    mask = np.array([False, True, True, False, True])
    return Decision("film", 0.0, {}, np.array([observation], dtype=np.float32), mask)


@pytest.mark.parametrize("answer", [[2, 1], np.array([0, 0]), {"temperature": 1.2, "steps": 3, "give_up": False}])
def test_an_answer_that_makes_sense_passes(answer: Any) -> None:
    given, reason = PolicyGuard(Says(answer), Says(FALLBACK), SPACE).act(decision())
    assert given is answer
    assert reason is None


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ([3, 1], "action"),
        ([-1, 1], "action"),
        ([1], "action"),
        ({"temperature": float("nan")}, "action"),
        ("nonsense", "action"),
        (None, "action"),
        ([0.5, 1.0], "action"),
        (ValueError("no"), "exception"),
    ],
)
def test_what_makes_no_sense_falls_back(answer: Any, reason: str) -> None:
    assert PolicyGuard(Says(answer), Says(FALLBACK), SPACE).act(decision()) == (FALLBACK, reason)


@pytest.mark.parametrize("observation", [np.nan, np.inf])
def test_a_policy_is_not_asked_about_what_is_not_finite(observation: float) -> None:
    policy = Says(AssertionError("asked"))
    assert PolicyGuard(policy, Says(FALLBACK), SPACE).act(decision(observation)) == (FALLBACK, "observation")


def test_without_a_working_fallback_the_first_allowed_choices_are_taken() -> None:
    for fallback in (None, Says(ValueError("no"))):
        action, reason = PolicyGuard(Says(ValueError("no")), fallback, SPACE).act(decision())
        assert reason == "exception"
        assert np.array_equal(np.asarray(action), [1, 1])
    action, _ = PolicyGuard(Says(None), None, Discrete(5)).act(decision())
    assert np.array_equal(np.asarray(action), [1])


def asked(guard: PolicyGuard, policy: Says, *answers: Any) -> list[str | None]:
    """Why the fallback decided, for each of the policy's answers."""
    reasons = []
    for answer in answers:
        policy.answer = answer
        given, reason = guard.act(decision())
        assert (given == FALLBACK) is (reason is not None)
        reasons.append(reason)
    return reasons


def test_after_a_failure_the_policy_decides_again_when_it_has_answered_well_for_a_while() -> None:
    policy, fine = Says(None), [2, 1]
    guard = PolicyGuard(policy, Says(FALLBACK), SPACE, clean_answers=2)
    failed = ValueError("no")
    assert asked(guard, policy, fine, failed, fine, fine, fine) == [None, "exception", "suspended", "suspended", None]
    assert asked(guard, policy, None, fine, failed, fine) == ["action", "suspended", "exception", "suspended"]
    other = PolicyGuard(policy, Says(FALLBACK), SPACE, clean_answers=2)
    other.restore(json.loads(json.dumps({"suspended": guard.state()["suspended"]})))
    assert asked(other, policy, fine, fine) == ["suspended", None]
    assert other.state()["suspended"] == 0  # a later state says that it is over


def test_without_a_fallback_the_policy_is_not_suspended() -> None:
    policy = Says(ValueError("no"))
    guard = PolicyGuard(policy, None, SPACE, clean_answers=2)
    assert guard.act(decision())[1] == "exception"
    policy.answer = [2, 1]
    assert guard.act(decision())[1] is None


def test_what_the_campaign_refuses_falls_back() -> None:
    def refuses(action: Any) -> str | None:
        return "too hot" if action == {"temperature": 9.0} else None

    guard = PolicyGuard(Says({"temperature": 9.0}), Says(FALLBACK), SPACE, refuses)
    assert guard.act(decision()) == (FALLBACK, "refused")
    assert PolicyGuard(Says({"temperature": 2.0}), Says(FALLBACK), SPACE, refuses).act(decision())[1] is None
    action, reason = PolicyGuard(Says(None), Says({"temperature": 9.0}), SPACE, refuses).act(decision())
    assert (np.asarray(action).tolist(), reason) == ([1, 1], "action")  # the fallback's is refused as well


def test_an_observation_is_not_made_for_a_rule_that_does_not_read_it() -> None:
    def observe() -> tuple[Any, Any]:
        raise AssertionError("observed")

    question = Decision("film", 0.0, {}, observe=observe)
    assert PolicyGuard(Says(FALLBACK), None, SPACE).act(question) == (FALLBACK, None)


def test_both_memories_are_saved_and_restored() -> None:
    guard = PolicyGuard(Says([0, 0]), Says(FALLBACK), SPACE)
    saved = json.loads(json.dumps(guard.state()))
    other = PolicyGuard(Says([1, 1]), Says({}), SPACE)
    other.restore(saved)
    assert other.state() == guard.state()
    assert PolicyGuard(Says(ValueError("no")), None, SPACE).state() == {}
