"""What a policy promises is looked for before it steers: a memory that is forgotten, saved and taken up."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_folders import queue_config

import rlctl
from rlctl.core.campaign import Action, Decision
from rlctl.core.errors import ConfigError, ContractError
from rlctl.plugins.preflight import check_campaign, check_policy
from rlctl.testing.checks import check_policy as play


class Counting(rlctl.SimpleRule):
    """Starts on one node and on all of them in turn."""

    name = "counting"

    def __init__(self) -> None:
        self.count = 0

    def act(self, decision: Decision) -> Action:
        self.count += 1
        allowed = np.flatnonzero(decision.mask)
        return np.array([allowed[0] if self.count % 2 else allowed[-1]], np.int64)

    def reset(self, seed: int) -> None:
        self.count = seed % 2

    def state(self) -> Mapping[str, Any]:
        return {"count": self.count}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.count = state["count"]


class Remembers(Counting):
    def reset(self, seed: int) -> None:
        pass

    def act(self, decision: Decision) -> Action:
        action = super().act(decision)
        self.count += decision.number == 2  # one more in each campaign
        return action


class Saves(Counting):
    def restore(self, state: Mapping[str, Any]) -> None:
        pass


class Unsaved(Counting):
    def state(self) -> Mapping[str, Any]:
        return {"count": np.array(self.count)}


class Mute(rlctl.SimpleRule):
    def act(self, decision: Decision) -> Action:
        return None  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("rule", "said"),
    [(Remembers, r"reset\(seed\) should forget"), (Saves, r"restore\(state\(\)\)"), (Unsaved, r"state\(\) gives")],
)
def test_a_promise_that_is_broken_is_named(tmp_path: Path, rule: type[Counting], said: str) -> None:
    factory = check_campaign(queue_config(tmp_path))
    with pytest.raises(ContractError, match=said):
        play(factory, rule(), queue_config(tmp_path).machine.capacity())


def test_kept_promises_pass(tmp_path: Path) -> None:
    config = queue_config(tmp_path)
    play(check_campaign(config), Counting(), config.machine.capacity())
    assert rlctl.check(config, play=True) is not None


@pytest.mark.parametrize(("rule", "said"), [(Unsaved, r"state\(\) must return"), (Mute, r"act\(\) returned None")])
def test_what_shows_in_one_answer_is_found_before_a_run_folder_is_made(tmp_path: Path, rule: type, said: str) -> None:
    config = queue_config(tmp_path)
    with pytest.raises(Exception, match=said) as caught:
        check_policy(config, check_campaign(config), rule(), ("policies", "x"))
    assert isinstance(caught.value, ConfigError)
