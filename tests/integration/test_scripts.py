"""The programs in ``scripts``, to copy from: they train, compare and steer each campaign, and refuse what is wrong."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def script(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / f"{name}.py"), *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


SMALL = {
    "annealing": ["train.decisions=256", "train.num_envs=4", "train.options.n_steps=32", "train.options.batch_size=64"],
    "ensemble_small": ["train.decisions=256", "train.num_envs=4", "train.options.n_steps=32"],
    "search": ["train.decisions=256", "train.num_envs=4", "train.options.n_steps=32", "train.options.batch_size=64"],
    "cartpole": ["train.decisions=512"],
}


@pytest.mark.parametrize(
    ("name", "other"),
    [("annealing", "feedback"), ("ensemble_small", "lpt"), ("search", "sobol"), ("cartpole", "random")],
)
def test_each_campaign_is_trained_and_compared(tmp_path: Path, name: str, other: str) -> None:
    config = ROOT / "configs" / f"{name}.yaml"
    trained = script(
        "train", config, tmp_path / "run", *SMALL[name], "train.validation_instances=0", "train.judgement_instances=0"
    )
    assert trained.returncode == 0, trained.stderr
    policy = Path(trained.stdout.strip())
    assert (policy / "manifest.json").exists()
    compared = script("evaluate", config, policy, other, "--instances", 2)
    assert compared.returncode == 0, compared.stderr
    assert other in compared.stdout


@pytest.mark.parametrize(
    ("name", "policy", "seconds"),
    [("annealing", "feedback", 6), ("ensemble_real", "malleable", 6), ("search", "target_per_second", 40)],
)
def test_each_real_campaign_is_steered(tmp_path: Path, name: str, policy: str, seconds: float) -> None:
    config = ROOT / "configs" / f"{name}.yaml"
    done = script("steer", config, policy, tmp_path / "run", f"campaign.options.allocation_s={seconds}")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["decisions"] > 0


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("train", ["nosuch.yaml", "runs/none"], "nosuch.yaml: no such file"),
        ("evaluate", ["configs/annealing.yaml", "nosuch", "linear"], "nosuch"),
        ("steer", ["configs/annealing.yaml", "nosuch", "runs/none"], "nosuch"),
    ],
)
def test_what_is_wrong_is_one_line(name: str, arguments: list[str], said: str) -> None:
    done = script(name, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (ROOT / "runs" / "none").exists()
