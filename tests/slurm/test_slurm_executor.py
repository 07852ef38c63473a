"""The Slurm executor on a real Slurm of four nodes: what runs where, and what becomes of it when something dies."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
import slurm_bed
from slurm_bed import Bed, inside

from rlctl.core.errors import AllocationEnds, LaunchError
from rlctl.core.machine import Capacity
from rlctl.core.task import Failure, Resources, TaskId, TaskSpec, TaskState
from rlctl.executors import TaskFailed, TaskFuture
from rlctl.executors.application import Application
from rlctl.executors.engine import Executor
from rlctl.executors.slurm.backend import slurm_backend
from rlctl.executors.slurm.options import SlurmOptions, SubmitOptions

pytestmark = pytest.mark.slurm

PATIENCE_S = 60.0
NODES = Capacity(nodes=4, cores=8, gpus=2)
ANYWHERE = Resources()
FIVE_MINUTES = SubmitOptions(time_limit="0:05:00")


@pytest.fixture(scope="module")
def bed() -> Bed:
    return slurm_bed.bed()


@pytest.fixture
def job(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> int:
    """The job that this process takes itself to run in."""
    number = slurm_bed.whole()
    for name, value in inside(number).items():
        monkeypatch.setenv(name, value)
    return number


@pytest.fixture
def outside(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No job, and nodes that are free."""
    slurm_bed.end_whole()
    monkeypatch.setenv("SLURM_CONF", bed.environment["SLURM_CONF"])
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    yield
    end_s = time.monotonic() + 10.0
    while (left := bed.ask("squeue", "--noheader")) and time.monotonic() < end_s:
        time.sleep(0.1)
    slurm_bed.end_whole()
    assert not left


@contextlib.contextmanager
def opened(*arguments: Any, **options: Any) -> Iterator[Executor]:
    """An executor that stops what still runs, also when a test fails."""
    executor = open_executor(*arguments, **options)
    try:
        yield executor
    finally:
        executor.close()


def open_executor(
    folder: Path,
    capacity: Capacity = NODES,
    submit: SubmitOptions | None = None,
    warning_s: float = 5.0,
    applications: Mapping[str, Application] | None = None,
    **options: Any,
) -> Executor:
    how = SlurmOptions(
        submit=submit, poll_s=0.5, warning_s=warning_s, lease_s=0.0, applications=dict(applications or {})
    )
    return Executor(slurm_backend(capacity, folder / "work", how), eager=True, **options)


def shell(uid: str, script: str, need: Resources = ANYWHERE, **options: object) -> TaskSpec:
    return TaskSpec(TaskId(uid), executable="sh", arguments=("-c", script), resources=need, **options)  # type: ignore[arg-type]


def output(folder: Path, uid: str, attempt: int = 1) -> list[str]:
    return (folder / "work" / "logs" / f"{uid}.{attempt}.out").read_text().splitlines()


def until(condition: Callable[[], object], what: object = "") -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end_s, f"not within {PATIENCE_S} s: {what}"
        time.sleep(0.02)


def runs(future: TaskFuture, attempt: int = 1) -> None:
    until(lambda: future.state is TaskState.RUNNING and future.attempt == attempt, (future.uid, future.state))


# What runs where.


def test_ranks_of_an_mpi_program_on_two_nodes_find_each_other(job: int, bed: Bed, tmp_path: Path) -> None:
    program = (
        "from mpi4py import MPI; import os; c = MPI.COMM_WORLD; "
        "told = f\"{c.Get_size()} {c.allreduce(c.Get_rank())} {os.environ['SLURMD_NODENAME']}\\n\"; "
        "os.write(1, told.encode())"  # whole: ranks write at the same time
    )
    with opened(tmp_path) as executor:
        spec = TaskSpec(
            TaskId("mpi"),
            executable="python",
            arguments=("-c", program),
            resources=Resources(ranks=4, nodes=2),
            walltime_s=PATIENCE_S,
        )
        try:
            future = executor.submit_task(spec)
        except LaunchError as error:  # a Slurm without PMIx
            pytest.skip(str(error))
        assert future.result(PATIENCE_S) == {}
    assert Counter(output(tmp_path, "mpi")) == {"4 6 n1": 2, "4 6 n2": 2}


