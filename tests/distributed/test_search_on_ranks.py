"""Policies of searches are trained over ranks, asynchronously and in lock-step, and begin as the default rule."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mpi_runner import ROOT, mpiexec

from rlctl.config.load import load_config
from rlctl.evaluation.compare import compare_policies
from rlctl.evaluation.rollout import evaluation_instances
from rlctl.monitoring.progress import Silent
from rlctl.plugins.registry import configured_campaign, load_policy
from rlctl.system.mpi import clean_environment

CONFIG = ROOT / "configs" / "search.yaml"
SMALL = [
    "train.decisions=256",
    "train.judgement_instances=0",
    "train.options.n_steps=32",
    "train.options.batch_size=64",
    "train.num_envs=4",
]


@pytest.mark.parametrize("mode", ["asynchronous", "lockstep"])
def test_a_policy_that_was_trained_on_ranks_searches_better_than_chance(tmp_path: Path, mode: str) -> None:
    mpiexec()  # or skip
    settings = [*SMALL, f"train.distributed.mode={mode}"]
    sets = [word for setting in settings for word in ("--set", setting)]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "rlctl", "train", str(CONFIG), "--ranks=3", f"--out={tmp_path / 'run'}", *sets],
        env={**clean_environment(os.environ), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    policy = tmp_path / "run" / "policy"
    assert json.loads((policy / "manifest.json").read_text())["campaign"]["name"] == "search"
    if mode == "lockstep":
        config = load_config(CONFIG)
        factory, capacity = configured_campaign(config), config.machine.capacity()
        policies = {"learned": load_policy(config, str(policy)), "chance": load_policy(config, "random_search")}
        found = compare_policies(
            factory, capacity, policies, evaluation_instances(config, 12), config.evaluate.seed, Silent()
        )
        value, (low, _) = found.ratio("chance", "learned")
        assert value > 2.0
        assert low > 1.0
