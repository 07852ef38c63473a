"""The bed that these tests share, and what they run on it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import slurm_bed
from slurm_bed import Bed

from rlctl.executors.slurm.commands import PMI, pmi_problem
from rlctl.system.mpi import mpi_library

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def bed() -> Bed:
    """A Slurm of four nodes; the test is skipped where there is none."""
    return slurm_bed.bed()


@pytest.fixture
def job(bed: Bed) -> Iterator[int]:
    """A job of the test's own, on two nodes."""
    slurm_bed.end_whole()
    number = bed.job(2)
    yield number
    bed.ask("scancel", str(number))


@pytest.fixture
def gathers(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    """``srun`` brings ranks of this environment's MPI together; the test is skipped where it cannot."""
    monkeypatch.setenv("SLURM_CONF", bed.environment["SLURM_CONF"])
    family = mpi_library(sys.executable, os.environ)
    if family is None:
        pytest.skip("no mpi4py in this environment: pip install 'rlctl[mpi]'")
    if (why := pmi_problem(PMI[family])) is not None:
        pytest.skip(why)


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
def mpich(mpich: Path) -> Path:
    """``bin`` of the environment with MPICH."""
    return mpich / "bin"
