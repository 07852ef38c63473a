"""Parsl's workers in jobs of a real Slurm: on several nodes, lost with one, and as masters of a block."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import slurm_bed
from parsl_workers import needs_parsl
from slurm_bed import Bed

from rlctl.core.machine import Capacity
from rlctl.core.task import Resources, TaskId, TaskSpec, TaskState
from rlctl.executors import Executor
from rlctl.system.mpi import find_mpiexec

pytestmark = [pytest.mark.slurm, needs_parsl]

PATIENCE_S = 60.0


def workers(launcher: Any, **options: Any) -> Any:
    """A block of two nodes with one worker each, or one for both."""
    from parsl.executors import HighThroughputExecutor
    from parsl.providers import SlurmProvider

    return HighThroughputExecutor(
        label="bed",
        address="127.0.0.1",
        max_workers_per_node=1,
        cores_per_worker=1e-6,
        heartbeat_period=1,
        heartbeat_threshold=5,
        provider=SlurmProvider(nodes_per_block=2, walltime="01:00:00", launcher=launcher, cmd_timeout=30),
        **options,
    )


@pytest.fixture
def site(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    slurm_bed.end_whole()
    for name, value in bed.environment.items():
        monkeypatch.setenv(name, value)
    for name in [name for name in os.environ if name.startswith("SLURM_") and name not in bed.environment]:
        monkeypatch.delenv(name)


def until(condition: Callable[[], Any], what: object) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end_s, what
        time.sleep(0.05)


def shell(uid: str, script: str, **options: Any) -> TaskSpec:
    return TaskSpec(TaskId(uid), executable="sh", arguments=("-c", script), **options)


def test_tasks_run_on_all_nodes_of_a_block_and_again_when_their_job_is_cancelled(
    bed: Bed, site: None, tmp_path: Path
) -> None:
    from parsl.launchers import SrunLauncher

    from rlctl.executors.parsl.backend import ParslBackend
    from rlctl.executors.parsl.options import ParslOptions

    htex = workers(SrunLauncher())
    htex.provider.__class__ = type("Impatient", (type(htex.provider),), {"status_polling_interval": 1})
    backend = ParslBackend(htex, Capacity(nodes=2), tmp_path / "work", ParslOptions(lease_s=5.0))
    with Executor(backend) as executor:
        script = "echo $SLURMD_NODENAME >> {0}.nodes; test $(wc -l < {0}.nodes) -gt 1 || exec sleep 300"
        futures = executor.submit_tasks([shell(uid, script.format(uid)) for uid in "ab"])
        files = [tmp_path / "work" / f"{uid}.nodes" for uid in "ab"]
        until(lambda: all(path.exists() and path.read_text().strip() for path in files), "both have begun")
        assert len({path.read_text() for path in files}) == 2, "each on a node of its own"
        (job,) = bed.ask("squeue", "--noheader", "--format=%i").split()
        bed.ask("scancel", job)
        assert [future.result(PATIENCE_S) for future in futures] == [{}, {}]
        assert [future.attempt for future in futures] == [2, 2]
        assert all(event.state is not TaskState.FAILED for event in executor.events())
    until(lambda: not bed.ask("squeue", "--noheader").strip(), "no job is left")


@pytest.mark.skipif(find_mpiexec() is None, reason="needs an mpiexec")
def test_a_program_runs_over_all_hosts_of_the_block_that_its_worker_is_master_of(
    bed: Bed, site: None, tmp_path: Path
) -> None:
    from parsl.launchers import SimpleLauncher

    from rlctl.executors.parsl.backend import ParslBackend

    code = (
        "import json, os; from mpi4py import MPI; c = MPI.COMM_WORLD; hosts = c.gather(os.environ['SLURMD_NODENAME'])\n"
        "if c.rank == 0: json.dump({'hosts': hosts}, open('m.json', 'w'))"
    )
    capacity = Capacity(nodes=1, cores=16)
    with Executor(ParslBackend(workers(SimpleLauncher()), capacity, tmp_path / "work")) as executor:
        spec = TaskSpec(
            TaskId("m"),
            executable="python",
            arguments=("-c", code),
            resources=Resources(ranks=4),
            result_file="m.json",
        )
        hosts = executor.submit_task(spec).result(PATIENCE_S)["hosts"]
    assert len(hosts) == 4
    assert sorted(hosts.count(host) for host in set(hosts)) == [2, 2]
