"""The batch files of ``scripts/batch``: Slurm's run to the end of what they are for, over the end of their jobs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import slurm_bed
import yaml
from slurm_bed import Bed

from rlctl.executors.event_log import Journal

ROOT = Path(__file__).parents[2]
BATCH = ROOT / "scripts" / "batch"
PATIENCE_S = 300.0


def until(condition: Callable[[], Any], what: Callable[[], Any] = lambda: "") -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end_s, what()
        time.sleep(0.1)


def submit(bed: Bed, script: str, folder: Path, *arguments: str, words: Sequence[str] = (), **variables: str) -> int:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | bed.environment | {"PATH": path, "OMP_NUM_THREADS": "1"} | variables
    command = ["sbatch", "--parsable", f"--output={folder}/%j.log", *arguments, str(BATCH / script), *words]
    return int(subprocess.run(command, env=environment, cwd=folder, check=True, capture_output=True, text=True).stdout)


def words(folder: Path) -> str:
    return "\n".join(path.read_text() for path in sorted(folder.glob("*.log")))


def soon(bed: Bed, job: int, seconds: float) -> None:
    """Let the time limit of a job come."""
    end = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() + seconds))
    bed.ask("scontrol", "update", f"JobId={job}", f"EndTime={end}")


@pytest.fixture
def free(bed: Bed) -> None:
    slurm_bed.end_whole()


@pytest.mark.slurm
def test_annealing_goes_on_in_a_second_job_and_comes_to_its_end(
    bed: Bed, free: None, gathers: None, tmp_path: Path
) -> None:
    experiment = yaml.safe_load((ROOT / "configs" / "annealing.yaml").read_text())
    experiment["campaign"]["options"] |= {"films": 1}
    experiment["campaign"]["options"]["program"] |= {"grid": 256}
    experiment["machine"] = {"nodes": 2, "cores": 2, "gpus": 0}
    experiment["executor"] = {"name": "slurm", "options": {"poll_s": 0.5, "warning_s": 50.0}}
    experiment["policies"] = {"feedback": {"rule": "feedback"}}
    config, run = tmp_path / "annealing.yaml", tmp_path / "run"
    config.write_text(yaml.safe_dump(experiment))
    variables = {"CONFIG": str(config), "POLICY": "feedback", "RUN": str(run)}
    allocation = ("--set", "campaign.options.allocation_s=45")
    first = submit(bed, "steer.slurm", tmp_path, words=allocation, **variables)

    def ends() -> int:
        if not (run / "journal.db").exists():
            return 0
        with Journal.open(run / "journal.db", read_only=True) as journal:
            return sum("result" in record.data for record in journal.records(kinds=["event"]))

    until(lambda: ends() >= 2, lambda: words(tmp_path))
    soon(bed, first, 45.0)  # sooner than the warning: it stops at once
    until((run / "summary.json").exists, lambda: words(tmp_path))
    until(lambda: not bed.ask("squeue", "--noheader"))
    with Journal.open(run / "journal.db", read_only=True) as journal:
        records = journal.records()
    jobs = {record.data["job"] for record in records if record.kind == "launching"}
    assert len(jobs) == 2
    assert first in jobs
    launched = [(r.data["uid"], r.data["attempt"]) for r in records if r.kind == "launching"]
    assert len(launched) == len(set(launched))
    assert {host for r in records if r.kind == "launching" for host in r.data["hosts"]} <= {"n1", "n2", "n3", "n4"}
    summary = json.loads((run / "summary.json").read_text())
    assert summary["tasks"]["done"] > 2
    assert not summary["failures"], summary
    assert "to resume: " in words(tmp_path)


@pytest.mark.slurm
def test_training_goes_on_in_a_second_job_and_comes_to_its_end(bed: Bed, free: None, tmp_path: Path) -> None:
    experiment = yaml.safe_load((ROOT / "configs" / "ensemble_small.yaml").read_text())
    experiment["train"] |= {"decisions": 40_000, "validation_instances": 0, "judgement_instances": 0}
    experiment["policies"] = {}
    config, run = tmp_path / "queue.yaml", tmp_path / "run"
    config.write_text(yaml.safe_dump(experiment))
    first = submit(
        bed, "train.slurm", tmp_path, "--cpus-per-task=2", "--signal=B:USR1@30", CONFIG=str(config), RUN=str(run)
    )
    until(lambda: list((run / "tensorboard").glob("**/events*")) if run.exists() else [], lambda: words(tmp_path))
    bed.ask("scancel", "--batch", "--signal=USR1", str(first))  # what Slurm sends before the end
    until(lambda: (run / "policy" / "manifest.json").exists(), lambda: words(tmp_path))
    until(lambda: not bed.ask("squeue", "--noheader"))
    assert len(list(tmp_path.glob("*.log"))) == 2


@pytest.mark.parametrize("script", sorted(BATCH.iterdir()), ids=lambda path: path.name)
def test_batch_files_are_shell_that_says_what_it_lacks(script: Path, tmp_path: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)
    variables = {name: value for name, value in os.environ.items() if name not in ("CONFIG", "POLICY", "RUN")}
    done = subprocess.run(
        ["bash", str(script)],
        env=variables | {"PBS_O_WORKDIR": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0
    assert "which configuration?" in done.stderr
    assert not list(tmp_path.iterdir())
