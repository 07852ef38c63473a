"""SAC and TD3 steer simulations in segments by the numbers of a Box, trained over ranks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import forms
import pytest
from mpi_runner import ROOT, mpiexec

from rlctl.config.load import load_config
from rlctl.core.driver import Driver
from rlctl.environments.campaign_env import twin
from rlctl.plugins.registry import configured_campaign, load_policy
from rlctl.system.mpi import clean_environment

CONFIG = ROOT / "configs" / "segments.yaml"
SETTINGS = [
    "campaign.options.actions=box",
    "campaign.options.until={found: 1, node_seconds: 60, evaluations: 60}",
    "train.decisions=200",
    "train.judgement_instances=0",
    "train.num_envs=2",
    "train.options={learning_starts: 64, batch_size: 32, net_arch: [16]}",
]


@pytest.mark.parametrize("algorithm", ["sac", "td3"] if forms.full() else ["sac"])
def test_a_policy_of_numbers_is_trained_on_ranks_and_steers(tmp_path: Path, algorithm: str) -> None:
    mpiexec()  # or skip
    settings = [*SETTINGS, f"train.algorithm={algorithm}"]
    sets = [word for setting in settings for word in ("--set", setting)]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "rlctl", "train", str(CONFIG), "--ranks=2", f"--out={tmp_path / 'run'}", *sets],
        env={**clean_environment(os.environ), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    policy = tmp_path / "run" / "policy"
    assert json.loads((policy / "manifest.json").read_text())["campaign"]["name"] == "segments"
    config = load_config(CONFIG, settings)
    factory, capacity = configured_campaign(config), config.machine.capacity()
    learned = load_policy(config, str(policy))
    campaign = factory.campaign(5)
    driver = Driver(campaign, twin(factory, capacity, 5))
    decision = driver.begin()
    values = set()
    while decision is not None:
        action = learned.act(decision)
        values.add(round((campaign.named(action) or {}).get("T", 0.0), 6))
        decision = driver.step(action)
    assert len(values) > 3  # it answers by what it sees, not with one value
    assert campaign.outcome().ended
