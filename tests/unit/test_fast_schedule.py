"""What is scheduled at once is what the campaign does decision by decision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlctl.config.load import load_config
from rlctl.config.schema import Config
from rlctl.core.machine import Capacity
from rlctl.core.policy import Policy
from rlctl.environments.twin_rollouts import rollout_on_twin
from rlctl.evaluation.rollout import RolloutPool
from rlctl.evaluation.tuning import SearchSettings, tune
from rlctl.monitoring.progress import Silent
from rlctl.plugins.registry import policy_factory
from rlctl_agents.rules.job_orders import INPUTS, PRODUCTS
from rlctl_envs.ensemble.factory import Ensemble
from rlctl_envs.ensemble.job_scores import TERMS

CAPACITY = Capacity(nodes=2, cores=16)
MODES = ("any", "next", "next_backfilled")
CONFIG = Path(__file__).parents[2] / "configs" / "rlscheduler.yaml"


def ensemble(mode: str, over: str = "run", **more: Any) -> Ensemble:
    """Jobs whose requests are wrong, on a machine that is full."""
    workload = {"source": "lublin", "processors": 32, "tasks": [40, 40], "most_tasks": 40, "faster": [20.0, 20.0]}
    objective = {"node_second": 0.0, "slowdown": 1.0, "slowdown_over": over}
    workload |= {"error": [0.5, 0.5]} | more.pop("workload", {})
    return Ensemble({"workload": workload, "rigid": mode, "objective": objective, "allocation_s": 1e9} | more)


def rule(name: str, parameters: dict[str, float] | None = None) -> Policy:
    return policy_factory(name)(parameters or {})


def test_the_rules_know_the_terms() -> None:
    assert (*INPUTS, *PRODUCTS) == TERMS


@pytest.mark.parametrize("mode", MODES)
@given(
    seed=st.integers(0, 2**31),
    linear=st.lists(st.floats(-6, 6), min_size=len(INPUTS), max_size=len(INPUTS)),
    products=st.dictionaries(st.sampled_from(PRODUCTS), st.floats(-2, 2), max_size=6),
    spare=st.integers(0, 1),
)
@settings(max_examples=30, deadline=None)
def test_costs_and_decisions_are_those_of_the_campaign(
    mode: str, seed: int, linear: list[float], products: dict[str, float], spare: int
) -> None:
    factory = ensemble(mode, "run" if spare else "estimate")
    weights = dict(zip(INPUTS, linear, strict=True)) | {"spare": spare}
    rules = rule("weighted", weights), rule("weighted", weights | products)
    at_once = factory.play(CAPACITY, [(one, seed) for one in rules])
    assert at_once is not None
    for figures, one in zip(at_once, rules, strict=True):
        (played,) = rollout_on_twin(factory, CAPACITY, [(seed, one)])
        assert figures["cost"] == pytest.approx(played["cost"], rel=1e-9)
        assert figures["decisions"] == played["decisions"]
        assert figures["successes"] == played["successes"]


@pytest.mark.parametrize(
    "more",
    [
        {"workload": {"trouble": {"failures_per_rank_s": 1e-9}}},
        {"workload": {"trouble": {"scatter": 0.1}}},
        {"program": {"start_up_s": {1: 1.0}}},
        {"program": {"walltime_s": 1e6}},
        {"objective": {"node_second": 1.0, "slowdown": 1.0}},
        {"allocation_s": 10.0},
        {"nodes": {"losses_per_node_s": 1e-4}},
    ],
)
def test_what_is_not_that_simple_is_played_decision_by_decision(more: dict[str, Any]) -> None:
    assert ensemble("next", **more).play(CAPACITY, [(rule("weighted"), 1)]) is None


def test_other_rules_are_played_decision_by_decision() -> None:
    assert ensemble("next").play(CAPACITY, [(rule("weighted"), 1), (rule("f4"), 1)]) is None
    assert Ensemble().play(CAPACITY, [(rule("weighted"), 1)]) is None


def test_tuning_takes_the_short_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config: Config = load_config(CONFIG, ["campaign.options.workload.tasks=[64, 64]"])

    def run(*_: Any) -> None:
        raise AssertionError("decision by decision")

    monkeypatch.setattr(RolloutPool, "run", run)
    settings = SearchSettings(instances=32, validation=256, decisions=400_000, step=0.05)
    tuned = tune(config, "weighted", tmp_path / "rule.yaml", Silent(), settings)
    assert tuned.cost < tuned.start_cost
    assert tuned.parameters["run"] != 0.0
    assert 300_000 < tuned.decisions <= 400_000
    weights: Any = policy_factory("weighted")(tuned.parameters)
    assert np.count_nonzero(weights.weights) == len(TERMS)
