"""A policy learns to steer simulations in segments: it leaves chance and an untuned schedule behind.

``RLCTL_LEARNING=full`` trains the published experiment and compares with the tuned rules beside it.
"""

from __future__ import annotations

from pathlib import Path

import forms
import pytest

from rlctl.api import train
from rlctl.config.load import load_config
from rlctl.evaluation.compare import compare_policies
from rlctl.evaluation.rollout import evaluation_instances
from rlctl.monitoring.progress import Silent
from rlctl.plugins.registry import configured_campaign, load_policy

FULL = forms.full("LEARNING")
CONFIG = Path(__file__).parents[2] / "configs" / "segments.yaml"


def test_it_leaves_chance_and_a_constant_behind(tmp_path: Path) -> None:
    """Its first choices are those of chance; a campaign on the twin tells nothing beforehand."""
    settings = [
        "campaign.options.until={found: 2, node_seconds: 60}",
        "campaign.options.lengths={steps: [4000]}",
        "campaign.options.simulations=1",
        "machine.cores=1",
        "train.decisions=24576",
        "train.num_envs=32",
        "train.judgement_instances=0",
        "train.options.n_steps=64",
        "train.options.batch_size=256",
        "train.options.learning_rate=2.0e-3",
        "train.options.logit_bias=[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, -2]",
    ]
    if FULL:
        settings = ["train.judgement_instances=0"]
    config = load_config(CONFIG, settings)
    folder = str(train(config, tmp_path / "run"))
    policies = {name: load_policy(config, name) for name in (folder, "random", "schedule_constant")}
    factory, instances = configured_campaign(config), evaluation_instances(config, 96)
    capacity = config.machine.capacity()
    found = compare_policies(factory, capacity, policies, instances, config.evaluate.seed, Silent())
    for other, least in (("random", 5.0), ("schedule_constant", 1.15)):
        value, (low, _) = found.ratio(other, folder)
        print(other, value, low)
        assert value > least
        assert low > 1.0
