"""Services, containers and batch jobs: no home folder, no user, closed streams, a terminal that has gone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import forms
import pytest

from rlctl.cli import cache_folders
from rlctl.executors.naming import scratch_folder
from rlctl.system import mpi
from rlctl.system.mpi import find_mpiexec

needs_mpi = pytest.mark.skipif(find_mpiexec() is None, reason="needs mpiexec")
CONFIG = """
schema: 1
seed: 0
campaign: {name: gymnasium, options: {id: CartPole-v1}}
train: {algorithm: ppo, decisions: 128, num_envs: 2, validation_instances: 0, options: {n_steps: 64, batch_size: 64}}
"""
HOMES: Mapping[str, Mapping[str, str]] = {
    "no home": {},
    "an empty one": {"HOME": ""},
    "one that is not there": {"HOME": "/nowhere/at/all"},
}


@pytest.fixture(params=HOMES if forms.full() else ["one that is not there"])
def bare(request: pytest.FixtureRequest) -> Mapping[str, str]:
    """Nearly no variables."""
    return {"OMP_NUM_THREADS": "1", **HOMES[request.param]}


@needs_mpi
def test_tasks_and_trainings_of_several_ranks_need_no_home(tmp_path: Path, bare: Mapping[str, str]) -> None:
    def says(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments], env=bare, cwd=tmp_path, capture_output=True, text=True, timeout=240
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    code = (
        "from pathlib import Path\nfrom rlctl.executors import Capacity, LocalExecutor\n"
        "from rlctl.executors.local.options import LocalOptions\n"
        "from rlctl.core.task import Resources, TaskId, TaskSpec\n"
        "tell = 'from mpi4py import MPI; print(MPI.COMM_WORLD.size)'\n"
        "rehearsal = LocalOptions(lease_s=0.0, oversubscribe=True)\n"
        "with LocalExecutor(Capacity(cores=2), Path('work'), options=rehearsal, eager=True) as one:\n"
        "    spec = TaskSpec(TaskId('a'), 'python', ('-c', tell), resources=Resources(ranks=2))\n"
        "    one.submit_task(spec).result(200)\n"
    )
    says("-c", code)
    assert (tmp_path / "work" / "logs" / "a.1.out").read_text().split() == ["2", "2"]
    (tmp_path / "config.yaml").write_text(CONFIG)
    assert "saved the policy in run/policy" in says("-m", "rlctl", "train", "config.yaml", "--out=run", "--ranks=2")
    assert "2 ranks of mpi4py" in says("-c", "from rlctl.cli import doctor; print(doctor.mpi().detail)")
    assert not (tmp_path / "~").exists()


def test_a_home_is_found_or_made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert mpi.with_home({"HOME": "/mine", "A": "b"}) == {"HOME": "/mine", "A": "b"}
    assert Path(mpi.with_home({})["HOME"]).is_dir()
    monkeypatch.setattr(mpi.pwd, "getpwuid", lambda number: (_ for _ in ()).throw(KeyError(number)))
    assert mpi.with_home({"HOME": ""}) == {"HOME": "/"}


def test_libraries_keep_what_they_compile_where_it_can_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NUMBA_CACHE_DIR", "MPLCONFIGDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    cache_folders.prepare()
    assert "NUMBA_CACHE_DIR" not in os.environ
    monkeypatch.setenv("HOME", "/nowhere/at/all")
    monkeypatch.setenv("MPLCONFIGDIR", "mine")
    cache_folders.prepare()
    kept = Path(os.environ.pop("NUMBA_CACHE_DIR")).parent
    assert kept.parent == tmp_path
    assert kept.stat().st_mode & 0o777 == 0o700
    assert os.environ["MPLCONFIGDIR"] == "mine"
    kept.rmdir()
    (tmp_path / "elsewhere").mkdir()
    kept.symlink_to(tmp_path / "elsewhere")  # another user was quicker
    cache_folders.prepare()
    assert Path(os.environ.pop("NUMBA_CACHE_DIR")).parent != kept


def test_a_long_name_of_the_temporary_folder_is_none_for_a_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = "f" * 32
    monkeypatch.setattr("os.access", lambda path, mode: False)  # no shared memory
    monkeypatch.setattr("tempfile.tempdir", "/short")
    assert scratch_folder(token) == Path("/short") / f"rlctl-{token}"
    monkeypatch.setattr("tempfile.tempdir", f"/{'long' * 30}")
    assert scratch_folder(token) == Path("/tmp") / f"rlctl-{token}"


STREAMS = """
import json, os, sys
from pathlib import Path
for number in json.loads(sys.argv[1]):
    os.close(number)
from rlctl.executors import Capacity, LocalExecutor
from rlctl.core.task import TaskId, TaskSpec
told = []
with LocalExecutor(max_workers=1) as one:
    told.append(one.submit(pow, 2, 3).result(60))
    one.submit(print, "from a worker").result(60)
with LocalExecutor(Capacity(cores=1), Path("work"), eager=True) as one:
    spec = TaskSpec(TaskId("a"), "sh", ("-c", "cat; echo out; echo '{\\"b\\": 1}' > b.json"), result_file="b.json")
    told.append(one.submit_task(spec).result(60)["b"])
    os.write(1, b"printed")
    os.write(2, b"printed")
    told.append(one.submit_task(TaskSpec(TaskId("c"), "true")).result(60))
Path("told").write_text(json.dumps(told))
"""


@pytest.mark.parametrize("closed", [[0], [1], [2], [0, 1], [0, 2], [1, 2], [0, 1, 2]])
def test_an_executor_does_without_standard_streams(tmp_path: Path, closed: list[int]) -> None:
    subprocess.run(
        [sys.executable, "-c", STREAMS, str(closed)], cwd=tmp_path, capture_output=True, timeout=180, check=False
    )
    assert (tmp_path / "told").read_text() == "[8, 1, {}]"
    assert (tmp_path / "work" / "logs" / "a.1.out").read_text() == "out\n"


STEER = "import rlctl, os; os.closerange(0, 3); rlctl.train(rlctl.load_config('config.yaml'), 'run'); os.write(1, b'x')"


def test_a_training_does_without_standard_streams(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG)
    subprocess.run([sys.executable, "-c", STEER], cwd=tmp_path, capture_output=True, timeout=180, check=True)
    assert (tmp_path / "run" / "policy" / "model.zip").exists()


def full() -> None:
    os.dup2(os.open("/dev/full", os.O_WRONLY), 2)


def without_reader() -> None:
    read, write = os.pipe()
    os.close(read)
    os.dup2(write, 2)


@pytest.mark.parametrize("errors", [full, without_reader])
def test_a_run_goes_on_when_nobody_can_hear_how_far_it_is(tmp_path: Path, errors: Callable[[], None]) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG)
    shown = "from rlctl.monitoring import progress; progress.QUIET_S = progress.LINE_EVERY_S = 0.0\n"  # at once
    code = f"{shown}from rlctl.cli import main as cli; cli.main(['train', 'config.yaml', '--out=run'])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, preexec_fn=errors, stdout=subprocess.PIPE, text=True, timeout=180
    )
    assert done.returncode == 0
    assert "saved the policy in run/policy" in done.stdout
    wrong = subprocess.run([sys.executable, "-m", "rlctl", "check", "no.yaml"], preexec_fn=errors, timeout=60)
    assert wrong.returncode == 2