def test_tasks_share_a_gpu_by_fractions_and_own_whole_ones(job: int, tmp_path: Path) -> None:
    masks = "CUDA_VISIBLE_DEVICES ROCR_VISIBLE_DEVICES HIP_VISIBLE_DEVICES GPU_DEVICE_ORDINAL ZE_AFFINITY_MASK"
    tell = f"echo $SLURMD_NODENAME; for m in {masks}; do env | grep $m=; done; sleep 1"
    needs = {"half": 0.5, "other half": 0.5, "whole": 1.0, "none": 0.0}
    with opened(tmp_path, Capacity(nodes=1, cores=4, gpus=2)) as executor:
        for future in [executor.submit_task(shell(uid, tell, Resources(gpus_per_rank=n))) for uid, n in needs.items()]:
            future.result(PATIENCE_S)
    # Slurm tells every maker the same, and nothing here says whose the devices are: so do we, each by one variable.
    first, second = (["n1", f"CUDA_VISIBLE_DEVICES={i}", f"ZE_AFFINITY_MASK={i}"] for i in range(2))
    none = ["n1", "CUDA_VISIBLE_DEVICES=", "ROCR_VISIBLE_DEVICES=", "ZE_AFFINITY_MASK=-1"]
    assert {uid: output(tmp_path, uid) for uid in needs} == {
        "half": first,
        "other half": first,
        "whole": second,
        "none": none,
    }


def test_each_node_of_a_gang_has_its_own_devices(job: int, tmp_path: Path) -> None:
    tell = "echo $SLURMD_NODENAME $CUDA_VISIBLE_DEVICES"
    with opened(tmp_path, Capacity(nodes=2, cores=8, gpus=2)) as executor:
        first = executor.submit_task(shell("one", "sleep 30", Resources(gpus_per_rank=1.0)))
        runs(first)
        gang = executor.submit_task(shell("gang", tell, Resources(ranks=3, gpus_per_rank=1.0)))
        gang.result(PATIENCE_S)
        first.stop(0.0)
    assert Counter(output(tmp_path, "gang")) == {"n2 0,1": 2, "n1 1": 1}


def test_a_task_wins_over_its_application_and_that_over_what_rlctl_sets(job: int, tmp_path: Path) -> None:
    own = Application(environment={"OMP_NUM_THREADS": "4", "CUDA_VISIBLE_DEVICES": "0"})
    need = Resources(cores_per_rank=2)
    with opened(tmp_path, applications={"own": own}) as executor:
        for uid, name, mine in (("none", None, {}), ("own", "own", {}), ("task", "own", {"OMP_NUM_THREADS": "3"})):
            tell = ("-c", "echo $OMP_NUM_THREADS $CUDA_VISIBLE_DEVICES")
            spec = TaskSpec(TaskId(uid), "sh", tell, application=name, environment=mine, resources=need)
            executor.submit_task(spec).result(PATIENCE_S)
    assert [output(tmp_path, uid) for uid in ("none", "own", "task")] == [["2"], ["4"], ["3"]]


def test_a_task_keeps_to_the_cores_that_it_was_given(job: int, tmp_path: Path) -> None:
    there = len(os.sched_getaffinity(0))
    with opened(tmp_path) as executor:
        tell = "taskset -cp $$; sleep 0.5"
        for future in [executor.submit_task(shell(f"t{i}", tell)) for i in range(4)]:
            future.result(PATIENCE_S)
    seen = {output(tmp_path, f"t{i}")[0].rpartition(": ")[2] for i in range(4)}
    assert len(seen) == min(there, 4)


def test_a_call_runs_in_a_worker_that_stays(job: int, bed: Bed, tmp_path: Path) -> None:
    with opened(tmp_path, Capacity(nodes=2, cores=1)) as executor:
        where = [executor.submit(os.getenv, "SLURMD_NODENAME") for _ in range(1)]
        assert {future.result(PATIENCE_S) for future in where} == {"n1"}
        pids = {executor.submit(os.getpid).result(PATIENCE_S) for _ in range(20)}
        assert len(pids) == 1
        assert len(bed.steps(job)) == 1
    until(lambda: not bed.steps(job), "the step of the worker ends with the executor")


