"""The twin of a search keeps the contracts of campaigns, and its problems can be told apart from chance."""

from __future__ import annotations

from typing import Any

import pytest
from searches import search

from rlctl.core.driver import Driver
from rlctl.core.machine import Capacity
from rlctl.environments.campaign_env import twin
from rlctl.plugins.registry import policy_factory
from rlctl.testing.checks import check_campaign

LINE: dict[str, Any] = {"parameters": {"x": {"low": 0, "high": 1}}, "objective": {"minimize": "y"}}
TWINS: dict[str, dict[str, Any]] = {
    "value": {"until": {"value": -1.0, "evaluations": 15}, "objective": {"maximize": "y"}},
    "find": {"until": {"found": 2, "node_hours": 0.2}, "objective": {"find": "y < 1"}},
    "front": {"until": {"evaluations": 30}, "objective": {"minimize": ["y", "2*y"]}, "noisy": True, "repeats": 2},
    "stages": {"until": {"evaluations": 10}, "stages": [{"name": "a"}, {"name": "b"}]},
}


@pytest.mark.parametrize("name", TWINS)
def test_contracts_hold_on_the_twin(name: str) -> None:
    options = {**LINE, "parameters": {"x": {"low": 0, "high": 1}, "n": {"low": 1, "high": 50, "integer": True}}}
    factory = search({**options, **TWINS[name]}, resources={"ranks": [1, 2]}, walltime_s=100)
    rules = [policy_factory(rule)() for rule in ("target_per_second", "random_search")]
    checked = check_campaign(factory, Capacity(nodes=1, cores=3), rules, instances=2)
    assert checked.decisions > 50


def test_the_twin_is_neither_trivial_nor_hopeless() -> None:
    factory = search({**LINE, "parameters": {n: {"low": 0, "high": 1} for n in "abc"}, "until": {"evaluations": 50}})
    reached = {"target_per_second": 0, "random_search": 0}
    for name in reached:
        for seed in range(10):
            campaign = factory.campaign(seed)
            driver = Driver(campaign, twin(factory, Capacity(nodes=1, cores=2), seed))
            policy, decision = policy_factory(name)(), driver.begin()
            while decision is not None:
                decision = driver.step(policy.act(decision))
            reached[name] += campaign.outcome().reached
    assert reached["target_per_second"] >= 6
    assert reached["random_search"] <= 4
