"""A training that goes on with a saved policy: ``train.start``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import rlctl
from rlctl.bundle.saved_policy import load
from rlctl.config.load import game_hash
from rlctl.config.schema import Config
from rlctl.core.errors import ConfigError, PolicyError
from rlctl.plugins.registry import campaign_factory

QUEUE = """
schema: 1
seed: 1
campaign: {name: ensemble, options: {workload: {tasks: [3, 4], spawn_probability: 0.0}}}
machine: {nodes: 8, cores: 1}
train:
  decisions: 256
  num_envs: 8
  validation_instances: 0
  judgement_instances: 0
  options: {n_steps: 16, batch_size: 64, net_arch: [16]}
policies:
  largest: {rule: lpt}
  mine: trained/policy
"""


def config(folder: Path, *overrides: str) -> Config:
    return rlctl.load_config(folder / "queue.yaml", overrides)


def weights(policy: Path) -> np.ndarray:
    with np.load(policy / "weights.npz") as file:
        return np.concatenate([file[name].ravel() for name in sorted(file.files)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("going-on")
    (folder / "queue.yaml").write_text(QUEUE)
    rlctl.train(config(folder), folder / "trained")
    return folder


@pytest.mark.parametrize("by", ["mine", "path"])
def test_it_begins_with_the_network_of_the_policy(folder: Path, tmp_path: Path, by: str) -> None:
    name = "mine" if by == "mine" else str(folder / "trained" / "policy")
    still = ["train.options.learning_rate=1e-12", f"train.start={name}", "seed=2"]
    policy = rlctl.train(config(folder, *still), tmp_path / "run")
    trained = weights(folder / "trained" / "policy")
    assert weights(policy) == pytest.approx(trained, abs=1e-6)
    assert np.abs(weights(rlctl.train(config(folder, "seed=2"), tmp_path / "new")) - trained).max() > 0.05
    manifest = json.loads((policy / "manifest.json").read_text())
    digest = rlctl.load_policy(config(folder), "mine").digest  # type: ignore[attr-defined]
    assert manifest["start"] == {"digest": digest, "decisions": 256}
    assert manifest["decisions"] == 256
    queue = config(folder)
    assert manifest["game_hash"] == game_hash(queue, campaign_factory("ensemble", queue.campaign.options))


def test_it_learns_and_can_be_resumed(folder: Path, tmp_path: Path) -> None:
    first = config(folder, "train.start=mine", "train.decisions=128")
    before = weights(rlctl.train(first, tmp_path / "run"))
    assert np.abs(before - weights(folder / "trained" / "policy")).max() > 1e-4
    policy = rlctl.train(config(folder, "train.start=mine"), tmp_path / "run", resume=True)
    assert json.loads((policy / "manifest.json").read_text())["decisions"] == 256
    assert np.abs(weights(policy) - before).max() > 1e-4


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("train.start=nothing", "'nothing' is neither a known name nor a file or folder"),
        ("train.options.net_arch=[8]", "its network is .* the configuration's is"),
        ("train.options.observation_clip=3", "its network is .* the configuration's is"),
        ("train.options.residual={rule: feedback}", "choose a rule of campaign ensemble"),
        ("train.algorithm=maskable_ppo", "model.zip holds other parts"),
        ("machine.nodes=16", None),
    ],
)
def test_a_policy_that_does_not_fit_is_refused(
    folder: Path, tmp_path: Path, override: str, complaint: str | None
) -> None:
    overrides = ["train.start=mine", override]
    if complaint is None:  # another machine, on which the same network can go on
        rlctl.train(config(folder, *overrides), tmp_path / "run")
        return
    if "network" not in complaint and "parts" not in complaint:  # those are seen when the network is made
        with pytest.raises((ConfigError, PolicyError), match=complaint):
            rlctl.check(config(folder, *overrides))
    with pytest.raises((ConfigError, PolicyError), match=complaint) as error:
        rlctl.train(config(folder, *overrides), tmp_path / "run")
    assert "\n" not in str(error.value)


def test_a_policy_without_its_model_file_or_of_another_rule_is_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "trained" / "policy", tmp_path / "policy")
    (tmp_path / "policy" / "model.zip").unlink()
    with pytest.raises((ConfigError, PolicyError), match=r"model\.zip"):
        rlctl.train(config(folder, f"train.start={tmp_path / 'policy'}"), tmp_path / "run")


def test_a_policy_that_corrects_another_rule_is_refused(folder: Path, tmp_path: Path) -> None:
    around = rlctl.train(config(folder, "train.options.residual={rule: lpt}"), tmp_path / "around")
    residual = load(around).manifest.residual
    assert residual is not None
    assert residual.model_dump() == {"rule": "lpt", "parameters": {}}
    with pytest.raises(ConfigError, match=r"corrects rule 'lpt'.*train\.options\.residual"):
        rlctl.train(config(folder, f"train.start={around}", "train.options.residual={rule: sjf}"), tmp_path / "run")