def test_what_the_job_does_not_have_is_refused(job: int, tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match=r"5 nodes are asked for, job \d+ has 4"):
        open_executor(tmp_path, Capacity(nodes=5, cores=1))
    with pytest.raises(LaunchError, match="9 cores are asked for"):
        open_executor(tmp_path, Capacity(nodes=4, cores=9))


# What dies.


def test_what_runs_on_a_node_that_dies_runs_again_on_another(bed: Bed, job: int, tmp_path: Path) -> None:
    with opened(tmp_path, Capacity(nodes=4, cores=1)) as executor:
        futures = [executor.submit_task(shell(f"t{i}", "echo $SLURMD_NODENAME; sleep 8")) for i in range(3)]
        call = executor.submit(time.sleep, 600.0)  # on the last node
        for future in futures:
            runs(future)
        until(lambda: len(bed.steps(job)) == 4)
        until(lambda: all(output(tmp_path, future.uid) for future in futures))
        (hit,) = [f for f in futures if output(tmp_path, f.uid) == ["n2"]]
        began = time.monotonic()
        bed.run("kill-node", "n2")
        try:
            until(lambda: hit.attempt == 2, "its loss is noticed")
            noticed_s = time.monotonic() - began
            assert executor.status().nodes == 3
            for future in futures:
                assert future.result(PATIENCE_S) == {}
            assert [f.attempt for f in futures] == [2 if f is hit else 1 for f in futures]
            assert output(tmp_path, hit.uid, 2) != ["n2"]
            call.stop(0.0)
        finally:
            bed.run("start-node", "n2")
    print(f"death of a node noticed after {noticed_s:.1f} s")
    slurm_bed.end_whole()  # Slurm does not give a node back to a job


CONTROLLER = """
import sys, time
from pathlib import Path
from rlctl.core.machine import Capacity
from rlctl.executors.event_log import Journal
from rlctl.executors.recovery import KINDS, History
from rlctl.executors.engine import Executor
from rlctl.executors.slurm.backend import slurm_backend
from rlctl.executors.slurm.options import SlurmOptions, SubmitOptions
from rlctl.core.task import Resources, TaskId, TaskSpec

folder, submit = Path(sys.argv[1]), sys.argv[2] == "submit"
path = folder / "journal.db"
with Journal.open(path) if path.exists() else Journal.create(path, {}) as journal:
    journal.append("epoch", 0.0, {})
    history = History.read(journal.records(kinds=KINDS))
    options = SlurmOptions(submit=SubmitOptions() if submit else None, poll_s=0.5, lease_s=60.0)
    backend = slurm_backend(Capacity(nodes=2, cores=2), folder / "work", options)
    executor = Executor(backend, eager=True, history=history)
    executor.attach(journal)
    specs = [
        TaskSpec(TaskId(f"t{i}"), executable="sh", arguments=("-c", f"echo ran >> t{i}.ran; sleep {sys.argv[3]}"))
        for i in range(3)
    ]
    futures = executor.submit_tasks(specs)
    print([f.attempt for f in futures], flush=True)
    for future in futures:
        future.result(120)
    print("done", [f.attempt for f in futures], flush=True)
    executor.close()
"""


def controller(folder: Path, how: str, seconds: float, number: int | None) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | ({} if number is None else inside(number))
    process = subprocess.Popen(
        [sys.executable, "-c", CONTROLLER, str(folder), how, str(seconds)],
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
        start_new_session=True,
    )
    started.append(process)
    return process


started: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def end_controllers() -> Iterator[None]:
    """Those of a test that has failed."""
    yield
    while started:
        process = started.pop()
        if process.poll() is None:
            process.terminate()
            process.wait(PATIENCE_S)


def ran(folder: Path) -> dict[str, int]:
    return {path.stem: len(path.read_text().splitlines()) for path in sorted((folder / "work").glob("*.ran"))}


def test_a_controller_that_was_killed_is_followed_by_one_that_takes_over_its_steps(
    job: int, bed: Bed, tmp_path: Path
) -> None:
    first = controller(tmp_path, "inside", 6, job)
    until(lambda: ran(tmp_path) == {"t0": 1, "t1": 1, "t2": 1})
    first.kill()
    first.wait()
    second = controller(tmp_path, "inside", 6, job)
    said, _ = second.communicate(timeout=PATIENCE_S)
    assert "done [1, 1, 1]" in said
    assert ran(tmp_path) == {"t0": 1, "t1": 1, "t2": 1}
    assert not bed.steps(job)


