"""The bed that these tests share, and what they run on it."""

from __future__ import annotations

import os
import subprocess
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
    slurm_bed.end_whole()
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
def mpich(mpich: Path) -> Path:
    """``bin`` of the environment with MPICH."""
    return mpich / "bin"
