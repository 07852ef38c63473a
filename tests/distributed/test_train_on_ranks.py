"""``rlctl train --ranks N`` from outside: its exit code, its one line, and that nothing of it stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
import pytest
from mpi_runner import ROOT, mpiexec, survives_a_dead_rank

from rlctl.distributed.launch.launcher import stale_shm
from rlctl.executors.local.processes import family, send_signal
from rlctl.system.mpi import clean_environment, mpiexec_command

CONFIG = """
schema: 1
seed: 1
campaign: {name: gymnasium, options: {id: CartPole-v1}}
train: {decisions: 1000}
"""

Begin = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def token() -> str:
    return uuid.uuid4().hex


@pytest.fixture(scope="module", autouse=True)
def shared_memory_stays_as_it_is() -> Iterator[None]:
    before = stale_shm.present()
    yield
    assert stale_shm.present() <= before


@pytest.fixture
def begin(tmp_path: Path, token: str) -> Iterator[Begin]:
    """Begins ``rlctl train``; whatever happens, nothing of it survives the test."""
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "tmp").mkdir()
    before = stale_shm.present()
    folders = [Path(__file__).parent / "standin", ROOT, ROOT / "envs", ROOT / "agents"]

    def start(how: str = "", ranks: int = 3, before: Sequence[str] = (), more: Sequence[str] = ()) -> object:
        mpiexec()  # or skip
        return subprocess.Popen(
            [*before, sys.executable, "-m", "rlctl", "train", "config.yaml", "--out=runs/first"]
            + [f"--ranks={ranks}"] * (ranks > 0)
            + list(more),
            cwd=tmp_path,
            env={
                **clean_environment(os.environ),
                "PYTHONPATH": os.pathsep.join(map(str, folders)),
                "RLCTL_TEST_RUN": how,
                "RLCTL_TEST_TOKEN": token,
                "TMPDIR": str(tmp_path / "tmp"),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    yield start  # type: ignore[misc]
    send_signal(family([], token.encode()), signal.SIGKILL)
    stale_shm.remove_since(before)


def until_begun(tmp_path: Path, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 30
    while not (tmp_path / "runs/first/began").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def assert_nothing_stays(tmp_path: Path, token: str) -> None:
    """No process, no temporary file, no shared memory."""
    assert family([], token.encode()) == []
    assert list((tmp_path / "tmp").iterdir()) == []
    assert [path.name for path in (tmp_path / "runs").glob(".*")] == []


def test_a_training_that_ends_tells_its_result_once(begin: Begin, tmp_path: Path, token: str) -> None:
    code, out, err = ended(begin())
    assert (code, out.splitlines()) == (0, ["saved the policy in runs/first/policy"]), err
    assert_nothing_stays(tmp_path, token)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_asks_for_a_checkpoint_and_the_end(begin: Begin, tmp_path: Path, token: str, number: int) -> None:
    process = begin("wait")
    until_begun(tmp_path, process)
    process.send_signal(number)
    code, out, err = ended(process)
    assert code == (75 if number == signal.SIGUSR1 else 130), err
    assert (tmp_path / "runs/first/checkpoints/1").is_dir()
    assert err.splitlines()[-1].startswith("rlctl: stopped; to resume: rlctl train config.yaml")
    assert err.splitlines()[-1].endswith("--ranks=3 --resume")
    assert "Traceback" not in err
    assert out == ""
    assert_nothing_stays(tmp_path, token)


def test_a_second_signal_kills_what_does_not_end(begin: Begin, tmp_path: Path, token: str) -> None:
    process = begin("hang")
    until_begun(tmp_path, process)
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)
    process.send_signal(signal.SIGINT)
    code, _, err = ended(process)
    assert code == 130, err
    assert err.splitlines()[-1] == "rlctl: stopped before the first checkpoint"
    assert_nothing_stays(tmp_path, token)


def test_a_bug_on_one_rank_ends_the_job_with_its_traceback(begin: Begin, tmp_path: Path, token: str) -> None:
    process = begin("boom")
    code, _, err = ended(process)
    assert code == 70, err
    assert "rlctl: rank 2 (actor 1 of agent 0) ends the job:" in err
    assert err.count("ZeroDivisionError: no such luck") == 1
    assert_nothing_stays(tmp_path, token)


def test_a_killed_actor_is_missed_only_where_the_mpi_cannot_do_without(
    begin: Begin, tmp_path: Path, token: str
) -> None:
    code, out, err = ended(begin("killed actor", ranks=4))
    if survives_a_dead_rank():
        assert (code, out.strip()) == (0, "saved the policy in runs/first/policy"), err
    else:
        assert code == 75, err
        assert "the ranks died before the training was over (mpiexec of MPICH" in err
        assert err.splitlines()[-1].endswith("--ranks=4 --resume")
    assert_nothing_stays(tmp_path, token)


def test_a_killed_learner_ends_the_job_and_the_message_says_how_to_go_on(
    begin: Begin, tmp_path: Path, token: str
) -> None:
    code, _, err = ended(begin("killed learner"))
    assert code == 75, err
    assert "the ranks died before the training was over" in err.splitlines()[-1]
    assert err.splitlines()[-1].endswith("to resume: rlctl train config.yaml --out=runs/first --ranks=3 --resume")
    assert_nothing_stays(tmp_path, token)


def test_no_rank_outlives_a_killed_launcher(begin: Begin, tmp_path: Path, token: str) -> None:
    process = begin("wait")
    until_begun(tmp_path, process)
    (launcher,) = psutil.Process(process.pid).children()
    launcher.kill()
    code, _, err = ended(process)
    assert code in (70, 75), err
    assert "the ranks died before the training was over" in err
    assert_nothing_stays(tmp_path, token)


def test_ranks_write_a_checkpoint_and_end_when_who_started_them_is_killed(
    begin: Begin, tmp_path: Path, token: str
) -> None:
    process = begin("wait")
    until_begun(tmp_path, process)
    process.kill()
    ended(process)  # its output is closed by the last of the ranks
    assert (tmp_path / "runs/first/checkpoints/1").is_dir()
    end = time.monotonic() + 10
    while family([], token.encode()):
        assert time.monotonic() < end
        time.sleep(0.02)


def test_too_few_ranks_are_refused_before_any_is_started(begin: Begin, tmp_path: Path) -> None:
    code, _, err = ended(begin(ranks=4, more=["--set", "train.distributed.learners=3"]))
    assert code == 2
    assert "want at least 6 ranks, not 4" in err
    assert len(err.splitlines()) == 1


def test_ranks_without_work_are_named(begin: Begin, tmp_path: Path) -> None:
    code, _, err = ended(begin(ranks=5, more=["--set", "train.distributed.agents=[{}, {}]"]))
    assert code == 0, err
    assert "1 of 5 ranks has nothing to do: 4 or 6 ranks would all be used" in err


def test_ranks_that_mpiexec_started_find_themselves(begin: Begin, tmp_path: Path) -> None:
    code, out, err = ended(begin(ranks=0, before=mpiexec_command(3)))
    assert (code, out.splitlines()) == (0, ["saved the policy in runs/first/policy"]), err


def test_ranks_cannot_start_ranks(begin: Begin) -> None:
    code, _, err = ended(begin(ranks=2, before=mpiexec_command(2)))
    said = [line for line in err.splitlines() if line.startswith("rlctl: ")]
    assert said == ["rlctl: --ranks: mpiexec or srun has started the ranks already: omit either"]
    assert code == 2
