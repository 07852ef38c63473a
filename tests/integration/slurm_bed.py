"""A Slurm of four nodes on this machine, for the tests that want one; it ends with them."""

from __future__ import annotations

import atexit
import functools
import getpass
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "slurm-testbed.sh"


class Bed:
    """A Slurm that is up.

    Attributes:
        folder: where all of it lies.
        environment: for whoever wants to talk to it.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="rlctl-bed-"))
        self._settings = {
            "RLCTL_TESTBED": str(self.folder / "bed"),
            "TESTBED_NODES": "4",
            "TESTBED_CPUS": "8",
            "TESTBED_GPUS": "2",
        }
        self.environment = {"SLURM_CONF": str(self.folder / "bed" / "slurm.conf")}
        self.run("up")
        atexit.register(self.down)

    def run(self, *words: str) -> None:
        """The script: ``up``, ``kill-node n2``, ..."""
        subprocess.run(
            [str(SCRIPT), *words],
            env=os.environ | self._settings,
            check=True,
            stdin=subprocess.DEVNULL,
            timeout=120,
        )

    def down(self) -> None:
        """End it; may be called twice."""
        if self.folder.exists():
            self.run("down")
            shutil.rmtree(self.folder)

    def ask(self, *command: str) -> str:
        """What one of Slurm's commands says."""
        return subprocess.run(
            command, env=os.environ | self.environment, check=True, capture_output=True, text=True, timeout=120
        ).stdout

    def job(self, nodes: int = 4, arguments: Sequence[str] = (), script: str = "exec sleep infinity") -> int:
        """A job that runs, with all of its nodes."""
        gpus = ["--gres=gpu:2", "--exclusive", "--mem=0", "--no-kill", "--output=/dev/null", "--chdir=/"]
        said = self.ask("sbatch", "--parsable", f"--nodes={nodes}", *gpus, *arguments, f"--wrap={script}")
        number = int(said)
        end_s = time.monotonic() + 60.0
        while self.ask("squeue", "--noheader", f"--jobs={number}", "--format=%T").strip() != "RUNNING":
            assert time.monotonic() < end_s, self.ask("squeue")
            time.sleep(0.05)
        return number

    def steps(self, number: int) -> list[str]:
        """Names of a job's steps, without that of the batch script."""
        text = self.ask("squeue", "--noheader", "--steps", f"--jobs={number}", "--format=%j")
        return [name for name in text.split() if name not in ("batch", "extern")]


@functools.cache
def bed() -> Bed:
    """The same one for all tests; skips where there is no Slurm."""
    if shutil.which("slurmctld", path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None:
        pytest.skip("no Slurm here: apt-get install slurmctld slurmd slurm-client slurm-wlm-basic-plugins munge")
    return Bed()


@functools.cache
def whole() -> int:
    """A job that has all nodes of the bed until the tests end."""
    return bed().job()


def end_whole() -> None:
    """End that job, and every other: somebody wants the nodes."""
    whole.cache_clear()
    end_s = time.monotonic() + 60.0
    while found := bed().ask("squeue", "--noheader"):
        bed().ask("scancel", f"--user={getpass.getuser()}")
        assert time.monotonic() < end_s, found
        time.sleep(0.1)


def inside(number: int) -> Mapping[str, str]:
    """Variables of a process that runs in this job."""
    return bed().environment | {"SLURM_JOB_ID": str(number)}
