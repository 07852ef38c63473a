"""Each way in which ranks can be used trains to its end, and resumes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mpi_runner import mpiexec

from rlctl.bundle.saved_policy import read_manifest
from rlctl.distributed.launch.launcher import stale_shm
from rlctl.steering.run_folder import WORK

CARTPOLE = """
schema: 1
seed: 1
campaign: {name: gymnasium, options: {id: CartPole-v1}}
train:
  decisions: 600
  checkpoint_decisions: 200
  validation_instances: 0
  options: {n_steps: 32, batch_size: 32, net_arch: [8]}
"""
SETS = """
schema: 1
seed: 1
campaign: {name: ensemble, options: {workload: {tasks: [4, 6]}}}
machine: {nodes: 8, cores: 1}
train:
  decisions: 600
  checkpoint_decisions: 200
  validation_instances: 0
  judgement_instances: 2
  options: {n_steps: 32, batch_size: 32, network: attention, attention: {width: 8}, residual: {rule: sjf}}
policies: {sjf: {rule: sjf}}
"""
FILMS = """
schema: 1
seed: 1
campaign:
  name: block_copolymer
  options:
    films: 1
    chains: 1
    allocation_s: 6.0
    steps: [20]
    ranks: [1]
    program: {grid: 32, start_up_s: {1: 0.3}, step_s: {1: 0.0005}, walltime_s: 20.0}
machine: {nodes: 1, cores: 1}
train:
  decisions: 24
  validation_instances: 0
  judgement_instances: 0
  distributed: {simulations: executor, chunk_steps: 4, chunk_s: 2.0, discount_s: 1.0}
  options: {n_steps: 4, batch_size: 8, net_arch: [8]}
"""


def train(folder: Path, config: str, ranks: int, *options: str) -> subprocess.CompletedProcess[str]:
    mpiexec()  # or skip
    (folder / "config.yaml").write_text(config)
    before = stale_shm.present()
    done = subprocess.run(
        [sys.executable, "-P", "-m", "rlctl", "train", "config.yaml", "--out=run", f"--ranks={ranks}", *options],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert stale_shm.present() <= before
    return done


def weights(policy: Path) -> dict[str, np.ndarray]:
    with np.load(policy / "weights.npz") as arrays:
        return {name: arrays[name] for name in arrays.files}


def test_agents_side_by_side_differ_in_what_they_were_told_to(tmp_path: Path) -> None:
    agents = "--set=train.distributed.agents=[{}, {options: {net_arch: [4]}}, {seed: 9}]"
    done = train(tmp_path, CARTPOLE, 6, agents, "--json")
    assert done.returncode == 0, done.stderr
    policies = json.loads(done.stdout)["policies"]
    assert policies == [f"run/agent-{n}/policy" for n in range(3)]
    first, second, third = (weights(tmp_path / policy) for policy in policies)
    assert first["0.weight"].shape[0] == 8
    assert second["0.weight"].shape[0] == 4
    assert not np.array_equal(first["0.weight"], third["0.weight"])
    for policy in policies:
        assert list((tmp_path / policy).parent.glob("tensorboard/*tfevents*"))


@pytest.mark.parametrize(
    ("ranks", "way"),
    [
        (4, "train.distributed.learners=2"),
        pytest.param(3, "train.distributed.weights=window", marks=pytest.mark.quick),
    ],
)
def test_it_trains_and_goes_on(tmp_path: Path, ranks: int, way: str) -> None:
    done = train(tmp_path, CARTPOLE, ranks, f"--set={way}")
    assert done.returncode == 0, done.stderr
    before = weights(tmp_path / "run" / "policy")
    done = train(tmp_path, CARTPOLE, ranks, f"--set={way}", "--set=train.decisions=900", "--resume")
    assert done.returncode == 0, done.stderr
    assert int(sorted((tmp_path / "run" / "checkpoints").iterdir())[-1].name) >= 900
    assert not np.array_equal(before["0.weight"], weights(tmp_path / "run" / "policy")["0.weight"])


@pytest.mark.parametrize(("ranks", "algorithm"), [(4, "ppo"), (3, "maskable_ppo")])
def test_it_attends_on_ranks(tmp_path: Path, ranks: int, algorithm: str) -> None:
    sets = [f"--set=train.algorithm={algorithm}", f"--set=train.distributed.learners={ranks - 2}"]
    done = train(tmp_path, SETS, ranks, *sets)
    assert done.returncode == 0, done.stderr
    before = weights(tmp_path / "run" / "policy")
    assert before["attention.layer0.query.weight"].shape == (8, 8)
    first = read_manifest(tmp_path / "run" / "policy")
    assert first.judgement is not None
    assert first.judgement.reason(algorithm) in done.stdout
    done = train(tmp_path, SETS, ranks, *sets, "--set=train.decisions=900", "--resume")
    assert done.returncode == 0, done.stderr
    after = weights(tmp_path / "run" / "policy")
    judged, spent_s = read_manifest(tmp_path / "run" / "policy"), [(first.model_extra or {})["cpu_seconds"]]
    assert judged.judgement is not None
    spent_s.append((judged.model_extra or {})["cpu_seconds"])
    assert 0.0 < spent_s[0] < spent_s[1]
    assert all(not np.array_equal(before[name], after[name]) for name in ("attention.score.weight", "attention.favour"))


def test_actors_run_the_real_simulations_of_a_campaign(tmp_path: Path) -> None:
    done = train(tmp_path, FILMS, 3, "--set=train.distributed.keep_simulations=true")
    assert done.returncode == 0, done.stderr
    results = list((tmp_path / "run" / "simulations").glob(f"actor-*/0/*/{WORK}/film*.json"))
    assert len(results) >= 8  # give-ups and the last tasks leave none
    assert {path.parts[-5] for path in results} == {"actor-0", "actor-1"}
    assert 0.0 < json.loads(results[0].read_text())["seconds"]["total"] < 20.0


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (["train.distributed.simulations=executor"], "has no tasks that could be run"),
        (["train.distributed.learners=2", "train.distributed.mode=lockstep"], "do not step together"),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_line(tmp_path: Path, sets: list[str], said: str) -> None:
    done = train(tmp_path, CARTPOLE, 4, *[f"--set={text}" for text in sets])
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert said in line
