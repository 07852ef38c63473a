"""A policy learns, from 64 recorded segments of LAMMPS, to crystallize atoms: it leaves an untuned rule behind.

``RLCTL_LEARNING=full`` trains the published experiment on invented simulations.
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
from rlctl.steering.twin_fit import fit_twin

ROOT = Path(__file__).parents[2]
FULL = forms.full("LEARNING")
RECORDED = [
    "campaign.options.lengths={steps: [4000]}",
    "campaign.options.simulations=1",
    "campaign.options.until={found: 2, node_seconds: 200}",
    "program.resources.ranks=1",
    "machine.cores=1",
    "policies.warm={rule: schedule_constant, parameters: {hold: 0.25}}",  # a good guess
    "train={decisions: 20480, judgement_instances: 0, num_envs: 32, validation_instances: 0}",
    "train.options={n_steps: 32, n_epochs: 6, batch_size: 256, learning_rate: 2.0e-3, gamma: 1.0, bootstrap: false,"
    " net_arch: [64, 64], logit_bias: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, -3]}",
]


def ratios(file: Path, settings: list[str], others: list[str], folder: Path) -> dict[str, tuple[float, float]]:
    """How many times dearer others are on held-out instances, and the low ends of the intervals."""
    config = load_config(file, settings)
    learned = str(train(config, folder))
    policies = {name: load_policy(config, name) for name in (learned, *others)}
    factory, instances = configured_campaign(config), evaluation_instances(config, 64)
    found = compare_policies(factory, config.machine.capacity(), policies, instances, config.evaluate.seed, Silent())
    return {name: (value, low) for name in others for value, (low, _) in [found.ratio(name, learned)]}


def test_it_learns_from_recorded_segments(tmp_path: Path) -> None:
    file = ROOT / "examples" / "lammps_crystal" / "crystal.yaml"
    fit_twin([file.with_name("segments.csv")], tmp_path / "twin", load_config(file))
    found = ratios(file, [*RECORDED, f"twin={tmp_path}/twin"], ["warm", "renewal_give_up"], tmp_path / "run")
    assert found["renewal_give_up"][0] > 1.5
    assert found["renewal_give_up"][1] > 1.2
    assert found["warm"][0] > 0.9


@pytest.mark.skipif(not FULL, reason="several minutes: a part of RLCTL_LEARNING=full")
def test_it_leaves_a_constant_behind_on_invented_simulations(tmp_path: Path) -> None:
    settings = ["train.judgement_instances=0", "train.num_envs=32", "train.options.n_steps=32"]
    settings += ["train.options.batch_size=256"]
    found = ratios(ROOT / "configs" / "segments.yaml", settings, ["schedule_constant"], tmp_path / "run")
    assert found["schedule_constant"][1] > 1.1