def test_a_controller_in_a_new_job_runs_again_what_ended_with_the_old_one(
    bed: Bed, outside: None, tmp_path: Path
) -> None:
    old = bed.job(2)
    first = controller(tmp_path, "inside", 6, old)
    until(lambda: ran(tmp_path) == {"t0": 1, "t1": 1, "t2": 1})
    first.kill()
    first.wait()
    bed.ask("scancel", str(old))
    new = bed.job(2)
    second = controller(tmp_path, "inside", 1, new)
    said, _ = second.communicate(timeout=PATIENCE_S)
    assert "done [2, 2, 2]" in said
    assert ran(tmp_path) == {"t0": 2, "t1": 2, "t2": 2}
    bed.ask("scancel", str(new))


def test_steps_that_nobody_watches_any_more_are_ended(job: int, bed: Bed, tmp_path: Path) -> None:
    first = controller(tmp_path, "inside", 300, job)
    until(lambda: ran(tmp_path) == {"t0": 1, "t1": 1, "t2": 1})
    everything = [psutil.Process(first.pid), *psutil.Process(first.pid).children(recursive=True)]
    for process in everything:  # its supervisor and every srun too
        process.kill()
    first.wait()
    assert len(bed.steps(job)) == 3
    second = controller(tmp_path, "inside", 1, job)
    said, _ = second.communicate(timeout=PATIENCE_S)
    assert "done [2, 2, 2]" in said
    until(lambda: not bed.steps(job))


# Allocations of our own.


def test_it_asks_for_an_allocation_and_gives_it_back(bed: Bed, outside: None, tmp_path: Path) -> None:
    began = time.monotonic()
    with opened(tmp_path, Capacity(nodes=2, cores=2, gpus=1), FIVE_MINUTES) as executor:
        future = executor.submit_task(shell("first", "echo $SLURMD_NODENAME"))
        assert future.result(PATIENCE_S) == {}
        print(f"from the request to the end of the first task: {time.monotonic() - began:.1f} s")
        assert len(bed.ask("squeue", "--noheader").splitlines()) == 1


def test_it_grows_by_another_job_and_shrinks(bed: Bed, outside: None, tmp_path: Path) -> None:
    with opened(tmp_path, Capacity(nodes=1, cores=2), FIVE_MINUTES) as executor:
        executor.submit_task(shell("first", "true")).result(PATIENCE_S)
        executor.resize(3)
        until(lambda: executor.status().nodes == 3)
        tasks = [
            shell(f"t{i}", "echo $SLURM_JOB_ID $SLURMD_NODENAME; sleep 2", Resources(cores_per_rank=2))
            for i in range(3)
        ]
        for future in executor.submit_tasks(tasks):
            future.result(PATIENCE_S)
        assert len({output(tmp_path, f"t{i}")[0] for i in range(3)}) == 3
        with pytest.raises(
            LaunchError, match="1 cores and 0 GPUs over 3 nodes never fit"
        ):  # no step reaches over two jobs
            executor.submit_task(shell("wide", "true", Resources(ranks=3, nodes=3)))
        long = executor.submit_tasks([shell(f"l{i}", "sleep 300", Resources(cores_per_rank=2)) for i in range(3)])
        for future in long:
            runs(future)
        executor.resize(1)
        until(lambda: len(bed.ask("squeue", "--noheader").splitlines()) == 1)
        until(lambda: sorted(future.attempt for future in long) == [1, 2, 2])
        assert [task.attempt for task in executor.status().running] == [1]
        assert executor.status().waiting == 2


def test_a_controller_finds_the_allocation_of_one_that_was_killed(bed: Bed, outside: None, tmp_path: Path) -> None:
    first = controller(tmp_path, "submit", 6, None)
    until(lambda: ran(tmp_path) == {"t0": 1, "t1": 1, "t2": 1})
    (number,) = bed.ask("squeue", "--noheader", "--format=%i").split()
    first.kill()
    first.wait()
    second = controller(tmp_path, "submit", 6, None)
    until(lambda: second.stdout is not None and second.stdout.readline())
    assert bed.ask("squeue", "--noheader", "--format=%i").split() == [number]
    said, _ = second.communicate(timeout=PATIENCE_S)
    assert "done [1, 1, 1]" in said
    assert ran(tmp_path) == {"t0": 1, "t1": 1, "t2": 1}


