"""An ensemble on the nodes of a job: the configuration and the policy are those of the twin."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import restless
from conftest import Run
from slurm_bed import Bed, inside

from rlctl.steering.run_folder import read_run

pytestmark = pytest.mark.slurm

# Open MPI starts no more ranks on a node than the real machine has cores.
CONFIG = restless.config(
    {"nodes": 2, "cores": 2, "gpus": 2},
    {"name": "slurm"},
    workload={"tasks": [6, 6], "most_tasks": 8, "kinds": [2, 2], "gpus": {"gain": 0.7, "gains": [2.0, 4.0]}},
    program={"walltime_s": 60},
    ranks=[1, 2, 4],
)


def test_an_ensemble_is_stopped_and_resized_on_the_nodes_of_a_job(
    bed: Bed, job: int, gathers: None, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG)
    command = f"cd {tmp_path} && exec {sys.executable} {restless.SCRIPT} config.yaml run"
    done = run("sh", "-c", command, timeout_s=280.0, **inside(job), OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["reached"]
    records = read_run(tmp_path / "run").records
    launches = [record for record in records if record.kind == "launching"]
    assert {node for record in launches for node in record.data["nodes"]} == {0, 1}
    assert any(record.data.get("gpus") for record in launches)
    states = [record.data["state"] for record in records if record.kind == "event"]
    assert "preempted" in states or "canceled" in states
    assert any("progress" in record.data for record in records if record.kind == "event")


def test_the_same_configuration_is_steered_by_a_rule_from_the_command_line(
    bed: Bed, job: int, gathers: None, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG)
    command = f"cd {tmp_path} && exec {sys.executable} -m rlctl steer config.yaml --policy malleable --run run --json"
    done = run("sh", "-c", command, timeout_s=280.0, **inside(job), OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["reached"]
    assert summary["extra"]["tasks_failed"] == 0
