"""MPI programs over the hosts of a block: the command that starts them."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from rlctl.core.task import Resources, TaskId, TaskSpec
from rlctl.executors.application import Application, ProgramEnvironments
from rlctl.executors.backend import Attempt
from rlctl.executors.parsl.block_program import BlockProgram, hosts_of_block


def program(folder: Path, ranks: int) -> BlockProgram:
    spec = TaskSpec(TaskId("a"), executable="./solve", arguments=("in",), environment={"MINE": "1"})
    attempt = Attempt("a.1", TaskId("a"), 1, spec, Resources(ranks=ranks, cores_per_rank=2), ())
    return BlockProgram(attempt, folder, folder / "scratch", ProgramEnvironments({"PATH": str(folder)}))


@pytest.fixture
def mpich(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A launcher that says it is one of MPICH's, in a job of PBS on three hosts."""
    path = tmp_path / "mpiexec"
    path.write_text("#!/bin/sh\necho HYDRA build details:\n")
    path.chmod(0o755)
    nodes = tmp_path / "nodes"
    nodes.write_text("h1\nh1\nh2\nh3\n")
    monkeypatch.setenv("PBS_NODEFILE", str(nodes))
    monkeypatch.delenv("SLURM_JOB_NODELIST", raising=False)
    return str(path)


def test_ranks_go_evenly_over_the_hosts_of_the_block(tmp_path: Path, mpich: str) -> None:
    asked = program(tmp_path, 5).prepare({})
    command = asked["command"]
    start = command.index(mpich)
    assert command[0] == "/usr/bin/env"
    assert command[start:] == [mpich, "-bind-to", "none", "-hosts", "h1:2,h2:2,h3:1", "-n", "5", "./solve", "in"]
    told = asked["environment"]
    assert (told["OMP_NUM_THREADS"], told["MINE"], told["PBS_NODEFILE"]) == ("2", "1", str(tmp_path / "nodes"))


def test_few_ranks_take_the_first_hosts_and_one_rank_needs_no_launcher(tmp_path: Path, mpich: str) -> None:
    command = program(tmp_path, 2).prepare({})["command"]
    assert command[command.index("-hosts") + 1] == "h1:1,h2:1"
    assert program(tmp_path, 1).prepare({})["command"] == [f"{tmp_path}/./solve", "in"]


@pytest.mark.parametrize("ranks", [1, 5])
def test_a_wrapper_runs_once_and_starts_the_launcher(tmp_path: Path, mpich: str, ranks: int) -> None:
    made = program(tmp_path, ranks)
    made.attempt = made.attempt._replace(spec=replace(made.attempt.spec, wrapper=("python", "-m", "reads", "--")))
    made = BlockProgram(made.attempt, tmp_path, tmp_path / "scratch", ProgramEnvironments({"PATH": str(tmp_path)}))
    command = made.prepare({})["command"]
    assert command[:4] == [sys.executable, "-m", "reads", "--"]
    assert command[-2:] == ["./solve", "in"]
    assert command.count("reads") == 1
    assert (command[4] == "/usr/bin/env" and mpich in command) == (ranks > 1)


def test_what_an_application_or_a_task_sets_wins_over_what_rlctl_sets(tmp_path: Path, mpich: str) -> None:
    own = {"OMP_NUM_THREADS": "7", "OMPI_MCA_pml": "ucx", "SLURM_OVERLAP": "0", "CUDA_VISIBLE_DEVICES": "3"}
    spec = TaskSpec(TaskId("a"), executable="./solve", environment={"OMP_NUM_THREADS": "8"}, application="own")
    attempt = Attempt("a.1", TaskId("a"), 1, spec, Resources(ranks=5, cores_per_rank=2), ())
    environments = ProgramEnvironments({"PATH": str(tmp_path)}, {"own": Application(environment=own)})
    made = BlockProgram(attempt, tmp_path, tmp_path / "scratch", environments)
    asked = made.prepare({"ROCR_VISIBLE_DEVICES": "1"})
    told, command = asked["environment"], asked["command"]
    assert (told["OMP_NUM_THREADS"], told["OMPI_MCA_pml"], told["SLURM_OVERLAP"]) == ("8", "ucx", "0")
    assert "OMPI_MCA_pml" not in command
    assert "OMPI_MCA_btl" in command
    assert told["ROCR_VISIBLE_DEVICES"] == "1"
    assert "CUDA_VISIBLE_DEVICES" not in told


def test_where_no_batch_system_tells_there_is_this_host_only() -> None:
    assert hosts_of_block({}) == []