def test_before_the_end_of_a_job_tasks_are_stopped_and_go_on_in_the_next(
    bed: Bed, outside: None, tmp_path: Path
) -> None:
    with opened(tmp_path, Capacity(nodes=1, cores=2), FIVE_MINUTES, warning_s=20.0) as executor:
        future = executor.submit_task(shell("long", "echo $SLURM_JOB_ID; sleep 4"))
        runs(future)
        (number,) = bed.ask("squeue", "--noheader", "--format=%i").split()
        soon = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() + 15.0))
        bed.ask("scontrol", "update", f"JobId={number}", f"EndTime={soon}")
        assert future.result(PATIENCE_S) == {}
        assert future.attempt == 2
        states = [event.state for event in executor.events() if event.uid == "long"]
        assert states.count(TaskState.PREEMPTED) == 1
    assert output(tmp_path, "long", 2) != output(tmp_path, "long", 1)


def test_inside_a_job_whoever_decides_is_told_of_its_end(
    bed: Bed, outside: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = bed.job(1)
    monkeypatch.setenv("SLURM_JOB_ID", str(number))
    executor = open_executor(tmp_path, Capacity(nodes=1, cores=2), warning_s=20.0)
    try:
        executor.submit_task(shell("long", "sleep 300"))
        soon = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() + 15.0))
        bed.ask("scontrol", "update", f"JobId={number}", f"EndTime={soon}")
        with pytest.raises(AllocationEnds):
            until(lambda: executor.wait() is None)
    finally:
        executor.close()
        bed.ask("scancel", str(number))


def test_a_task_whose_job_is_ended_is_lost_and_not_failed(bed: Bed, outside: None, tmp_path: Path) -> None:
    with opened(tmp_path, Capacity(nodes=1, cores=2), FIVE_MINUTES) as executor:
        future = executor.submit_task(shell("long", "echo $SLURM_JOB_ID; sleep 3"))
        runs(future)
        until(lambda: (tmp_path / "work" / "logs" / "long.1.out").exists() and output(tmp_path, "long"))
        bed.ask("scancel", output(tmp_path, "long")[0])
        assert future.result(PATIENCE_S) == {}
        assert future.attempt > 1


def test_a_rank_that_is_killed_fails_its_program(job: int, tmp_path: Path) -> None:
    with opened(tmp_path) as executor:
        # Slurm overlooks at times that a rank dies while others start: then the step ends at its walltime.
        ready = "until [ -e ready.0 ] && [ -e ready.2 ]; do sleep 0.05; done"
        script = f'touch ready.$SLURM_PROCID; [ "$SLURM_PROCID" = 1 ] && {{ {ready}; kill -9 $$; }}; sleep 300'
        future = executor.submit_task(shell("ranks", script, Resources(ranks=3, nodes=3)))
        with pytest.raises(TaskFailed) as failed:
            future.result(PATIENCE_S)
    assert failed.value.result.failure is Failure.SIGNAL
    assert re.search("SIGKILL", failed.value.result.message)


def test_a_stubborn_program_is_killed_after_its_grace(job: int, bed: Bed, tmp_path: Path) -> None:
    with opened(tmp_path) as executor:
        future = executor.submit_task(shell("deaf", "trap '' TERM; while :; do sleep 0.1; done"))
        runs(future)
        until(lambda: len(bed.steps(job)) == 1)
        time.sleep(0.3)
        began = time.monotonic()
        future.stop(1.0)
        until(future.done)
        assert time.monotonic() - began > 0.9
        until(lambda: not bed.steps(job))


def test_signals_reach_processes_on_nodes(job: int, tmp_path: Path) -> None:
    with opened(tmp_path) as executor:
        future = executor.submit_task(shell("hears", "trap 'echo heard; exit 0' USR1; while :; do sleep 0.05; done"))
        runs(future)
        time.sleep(0.5)
        executor.signal(TaskId("hears"), signal.SIGUSR1)
        assert future.result(PATIENCE_S) == {}
    assert output(tmp_path, "hears") == ["heard"]
