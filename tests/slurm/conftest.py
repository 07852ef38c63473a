"""The bed that these tests share, and what they run on it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import slurm_bed
from slurm_bed import Bed

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def bed() -> Bed:
    """A Slurm of four nodes; the test is skipped where there is none."""
    return slurm_bed.bed()


@pytest.fixture
def job(bed: Bed) -> Iterator[int]:
    """A job of the test's own, on two nodes."""
    number = bed.job(2)
    yield number
    bed.ask("scancel", str(number))


@pytest.fixture
def run(bed: Bed) -> Run:
    """Runs a command on the bed; gives what it said, and its exit code."""

    def command(*words: str, timeout_s: float = 60.0, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | bed.environment | variables
        return subprocess.run(
            words, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s
        )

    return command


@pytest.fixture(scope="session")
def mpich(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """``bin`` of a virtual environment with MPICH and an mpi4py that uses it."""
    folder = tmp_path_factory.mktemp("mpich") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, timeout=120)
    command = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*command, "mpich", "mpi4py"], capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        pytest.skip(f"pip cannot install MPICH here: {done.stderr.strip().splitlines()[-1:]}")
    yield folder / "bin"
    shutil.rmtree(folder)
