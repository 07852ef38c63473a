"""The shipped rules that trained policies are compared with are stronger than those before them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rlctl.config.load import load_config
from rlctl.evaluation.rollout import VALIDATION, RolloutPool, draw_instances
from rlctl.plugins.registry import configured_campaign, load_policy

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize(
    ("game", "rule", "before", "least"),
    [
        ("annealing", "annealing_posterior", "feedback", 1.35),
        ("ensemble", "dual_approximation", "sjf", 1.02),
        ("ensemble_gpus", "slowdown_density", "sjf", 1.02),
        ("ensemble_stopping", "stopping_index", "renewal", 1.1),
    ],
)
def test_a_rule_costs_less_than_the_best_one_before(game: str, rule: str, before: str, least: float) -> None:
    """On 32 instances that rules were chosen by; held-out ones are for figures."""
    config = load_config(CONFIGS / f"{game}.yaml")
    factory = configured_campaign(config)
    assert rule in factory.opponents
    instances = draw_instances(19, VALIDATION, 32)
    policies = [load_policy(config, name) for name in (before, rule)]
    costs, rollouts = [], {}
    with RolloutPool(factory, config.machine.capacity()) as pool:
        for part in pool.run([(policy, instance) for policy in policies for instance in instances]):
            rollouts |= part
    for n in range(2):
        played = [rollouts[n * len(instances) + i] for i in range(len(instances))]
        costs.append(np.sum([one.cost for one in played]) / sum(one.successes for one in played))
    assert costs[0] >= least * costs[1], costs
