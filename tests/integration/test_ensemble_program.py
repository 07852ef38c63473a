"""The programs of real ensembles as a user meets them: real processes, real files, real MPI."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlctl.executors.local.processes import ask_to_end, family, send_signal
from rlctl.system.mpi import clean_environment, find_mpiexec, mpiexec_command
from rlctl_envs.ensemble.program.kernels import KINDS, kernel, units_per_second
from rlctl_envs.ensemble.program.scaling_law import seconds

PROGRAM = [sys.executable, "-m", "rlctl_envs.ensemble.program"]
needs_mpi = pytest.mark.skipif(find_mpiexec() is None, reason="no mpiexec in this environment")
RATES = units_per_second(seconds=0.05)


def write(folder: Path, **changes: Any) -> None:
    task = {
        "work_s": 1.0,
        "children": [3, 4],
        "traps": [],
        "quality": 0.7,
        "slowness": [1.0],
        "luck": [1.0],
        "serial": 0.2,
        "kappa": 0.1,
        "gain": 4.0,
        "memory_mb": 100.0,
    } | changes
    jobs = {"seed": 1, "noise": 0.1, "failures_per_rank_s": 0.0, "units_per_second": RATES, "tasks": [task]}
    (folder / "jobs.json").write_text(json.dumps(jobs))


def command(*more: str, ranks: int = 1, kind: str = "paced") -> list[str]:
    launcher = mpiexec_command(ranks) if ranks > 1 else []
    given = ["--jobs=jobs.json", "--task=0", f"--kind={kind}", "--result=r.json"]
    return [*launcher, *PROGRAM, *given, *more]


def run(folder: Path, *more: str, ranks: int = 1, kind: str = "paced", fault: str = "") -> Any:
    environment = clean_environment(os.environ) | ({"RLCTL_ENSEMBLE_FAULT": fault} if fault else {})
    return subprocess.run(
        command(*more, ranks=ranks, kind=kind),
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def result(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "r.json").read_text())
    return found


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=needs_mpi)])
def test_paced_takes_what_the_law_says(tmp_path: Path, ranks: int) -> None:
    write(tmp_path)
    done = run(tmp_path, ranks=ranks)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    told = result(tmp_path)
    assert (told["children"], told["quality"], told["ranks"]) == ([3, 4], 0.7, ranks)
    assert told["seconds"] >= seconds(1.0, ranks, 0.2, 0.1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["jobs.json", "r.json"]


def test_with_gpus_it_is_as_much_faster_and_being_stuck_takes_time(tmp_path: Path) -> None:
    write(tmp_path, traps=[[0.5, 2.0]])
    assert run(tmp_path, "--gpu").returncode == 0
    assert 0.75 <= result(tmp_path)["seconds"] < 3.0  # (1 + 2) / 4


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_computes_reports_and_ends(tmp_path: Path, kind: str) -> None:
    write(tmp_path, work_s=0.6)
    done = run(tmp_path, "--progress=p.jsonl", "--report-s=0.05", kind=kind)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    lines = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    fractions = [line["fraction"] for line in lines]
    assert fractions == sorted(fractions)
    assert len(lines) >= 1
    assert 0.0 < fractions[0] <= fractions[-1] <= 1.0


@needs_mpi
@pytest.mark.parametrize("kind", ["compute", "communication", "film"])
def test_several_ranks_share_the_work(tmp_path: Path, kind: str) -> None:
    write(tmp_path, work_s=0.4, serial=0.0)
    done = run(tmp_path, ranks=2, kind=kind)
    assert done.returncode == 0, done.stderr
    assert result(tmp_path)["ranks"] == 2


def test_serial_work_is_the_first_ranks_and_the_rest_is_shared() -> None:
    class Comm:
        size = 4

        def __init__(self, rank: int) -> None:
            self.rank = rank

    done = []
    for rank in range(4):
        counted = kernel("compute", 0.2, 0.0, 0, Comm(rank), None)
        units = 0

        def unit() -> None:
            nonlocal units
            units += 1

        counted._unit = unit  # type: ignore[attr-defined]
        for _ in range(100):
            counted.run(10.0)
        done.append(units)
    assert done == pytest.approx([400, 200, 200, 200], abs=1)


def stopped(
    folder: Path, number: int, when: Callable[[], bool], *more: str, ranks: int = 1, kind: str = "paced"
) -> int:
    process = subprocess.Popen(
        command(*more, ranks=ranks, kind=kind),
        cwd=folder,
        env=clean_environment(os.environ),
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while not when() and process.poll() is None:
        time.sleep(0.01)
    members = family([process.pid])
    if number == signal.SIGTERM:
        ask_to_end(members)
    else:
        send_signal(members, number)
    return process.wait(30)


@pytest.mark.parametrize(("before", "after"), [(1, 1), pytest.param(2, 1, marks=needs_mpi)])
@pytest.mark.parametrize("kind", ["paced", "film"])
def test_asked_to_stop_it_goes_on_with_other_ranks(tmp_path: Path, before: int, after: int, kind: str) -> None:
    write(tmp_path, work_s=3.0, serial=0.0, kappa=0.0)
    progress = tmp_path / "p.jsonl"
    more = ("--checkpoint=c.npz", "--progress=p.jsonl", "--report-s=0.2")
    code = stopped(tmp_path, signal.SIGTERM, progress.exists, *more, ranks=before, kind=kind)
    assert code in (75, 143, -signal.SIGTERM) if before == 1 else code != 0
    with np.load(tmp_path / "c.npz") as saved:
        done = float(saved["done"])
    assert 0.0 < done < 1.0
    progress.unlink()
    assert run(tmp_path, *more, ranks=after, kind=kind).returncode == 0
    if kind == "paced":
        assert result(tmp_path)["seconds"] == pytest.approx(3.0 * (1.0 - done) / after, abs=1.5)
    fractions = [json.loads(line)["fraction"] for line in progress.read_text().splitlines()]
    assert min(fractions, default=1.0) >= done
    assert not (tmp_path / "c.npz").exists()


def test_killed_it_goes_on_from_its_last_checkpoint(tmp_path: Path) -> None:
    write(tmp_path, work_s=2.0)
    file = tmp_path / "c.npz"
    more = ("--checkpoint=c.npz", "--checkpoint-s=0.1")
    assert stopped(tmp_path, signal.SIGKILL, file.exists, *more) == -signal.SIGKILL
    with np.load(file) as saved:
        assert 0.0 < float(saved["done"]) < 1.0
    assert run(tmp_path, *more).returncode == 0


def test_a_damaged_checkpoint_begins_anew_and_says_so(tmp_path: Path) -> None:
    write(tmp_path, work_s=0.2)
    (tmp_path / "c.npz").write_bytes(b"PK\x03\x04 nothing")
    done = run(tmp_path, "--checkpoint=c.npz")
    assert done.returncode == 0
    assert done.stderr.count("\n") == 1
    assert "beginning anew" in done.stderr


@pytest.mark.parametrize(
    "wrong",
    ["--task=7", "--task=-1", "--kind=fast", "--report-s=0", "--jobs=none.json", "--result=no/r.json", "--what"],
)
def test_wrong_input_is_one_line_and_exit_code_2(tmp_path: Path, wrong: str) -> None:
    write(tmp_path)
    done = run(tmp_path, wrong)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "r.json").exists()


@pytest.mark.parametrize(("fault", "code"), [("exit", 9), ("die", -signal.SIGKILL), ("garbage", 0)])
def test_it_misbehaves_when_asked_to(tmp_path: Path, fault: str, code: int) -> None:
    write(tmp_path, work_s=0.2)
    assert run(tmp_path, fault=fault).returncode == code
    if fault == "garbage":
        with pytest.raises(json.JSONDecodeError):
            result(tmp_path)


def test_attempts_die_when_their_luck_is_out(tmp_path: Path) -> None:
    write(tmp_path, work_s=5.0, luck=[0.2, 99.0])
    jobs = json.loads((tmp_path / "jobs.json").read_text()) | {"failures_per_rank_s": 1.0}
    (tmp_path / "jobs.json").write_text(json.dumps(jobs))
    assert run(tmp_path, "--attempt=0").returncode == -signal.SIGSEGV
