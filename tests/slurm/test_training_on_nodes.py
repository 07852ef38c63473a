"""``rlctl train --ranks`` inside a job: the ranks are on the job's nodes, and ``srun`` starts them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from conftest import Run
from slurm_bed import Bed, inside

pytestmark = pytest.mark.slurm

CONFIG = """
schema: 1
seed: 1
campaign: {name: gymnasium, options: {id: Where-v0, module: where}}
train:
  decisions: 600
  validation_instances: 0
  distributed: {lease_s: 5.0}
  options: {n_steps: 64, batch_size: 64, net_arch: [8]}
"""
WHERE = """
import os
from pathlib import Path
import gymnasium
from gymnasium.envs.classic_control import CartPoleEnv

class Where(CartPoleEnv):
    def reset(self, **kwargs):
        Path(f"on-{os.environ.get('SLURMD_NODENAME')}-{os.environ.get('SLURM_PROCID')}").touch()
        return super().reset(**kwargs)

gymnasium.register("Where-v0", entry_point="where:Where", max_episode_steps=100)
"""


def test_the_ranks_of_a_training_are_on_all_nodes_of_the_job(
    bed: Bed, job: int, gathers: None, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "where.py").write_text(WHERE)
    (tmp_path / "config.yaml").write_text(CONFIG)
    command = f"cd {tmp_path} && exec {sys.executable} -P -m rlctl train config.yaml --out=run --ranks=4"
    environment = {**inside(job), "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = run("sh", "-c", command, timeout_s=120.0, **environment)
    assert done.returncode == 0, done.stderr
    assert "saved the policy in run/policy" in done.stdout
    actors = sorted(path.name.split("-")[-1] for path in tmp_path.glob("on-*-[123]"))
    assert actors == ["1", "2", "3"]
    nodes = {path.name.removeprefix("on-").rpartition("-")[0] for path in tmp_path.glob("on-*-[123]")}
    assert len(nodes) == 2
