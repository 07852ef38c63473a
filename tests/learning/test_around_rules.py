"""Policies that are trained around a rule begin as the rule, and are saved with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rlctl
from rlctl.bundle import saved_policy
from rlctl.bundle.saved_policy import NumpyPolicy
from rlctl.config.load import load_config
from rlctl.config.schema import RuleEntry
from rlctl.environments.residual import ResidualPolicy
from rlctl.environments.twin_rollouts import rollout_on_twin
from rlctl.plugins.registry import load_policy, make_rule
from rlctl_envs.block_copolymer.factory import BlockCopolymer

ROOT = Path(__file__).parents[2]


def test_training_around_a_rule_starts_as_the_rule_and_is_saved_with_it(tmp_path: Path) -> None:
    experiment = tmp_path / "experiment.yaml"
    experiment.write_text(
        "{schema: 1, seed: 1, campaign: {name: block_copolymer, options: {films: 1, allocation_s: 15.0}},\n"
        " train: {decisions: 64, judgement_instances: 0, num_envs: 16,\n"
        "  options: {n_steps: 16, n_epochs: 1, learning_rate: 1.0e-6,\n"
        "   residual: {rule: linear, parameters: {start: 1.6}}}}}\n"
    )
    config = load_config(experiment)
    folder = rlctl.train(config, tmp_path / "run")
    assert isinstance(load_policy(config, str(folder)), ResidualPolicy)
    network = saved_policy.load(folder, deterministic=True)
    logits = network.logits(np.zeros(network.observation_length, np.float32))
    assert logits[5] - np.delete(logits[:11], 5).max() > 3.0
    factory = BlockCopolymer({"films": 1, "allocation_s": 15.0})
    rule = make_rule(RuleEntry(rule="linear", parameters={"start": 1.6}), "linear")
    firm = ResidualPolicy(rule, network)
    assert rollout_on_twin(factory, factory.capacity, [(3, firm)]) == rollout_on_twin(
        factory, factory.capacity, [(3, rule)]
    )


@pytest.mark.parametrize("algorithm", ["ppo", "maskable_ppo"])
def test_it_is_trained_on_ensembles_around_a_rule_and_saved(tmp_path: Path, algorithm: str) -> None:
    settings = [
        f"train.algorithm={algorithm}",
        "train.decisions=512",
        "train.judgement_instances=0",
        "train.num_envs=8",
        "train.options.n_steps=32",
        "train.options.batch_size=64",
        "train.options.n_epochs=1",
    ]
    config = load_config(ROOT / "configs" / "ensemble.yaml", settings)
    folder = rlctl.train(config, tmp_path / "run")
    policy = load_policy(config, str(folder))
    network: Any = policy
    assert isinstance(network.network, NumpyPolicy)
    assert network.network.manifest.network.attention is not None
    assert type(network.rule).__name__ == "DualApproximation"
