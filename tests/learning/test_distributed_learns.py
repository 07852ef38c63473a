"""Policies that were learned over MPI ranks are as good as they should be; ``RLCTL_LEARNING=full`` asks for all of it.

Run with ``-s`` it prints a table of the scores.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import forms
import pytest
from mpi_runner import mpiexec

from rlctl.distributed.launch.launcher import stale_shm

ROOT = Path(__file__).parents[2]
FULL = forms.full("LEARNING")
EPISODES = 50
full = pytest.mark.skipif(not FULL, reason="takes minutes: make test-learning")

Row = tuple[str, int, int, float, float, float]


@pytest.fixture(scope="module")
def table() -> Iterator[list[Row]]:
    rows: list[Row] = []
    yield rows
    print(
        f"\n{'what learned':32} {'ranks':>5} {'seed':>4} {'mean of ' + str(EPISODES):>11} {'target':>8} {'wall, s':>8}"
    )
    for name, ranks, seed, score, target, wall_s in rows:
        print(f"{name:32} {ranks:>5} {seed:>4} {score:>11.1f} {target:>8.0f} {wall_s:>8.1f}")


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    before = stale_shm.present()
    yield
    assert stale_shm.present() <= before


def run(*arguments: object, timeout_s: float = 1200.0) -> str:
    """``rlctl`` with these arguments; what it prints."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "rlctl", *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def trained(folder: Path, name: str, ranks: int, seed: int, sets: list[str]) -> tuple[Path, float]:
    """The policy that a configuration gives on so many ranks, and the seconds that it took."""
    mpiexec()  # or skip
    options = [f"--set={text}" for text in [f"seed={seed}", "train.validation_instances=0", *sets]]
    began_s = time.monotonic()
    run("train", f"configs/{name}.yaml", "--out", folder / "run", "--ranks", ranks, *options)
    return folder / "run" / "policy", time.monotonic() - began_s


def mean_return(name: str, policy: Path) -> float:
    """Of held-out episodes."""
    found = run(
        "evaluate", f"configs/{name}.yaml", "--policy", policy, "--against", "random", "--instances", EPISODES, "--json"
    )
    return float(json.loads(found)["rows"][0]["mean"])


PPO = ["train.decisions=100000"]
LOCKSTEP = [*PPO, "train.distributed.mode=lockstep"]


@pytest.mark.parametrize(
    ("what", "name", "ranks", "seed", "sets", "target"),
    [
        ("PPO CartPole, asynchronous", "cartpole", 9, 1, PPO, 475),
        pytest.param("PPO CartPole, asynchronous", "cartpole", 9, 2, PPO, 475, marks=full),
        pytest.param("PPO CartPole, asynchronous", "cartpole", 9, 3, PPO, 475, marks=full),
        pytest.param("PPO CartPole, lock-step", "cartpole", 9, 1, LOCKSTEP, 475, marks=full),
        pytest.param("PPO CartPole, lock-step", "cartpole", 9, 2, LOCKSTEP, 475, marks=full),
        pytest.param("PPO CartPole, lock-step", "cartpole", 9, 3, LOCKSTEP, 475, marks=full),
        pytest.param(
            "PPO CartPole, two learners", "cartpole", 10, 1, [*PPO, "train.distributed.learners=2"], 400, marks=full
        ),
        pytest.param(
            "PPO CartPole, weights by RMA",
            "cartpole",
            9,
            1,
            [*PPO, "train.distributed.weights=window"],
            475,
            marks=full,
        ),
        # Which policy is the last one depends on chance in DQN, and so on timing unless all step together.
        ("DQN CartPole, lock-step", "cartpole_dqn", 5, 1, ["train.distributed.mode=lockstep"], 195),
        pytest.param("DQN CartPole, asynchronous", "cartpole_dqn", 5, 1, [], 400, marks=full),
        pytest.param("SAC Pendulum, asynchronous", "pendulum_sac", 5, 1, [], -200, marks=full),
    ],
)
def test_a_policy_learned_over_ranks_reaches_its_target(
    tmp_path: Path, table: list[Row], what: str, name: str, ranks: int, seed: int, sets: list[str], target: float
) -> None:
    policy, wall_s = trained(tmp_path, name, ranks, seed, sets)
    score = mean_return(name, policy)
    table.append((what, ranks, seed, score, target, wall_s))
    assert score >= target


@full
def test_a_campaign_is_learned_over_ranks_as_well_as_in_one_process(tmp_path: Path, table: list[Row]) -> None:
    decisions = [f"train.decisions={600_000}", "train.checkpoint_decisions=600000"]
    over_ranks = [*decisions, "train.distributed.envs_per_actor=128"]
    paths = {}
    for what, ranks, sets in (("annealing, one process", 1, decisions), ("annealing, over ranks", 3, over_ranks)):
        (tmp_path / str(ranks)).mkdir()
        paths[what], wall_s = trained(tmp_path / str(ranks), "annealing", ranks, 1, sets)
        found = run(
            "evaluate",
            "configs/annealing.yaml",
            "--policy",
            paths[what],
            "--against",
            "feedback",
            "--instances",
            96,
            "--json",
        )
        row = json.loads(found)["rows"][0]
        table.append((what, ranks, 1, row["ert"], 0.0, wall_s))
    (one, ranks) = (row[3] for row in table[-2:])
    assert ranks <= 1.1 * one
