"""A policy learns to steer simulations in segments: it leaves the schedule behind that it begins as.

``RLCTL_LEARNING=full`` trains the published experiment, which begins by chance, to get beyond it too.
"""

from __future__ import annotations

from pathlib import Path

import forms

from rlctl.api import train
from rlctl.config.load import load_config
from rlctl.evaluation.compare import compare_policies
from rlctl.evaluation.rollout import evaluation_instances
from rlctl.monitoring.progress import Silent
from rlctl.plugins.registry import configured_campaign, load_policy

FULL = forms.full("LEARNING")
CONFIG = Path(__file__).parents[2] / "configs" / "segments.yaml"
POOR = "{rule: schedule_constant, parameters: {hold: 0.1, give_up: 40, stuck: 20}}"
"""Cold, and too patient."""

SHORT = [
    "campaign.options.until={found: 2, node_seconds: 60}",
    "campaign.options.lengths={steps: [4000]}",
    "campaign.options.simulations=1",
    "machine.cores=1",
    "train.decisions=24576",
    "train.num_envs=16",
    "train.options={n_steps: 64, n_epochs: 8, batch_size: 256, learning_rate: 2.0e-3, gamma: 1.0, bootstrap: false,"
    f" net_arch: [64, 64], residual: {POOR}}}",
]


def test_it_leaves_a_poor_rule_behind(tmp_path: Path) -> None:
    config = load_config(CONFIG, ["train.judgement_instances=0", f"policies.poor={POOR}", *([] if FULL else SHORT)])
    folder = str(train(config, tmp_path / "run"))
    policies = {name: load_policy(config, name) for name in (folder, "poor")}
    factory, instances = configured_campaign(config), evaluation_instances(config, 96)
    found = compare_policies(factory, config.machine.capacity(), policies, instances, config.evaluate.seed, Silent())
    value, (low, _) = found.ratio("poor", folder)
    print(value, low)
    assert value > 1.5
    assert low > 1.2
