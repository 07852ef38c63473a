"""The test bed is a Slurm like others: nodes, GPUs, steps side by side; nodes die and come back; nothing is left."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Run
from slurm_bed import SCRIPT, Bed

pytestmark = pytest.mark.slurm


def until(what: Callable[[], bool], limit_s: float = 60.0) -> bool:
    end_s = time.monotonic() + limit_s
    while not what():
        if time.monotonic() > end_s:
            return False
        time.sleep(0.1)
    return True


def script(folder: Path, word: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"RLCTL_TESTBED": str(folder)} | variables
    return subprocess.run([str(SCRIPT), word], env=environment, capture_output=True, text=True, timeout=120)


def processes(folder: Path) -> list[str]:
    """Commands that name this folder, or whose environment does."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            text = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
        except OSError:
            continue
        if str(folder).encode() in text and entry.name != str(os.getpid()):
            found.append((entry / "comm").read_text())
    return found


def test_a_step_runs_on_the_nodes_that_were_asked_for(job: int, run: Run) -> None:
    done = run("srun", f"--jobid={job}", "--overlap", "-N2", "-n2", "sh", "-c", "echo $SLURMD_NODENAME")
    assert len(set(done.stdout.split())) == 2, done.stderr


def test_gpus_of_a_node_are_numbered(job: int, run: Run) -> None:
    step = ("srun", f"--jobid={job}", "-N1", "-n1", "--overlap")
    ask = ("sh", "-c", "echo $CUDA_VISIBLE_DEVICES")
    assert run(*step, *ask).stdout.strip() == "0,1"
    assert run(*step, "--gres=gpu:1", *ask).stdout.strip() == "0"
    assert run(*step, "--gres=none", *ask).stdout.strip() == ""


def test_a_node_dies_with_all_that_runs_on_it_and_comes_back(bed: Bed, tmp_path: Path) -> None:
    number = bed.job(2)
    try:
        name = bed.ask("scontrol", "show", "hostnames", bed.ask("squeue", "-h", f"-j{number}", "-o%N").strip()).split()[
            1
        ]
        here = tmp_path / "here"
        step = ["srun", f"--jobid={number}", "--overlap", "-N1", "-n1", f"--nodelist={name}"]
        with subprocess.Popen(
            [*step, "sh", "-c", f"setsid sleep 600 & echo $! > {here}; wait"], env=os.environ | bed.environment
        ) as srun:
            assert until(lambda: here.exists() and here.read_text().strip() != "")
            bed.run("kill-node", name)
            pid = int(here.read_text())
            assert until(
                lambda: not Path(f"/proc/{pid}/cmdline").exists() or not Path(f"/proc/{pid}/cmdline").read_bytes()
            )
            assert until(lambda: bed.ask("sinfo", "-h", "-N", f"--nodes={name}", "-o%t").strip() == "down*")
            assert srun.wait(30) == 0  # though it never came to its end: an exit code of srun is no proof
        assert bed.ask("squeue", "-h", f"-j{number}", "-o%t").strip() == "R"
    finally:
        bed.ask("scancel", str(number))
        bed.run("start-node", name)
    assert until(lambda: bed.ask("sinfo", "-h", "-N", f"--nodes={name}", "-o%t").strip() == "idle")


def test_steps_that_overlap_never_wait_for_each_other(job: int, bed: Bed) -> None:
    step = ["srun", f"--jobid={job}", "--overlap", "-N1", "-n4", "--ntasks-per-node=4", "--gres=gpu:2", "sleep", "600"]
    running = [subprocess.Popen(step, env=os.environ | bed.environment, stderr=subprocess.DEVNULL) for _ in range(6)]
    try:
        assert until(lambda: bed.steps(job).count("sleep") == 6, 20.0)
    finally:
        bed.ask("scancel", str(job))
        for srun in running:
            srun.wait(30)


def test_two_beds_stand_side_by_side_and_leave_nothing(bed: Bed, tmp_path: Path) -> None:
    one = {"TESTBED_NODES": "1", "TESTBED_GPUS": "0", "TESTBED_CPUS": "1"}
    try:
        for _ in range(2):  # up when it is up already: nothing changes
            done = script(tmp_path / "bed", "up", **one)
            assert done.returncode == 0, done.stderr
            assert "n1 idle, 1 CPUs" in done.stdout
        assert script(tmp_path / "bed", "env").stdout == f"export SLURM_CONF='{tmp_path}/bed/slurm.conf'\n"
        subprocess.run(
            ["sbatch", "--output=/dev/null", "--wrap=setsid sleep 600 & sleep 600"],
            env=os.environ | {"SLURM_CONF": str(tmp_path / "bed" / "slurm.conf")},
            check=True,
            capture_output=True,
        )
    finally:
        downs = [script(tmp_path / "bed", "down") for _ in range(2)]
    assert [done.returncode for done in downs] == [0, 0]
    assert script(tmp_path / "bed", "status").returncode == 1
    assert processes(tmp_path / "bed") == []
    assert bed.ask("sinfo", "-h", "-o%D").strip() == "4"


def test_a_machine_without_slurm_is_told_so_in_one_line(tmp_path: Path) -> None:
    for program in ("bash", "realpath", "id"):
        (tmp_path / program).symlink_to(str(shutil.which(program)))
    text = SCRIPT.read_text().replace("PATH=$PATH:/usr/sbin:/sbin", f"PATH={tmp_path}")
    bare = tmp_path / "script.sh"
    bare.write_text(text)
    done = subprocess.run(["bash", str(bare), "up"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 3
    assert len(done.stderr.splitlines()) == 1
    assert "apt-get install" in done.stderr
