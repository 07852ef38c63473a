"""Programs with an environment of their own: another Python with another MPI, modules, a prefix; MPIs that differ."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlctl.core.errors import LaunchError
from rlctl.core.machine import Capacity
from rlctl.core.task import Resources, TaskId, TaskSpec
from rlctl.executors.application import Application
from rlctl.executors.local.backend import LocalExecutor
from rlctl.executors.local.options import LocalOptions
from rlctl.system.mpi import find_mpiexec

SIZE = (
    "import json, os, sys; from mpi4py import MPI; comm = MPI.COMM_WORLD\n"
    "told = {'size': comm.size, 'library': MPI.Get_library_version().split()[0], 'python': sys.prefix}\n"
    "if comm.rank == 0: open(sys.argv[1], 'w').write(json.dumps(told))\n"
)
TWO = Resources(ranks=2)
needs_mpi = pytest.mark.skipif(find_mpiexec() is None, reason="needs mpiexec")


def executor(workdir: Path, **applications: Application) -> LocalExecutor:
    settings = LocalOptions(lease_s=0.0, oversubscribe=True, pin=False, applications=applications)
    return LocalExecutor(Capacity(cores=4), workdir, eager=True, options=settings)


def program(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@needs_mpi
def test_a_program_of_another_mpi_runs_beside_one_of_ours(tmp_path: Path, mpich: Path) -> None:
    with executor(tmp_path, other=Application(venv=str(mpich))) as one:
        futures = {
            name: one.submit_task(
                TaskSpec(
                    TaskId(name),
                    executable="python",
                    arguments=("-c", SIZE, f"{name}.json"),
                    result_file=f"{name}.json",
                    resources=TWO,
                    application=name if name == "other" else None,
                    walltime_s=120.0,
                )
            )
            for name in ("ours", "other")
        }
        told = {name: future.result(timeout=150) for name, future in futures.items()}
    assert (told["ours"]["size"], told["other"]["size"]) == (2, 2)
    assert told["other"]["library"] == "MPICH"
    assert told["ours"]["library"] == "Open"
    assert Path(told["other"]["python"]) == mpich


@needs_mpi
def test_ranks_that_would_each_run_alone_are_refused(tmp_path: Path, mpich: Path) -> None:
    """The launcher of one MPI, a Python with the other."""
    mixed = Application(venv=str(mpich), mpiexec=find_mpiexec())
    spec = TaskSpec(TaskId("a"), executable="python", arguments=("-c", SIZE, "a"), resources=TWO, application="mixed")
    with executor(tmp_path, mixed=mixed) as one, pytest.raises(LaunchError, match="independent programs of one rank"):
        one.submit_task(spec)


@needs_mpi
@pytest.mark.skipif(shutil.which("ldd") is None, reason="needs ldd")
def test_a_compiled_program_of_another_mpi_is_refused(tmp_path: Path) -> None:
    compiled = Path(sys.prefix) / "bin" / "ompi_info"
    if not compiled.exists():
        pytest.skip("needs a program that is linked to Open MPI")
    hydra = program(tmp_path / "mpiexec.hydra", "#!/bin/sh\necho HYDRA build details\n")
    spec = TaskSpec(TaskId("a"), executable=str(compiled), resources=TWO, application="other")
    other = Application(mpiexec=str(hydra))
    with (
        executor(tmp_path, other=other) as one,
        pytest.raises(LaunchError, match="ompi_info is built against Open MPI"),
    ):
        one.submit_task(spec)
    with executor(tmp_path / "ours", other=Application()) as one:
        one.submit_task(spec).stop()


def values(one: LocalExecutor, spec: TaskSpec) -> dict[str, Any]:
    return dict(one.submit_task(replace(spec, result_file="told.json")).result(timeout=60))


TELL = "import json, os; json.dump(dict(os.environ), open('told.json', 'w'))"


def test_modules_are_loaded_once_by_a_login_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    count = tmp_path / "count"
    (tmp_path / ".bash_profile").write_text(
        f'module() {{ echo x >> {count}; [ "$1 $2 $3" = "load gcc/12 fftw" ] && export LOADED="$2 $3"; }}\n'
        "echo a greeting that is not part of the environment\n"
    )
    spec = TaskSpec(TaskId("a"), executable=sys.executable, arguments=("-c", TELL), application="built")
    with executor(tmp_path / "work", built=Application(modules=("gcc/12", "fftw"), environment={"MINE": "1"})) as one:
        told = values(one, spec)
        again = TaskSpec(TaskId("b"), executable="true", application="built")
        one.submit_task(again).result(timeout=60)
    assert (told["LOADED"], told["MINE"]) == ("gcc/12 fftw", "1")
    assert count.read_text() == "x\n"


def test_what_cannot_be_had_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    applications = {
        "no_module": Application(modules=("no-such-module",)),
        "no_venv": Application(venv=str(tmp_path / "nowhere")),
        "no_mpiexec": Application(mpiexec="no-such-mpiexec"),
    }
    expected = {
        "no_module": "module load no-such-module fails",
        "no_venv": "no virtual environment",
        "no_mpiexec": "no no-such-mpiexec on this machine",
        "unknown": "application 'unknown' is not described",
    }
    with executor(tmp_path / "work", **applications) as one:
        for name, message in expected.items():
            spec = TaskSpec(TaskId(name), executable="true", application=name, resources=TWO)
            with pytest.raises(LaunchError, match=message) as error:
                one.submit_task(spec)
            assert "\n" not in str(error.value)


def test_a_container_stands_before_the_program(tmp_path: Path) -> None:
    box = program(tmp_path / "box", '#!/bin/sh\necho "$@" > inside\nshift\nexec "$@"\n')
    spec = TaskSpec(TaskId("a"), executable="echo", arguments=("hello",), application="boxed")
    with executor(tmp_path / "work", boxed=Application(container=(str(box), "image"))) as one:
        one.submit_task(spec).result(timeout=60)
    assert (tmp_path / "work" / "inside").read_text() == "image echo hello\n"
    assert (tmp_path / "work" / "logs" / "a.1.out").read_text() == "hello\n"


OWN = {
    "OMP_NUM_THREADS": "4",
    "OMPI_MCA_btl": "self,tcp",
    "OMPI_MCA_btl_sm_backing_directory": "/tmp",
    "MINE": "application",
}


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=needs_mpi)])
def test_the_task_wins_over_its_application_and_that_over_what_rlctl_sets(tmp_path: Path, ranks: int) -> None:
    """Also where an application sets what rlctl sets anyway."""
    need = Resources(ranks=ranks, cores_per_rank=2)
    tell = "echo $OMP_NUM_THREADS $OMPI_MCA_btl $OMPI_MCA_btl_sm_backing_directory $MINE"
    one_thread = Application(environment={**OWN, "OMP_NUM_THREADS": "1"})
    expected = {"none": "2", "own": "4", "one": "1", "task": "3"}
    with executor(tmp_path, own=Application(environment=OWN), one=one_thread) as one:
        for uid in expected:
            own = {"OMP_NUM_THREADS": "3", "MINE": "task"} if uid == "task" else {}
            name = {"none": None, "task": "own"}.get(uid, uid)
            spec = TaskSpec(
                TaskId(uid),
                executable="sh",
                arguments=("-c", tell),
                application=name,
                environment=own,
                resources=need,
                walltime_s=60.0,
            )
            one.submit_task(spec).result(timeout=90)
    for uid, threads in expected.items():
        for line in (tmp_path / "logs" / f"{uid}.1.out").read_text().splitlines():
            seen, *rest = line.split()
            assert seen == threads, uid
            if uid != "none":
                assert rest == ["self,tcp", "/tmp", "task" if uid == "task" else "application"]


def test_modules_that_set_the_number_of_threads_are_obeyed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = "module() { export OMP_NUM_THREADS=1; }\nexport -f module\n"
    (tmp_path / ".bash_profile").write_text(fake)
    monkeypatch.setenv("HOME", str(tmp_path))
    spec = TaskSpec(
        TaskId("a"),
        executable="sh",
        arguments=("-c", "echo $OMP_NUM_THREADS"),
        application="lammps",
        resources=Resources(cores_per_rank=2),
    )
    with executor(tmp_path / "work", lammps=Application(modules=("lammps",))) as one:
        one.submit_task(spec).result(timeout=60)
    assert (tmp_path / "work" / "logs" / "a.1.out").read_text() == "1\n"


@pytest.mark.parametrize("whose", ["application", "task"])
def test_nothing_but_the_books_says_which_gpus_a_program_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whose: str
) -> None:
    monkeypatch.setenv("ROCR_VISIBLE_DEVICES", "4,5")
    masks = {"ROCR_VISIBLE_DEVICES": "0", "HIP_VISIBLE_DEVICES": "1", "CUDA_VISIBLE_DEVICES": "1"}
    mine, task = (masks, {}) if whose == "application" else ({}, masks)
    tell = "env | grep -E 'VISIBLE|AFFINITY_MASK' | sort | tr '\\n' ' '"
    with LocalExecutor(
        Capacity(cores=2, gpus=2),
        tmp_path,
        eager=True,
        options=LocalOptions(lease_s=0.0, applications={"a": Application(environment=mine)}, oversubscribe=True),
    ) as one:
        for uid, gpus in {"first": 1.0, "second": 1.0, "none": 0.0}.items():
            spec = TaskSpec(
                TaskId(uid),
                executable="sh",
                arguments=("-c", f"{tell}; sleep 0.3"),
                application="a",
                environment=task,
                resources=Resources(gpus_per_rank=gpus),
            )
            one.submit_task(spec)
        one.shutdown()
    seen = {uid: (tmp_path / "logs" / f"{uid}.1.out").read_text().split() for uid in ("first", "second", "none")}
    assert seen == {
        "first": ["ROCR_VISIBLE_DEVICES=4"],
        "second": ["ROCR_VISIBLE_DEVICES=5"],
        "none": ["CUDA_VISIBLE_DEVICES=", "ROCR_VISIBLE_DEVICES=", "ZE_AFFINITY_MASK=-1"],
    }


def test_every_kind_of_gpu_is_told_and_the_shape_of_a_cluster_can_be_rehearsed(tmp_path: Path) -> None:
    settings = LocalOptions(lease_s=0.0, oversubscribe=True)
    with LocalExecutor(Capacity(nodes=4, cores=8, gpus=2), tmp_path, eager=True, options=settings) as one:
        need = Resources(ranks=2, cores_per_rank=8, gpus_per_rank=2.0, nodes=2)
        spec = TaskSpec(TaskId("a"), executable=sys.executable, arguments=("-c", TELL))
        told = values(one, spec)
        assert (told["CUDA_VISIBLE_DEVICES"], told["OMP_NUM_THREADS"]) == ("", "1")
        if find_mpiexec() is not None:
            told = values(one, TaskSpec(TaskId("b"), executable=sys.executable, arguments=("-c", TELL), resources=need))
            assert (told["CUDA_VISIBLE_DEVICES"], told["ZE_AFFINITY_MASK"]) == ("0,1,2,3", "0,1,2,3")
            assert "ROCR_VISIBLE_DEVICES" not in told  # AMD's upper layer, which obeys CUDA's, counts what it leaves
            assert told["OMP_NUM_THREADS"] == "8"
    assert "RLCTL_TASK" not in os.environ
