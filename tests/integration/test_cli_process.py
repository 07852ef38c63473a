"""The command as a process of its own: what it prints, its exit codes, interrupts."""

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import rlctl
from rlctl.config.provenance import provenance


def run(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rlctl.cli.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=cwd)


def test_version_is_printed() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"rlctl {rlctl.__version__}\n")


def test_no_arguments_show_the_help() -> None:
    done = run()
    assert done.returncode == 0
    assert "steer" in done.stdout


def test_a_mistake_is_one_line_and_exit_code_2_of_the_process(tmp_path: Path) -> None:
    done = run("steer", tmp_path / "none.yaml", "--policy", "feedback", "--run", tmp_path / "run")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == f"rlctl: {tmp_path / 'none.yaml'}: no such file\n"
    assert not (tmp_path / "run").exists()


def test_an_output_that_is_taken_is_refused(tmp_path: Path) -> None:
    config, taken = tmp_path / "experiment.yaml", tmp_path / "taken"
    config.write_text(
        "{schema: 1, seed: 0, campaign: {name: block_copolymer}, machine: {cores: 2}, train: {decisions: 1000}}"
    )
    taken.mkdir()
    (taken / "precious").write_text("mine")
    steer = ["steer", config, "--policy", "feedback", "--run", taken]
    for arguments, why in [
        (["train", config, "--out", taken], "--resume"),
        (steer, "--resume"),
        ([*steer, "--resume"], "nothing to resume"),
        (["tune", "feedback", config, "--out", taken], "is a folder"),
        (["tune", "feedback", config, "--out", taken / "precious"], "is no rule file"),
        (["tune", "feedback", config, "--out", config], "is no rule file"),
        (["train", config, "--out", tmp_path / "missing", "--resume"], "nothing to resume, there is no such folder"),
    ]:
        done = run(*arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert why in done.stderr
        assert done.stderr.count("\n") == 1
    assert [path.name for path in taken.iterdir()] == ["precious"]
    assert (taken / "precious").read_text() == "mine"
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_with_130_and_the_line_that_goes_on(tmp_path: Path, number: signal.Signals) -> None:
    fifo = tmp_path / "experiment.yaml"
    os.mkfifo(fifo)
    command = [sys.executable, "-m", "rlctl.cli.main", "train", str(fifo), "--out", str(tmp_path / "out")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    with fifo.open("w"):  # opens when the process reads its configuration, which then never ends
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    # Nothing has begun: the same line begins.
    assert err == f"rlctl: stopped; to resume: rlctl {shlex.join(command[3:])}\n"


def test_provenance_names_the_commit_of_a_checkout() -> None:
    home = Path(__file__).parents[2]
    head = subprocess.run(["git", "-C", home, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    expected = head.stdout.strip() if (home / ".git").exists() else None
    found = provenance()["commit"]
    assert (found and found.removesuffix("+")) == expected
