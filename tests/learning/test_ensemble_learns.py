"""A policy that attends learns to share an allocation: it leaves the rule behind that it began as.

``RLCTL_LEARNING=full`` trains the published experiment and asks for more than the rule has that it begins as.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import forms
import pytest

from rlctl.api import train
from rlctl.config.load import load_config
from rlctl.evaluation.compare import compare_policies
from rlctl.evaluation.rollout import evaluation_instances
from rlctl.monitoring.progress import Silent
from rlctl.plugins.registry import configured_campaign, load_policy

FULL = forms.full("LEARNING")
CONFIGS = Path(__file__).parents[2] / "configs"


def ratio(config: Any, policy: str, against: str, instances: int) -> tuple[float, float]:
    """How many times dearer the second is, and the low end of its interval."""
    policies = {name: load_policy(config, name) for name in (policy, against)}
    factory = configured_campaign(config)
    capacity = config.machine.capacity()
    found = compare_policies(
        factory, capacity, policies, evaluation_instances(config, instances), config.evaluate.seed, Silent()
    )
    value, (low, _) = found.ratio(against, policy)
    return value, low


@pytest.mark.parametrize("algorithm", ["ppo", *(["maskable_ppo"] if FULL else [])])
def test_it_leaves_a_poor_rule_behind(tmp_path: Path, algorithm: str) -> None:
    poor = "{rule: lpt, parameters: {efficiency: 0.05, most: 0.1, part: 8}}"
    settings = [
        "campaign.options.workload={tasks: [5, 7], most_tasks: 10, kinds: [1, 1], spawn_probability: 0.2}",
        "campaign.options.ranks=[1, 2, 4, 8]",
        "campaign.options.slots=14",
        "campaign.options.control_slots=0",
        "campaign.options.observed=4",
        "campaign.options.groups=1",
        "machine.nodes=8",
        f"train.algorithm={algorithm}",
        "train.decisions=16384",
        "train.judgement_instances=0",
        "train.num_envs=32",
        "train.seed=1",
        "train.options.n_steps=32",
        "train.options.batch_size=256",
        "train.options.n_epochs=6",
        "train.options.attention.width=16",
        f"train.options.residual={poor}",
        f"policies.poor={poor}",
    ]
    config = load_config(CONFIGS / "ensemble.yaml", settings)
    folder = train(config, tmp_path / "run")
    value, low = ratio(config, str(folder), "poor", 64)
    assert value > 1.2
    assert low > 1.1


@pytest.mark.skipif(not FULL, reason="ten minutes: a part of RLCTL_LEARNING=full")
def test_it_leaves_the_tuned_rule_behind_that_it_begins_as(tmp_path: Path) -> None:
    config = load_config(CONFIGS / "ensemble.yaml", ["train.seed=1"])
    folder = train(config, tmp_path / "run")
    value, low = ratio(config, str(folder), str(CONFIGS / "tuned" / "ensemble_sjf.yaml"), 300)
    assert value > 1.05
    assert low > 1.0
