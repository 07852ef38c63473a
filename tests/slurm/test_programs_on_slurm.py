"""Programs of users as steps of a real Slurm: their wrapper sees all ranks, and what Slurm says of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import slurm_bed
from slurm_bed import Bed, inside

from rlctl.config.validation import validated
from rlctl.core.machine import Capacity
from rlctl.core.task import Failure, Resources, TaskId, TaskSpec
from rlctl.executors import TaskFailed
from rlctl.executors.application import Application
from rlctl.executors.engine import Executor
from rlctl.executors.slurm.backend import slurm_backend
from rlctl.executors.slurm.options import SlurmOptions
from rlctl.programs.options import ProgramOptions
from rlctl.programs.program import EvaluationRequest, Program

pytestmark = pytest.mark.slurm

PATIENCE_S = 60.0
FOUR = Resources(ranks=4, nodes=2, gpus_per_rank=0.5)


@pytest.fixture
def bed(monkeypatch: pytest.MonkeyPatch) -> Bed:
    bed = slurm_bed.bed()
    for name, value in inside(slurm_bed.whole()).items():
        monkeypatch.setenv(name, value)
    return bed


@pytest.fixture
def executor(bed: Bed, tmp_path: Path) -> Iterator[Executor]:
    applications = {"mine": Application(environment={"LD_MINE": "linked", "MINE": "yes"})}
    how = SlurmOptions(poll_s=0.5, lease_s=0.0, applications=applications)
    executor = Executor(slurm_backend(Capacity(nodes=4, cores=8, gpus=2), tmp_path / "work", how), eager=True)
    yield executor
    executor.close()


@pytest.fixture
def task(executor: Executor, tmp_path: Path) -> Callable[..., TaskSpec]:
    def make(script: str, need: Resources = FOUR, **options: Any) -> TaskSpec:
        given = {"command": ["sh", "-c", script], "results": {"out": {"regex": r"out = (\S+)"}}, "application": "mine"}
        program = Program("program", validated(ProgramOptions, {**given, **options}), tmp_path)
        program.prepare(tmp_path / "work")
        return program.task(TaskId("0000"), EvaluationRequest(0, {}, need))

    return make


def until(condition: Callable[[], object]) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.05)


@pytest.mark.parametrize("need", [FOUR, Resources(gpus_per_rank=1.0)])
def test_results_of_all_ranks_are_read_once(
    executor: Executor, task: Callable[..., TaskSpec], tmp_path: Path, need: Resources
) -> None:
    """Where the ranks see their GPUs and the variables of their application."""
    (tmp_path / "reading.py").write_text(
        "def count(folder):\n"
        "    (folder / 'read').open('a').write('once')\n"
        "    return len((folder / 'ranks').read_text().split())\n"
    )
    script = "echo $SLURMD_NODENAME:$CUDA_VISIBLE_DEVICES:$LD_MINE:$MINE >>ranks; echo out = 2"
    results = {"out": {"regex": r"out = (\S+)"}, "ranks": {"function": "reading:count"}}
    values = executor.submit_task(task(script, need, results=results)).result(PATIENCE_S)
    assert values == {"outputs": {"out": 2.0, "ranks": float(need.ranks)}, "attempts": 1}
    folder = tmp_path / "work" / "evaluations" / "0000"
    assert (folder / "read").read_text() == "once"
    lines = [line.split(":") for line in (folder / "ranks").read_text().split()]
    assert len({node for node, *_ in lines}) == (need.nodes or 1)
    assert all(gpus and linked == "linked" and mine == "yes" for _, gpus, linked, mine in lines)


@pytest.mark.parametrize("need", [FOUR, Resources()])
def test_the_end_of_the_rank_that_failed_first_is_judged(
    executor: Executor, task: Callable[..., TaskSpec], need: Resources
) -> None:
    first = '[ "$SLURM_PROCID" != 0 ] || %s; sleep 20'
    kinds = {"diverged": {"exit_codes": [7], "then": "infeasible"}}
    values = executor.submit_task(task(first % "exit 7", need, failures=kinds)).result(PATIENCE_S)
    assert (values["kind"], values["then"]) == ("diverged", "infeasible")


@pytest.mark.parametrize("need", [FOUR, Resources()])
def test_a_killed_rank_is_a_signal(executor: Executor, task: Callable[..., TaskSpec], need: Resources) -> None:
    with pytest.raises(TaskFailed, match="killed by SIGSEGV") as failed:
        executor.submit_task(task('[ "$SLURM_PROCID" != 0 ] || kill -SEGV $$; sleep 20', need)).result(PATIENCE_S)
    assert failed.value.result.failure is Failure.SIGNAL


@pytest.mark.parametrize("need", [FOUR, Resources()])
def test_a_step_that_slurm_ends_is_no_failure_of_the_program(
    executor: Executor, task: Callable[..., TaskSpec], bed: Bed, tmp_path: Path, need: Resources
) -> None:
    """Whatever kinds of failure the exit code may mean; it runs again."""
    step = tmp_path / "step"
    script = f"test -e {tmp_path}/again || {{ echo $SLURM_JOB_ID.$SLURM_STEP_ID >{step}; sleep 60; }}; echo out = 1"
    kinds = {"any": {"exit_codes": [1, 9, 15, 137, 143], "then": "infeasible"}, "signal": {"retry": 3}}
    future = executor.submit_task(task(script, need, failures=kinds))
    until(lambda: step.exists() and step.read_text())
    time.sleep(1.0)  # srun knows of all its ranks
    (tmp_path / "again").touch()
    bed.ask("scancel", step.read_text().strip())
    assert future.result(PATIENCE_S)["outputs"] == {"out": 1.0}
    assert future.attempt == 2
