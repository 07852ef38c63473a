"""The command line, given everything that it should not be given: one line, exit code 2, and nothing is overwritten."""

from __future__ import annotations

import json
import os
import pty
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil
import pytest

import rlctl.api
from rlctl.cli.main import main

CONFIGS = Path(__file__).parents[2] / "configs"
GOOD = """schema: 1
seed: 0
campaign:
  name: block_copolymer
  options:
    films: 1
machine:
  cores: 2
train:
  decisions: 1000
  options:
    n_steps: 16
policies:
  mine:
    rule: feedback
    parameters:
      gain: 0.3
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "experiment.yaml"
    path.write_text(GOOD)
    return path


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command in this process: it must be refused, and change nothing."""

    def run(*arguments: object) -> str:
        before = contents(tmp_path)
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert left.value.code == 2, err
        assert out == ""
        assert err.startswith("rlctl: ")
        assert err.count("\n") == 1, err
        assert "Traceback" not in err
        assert contents(tmp_path) == before
        return err

    return run


def contents(folder: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "rlctl", *map(str, arguments)]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("films: 1", "flims: 1", ["experiment.yaml:6: campaign.options.flims: unknown key; known: ", "'films'?"]),
        ("cores: 2", "core: 2", ["experiment.yaml:8: machine.core: unknown key", "did you mean 'cores'?"]),
        ("  mine:", "  ours: 5\n  mine:", [":14: policies.ours: should be a mapping of keys to values, got 5"]),
        ("cores: 2", "cores: two", ["experiment.yaml:8: machine.cores: should be a valid integer, got 'two'"]),
        ("cores: 2", "cores: 0", ["experiment.yaml:8: machine.cores: should be greater than or equal to 1, got 0"]),
        ("cores: 2", "cores: 1", ["experiment.yaml:5: campaign.options.ranks: ", "machine.cores", "lower ranks"]),
        ("films: 1", "chains: 9", ["experiment.yaml:6: campaign.options.chains: ", "machine.cores", "lower chains"]),
        ("films: 1", "ranks: [3]", [":6: campaign.options.ranks: program.start_up_s and program.step_s", "[3]"]),
        ("films: 1", "allocation_s: 0.1", [":6: campaign.options.allocation_s: ", "steps", "raise it"]),
        ("films: 1", "program: {walltime_s: 1}", [":6: campaign.options.program.walltime_s: ", "steps", "raise it"]),
        ("films: 1", "films: .nan", [":6: ", "'.nan' is not a finite number"]),
        ("films: 1", "films: " + "9" * 40, [":6: ", "too large"]),
        ("n_steps: 16", "n_steps: one", [":12: train.options.n_steps: should be a valid integer"]),
        ("n_steps: 16", "logit_bias: [1, 2]", [":12: train.options.logit_bias: 2 numbers", "18 choices"]),
        ("n_steps: 16", "residual: {rule: linaer}", [":12: train.options.residual.rule: ", "did you mean 'linear'?"]),
        ("n_steps: 16", "residual: {rule: lpt}", [":12: train.options.residual: ", "block_copolymer"]),
        ("n_steps: 16", "device: gpu", [":12: train.options.device: "]),
        ("block_copolymer", "blockcopolymer", [":4: campaign.name: unknown campaign", "mean 'block_copolymer'?"]),
        ("block_copolymer", "yes", [":4: campaign.name: unknown campaign 'yes'"]),
        ("decisions: 1000", "decisions: 1000\n  algorithm: pppo", [":11: train.algorithm: unknown algorithm", "'ppo'"]),
        ("rule: feedback", "rule: fedback", [":15: policies.mine.rule: unknown rule", "did you mean 'feedback'?"]),
        ("gain: 0.3", "gian: 0.3", [":17: policies.mine.parameters.gian: ", "unknown parameter", "mean 'gain'?"]),
        ("gain: 0.3", "gain: -1", [":17: policies.mine.parameters.gain: ", "must be positive, got -1"]),
        ("gain: 0.3", "gain: 'a'", [":17: policies.mine.parameters.gain: ", "must be a number, got 'a'"]),
        ("rule: feedback", "rule: lpt", [":17: policies.mine.parameters.gain: ", "unknown parameter"]),
        ("  mine:", "  ours: no/such.yaml\n  mine:", [":14: policies.ours: ", "no/such.yaml", "no such file or"]),
        ("  mine:", "  ours: experiment.yaml\n  mine:", [":14: policies.ours: ", "unknown key"]),
        ("seed: 0", "steer: {fallback: nobody}\nseed: 0", [":2: steer.fallback: ", "nobody"]),
        ("seed: 0", "seed: 0\nseed: 1", [":3: seed: given twice, in line 2 too"]),
        ("seed: 0", "seed: 0\n---\nseed: 1", [":3: a second YAML document"]),
        ("seed: 0", "\tseed: 0", [":2: not YAML", "tab"]),
        ("seed: 0", "seed: &a [*a]", [":2: ", "contains itself"]),
        ("seed: 0", "seed: " + "[" * 50 + "]" * 50, [":2: ", "levels deep"]),
        ("seed: 0", "seed: !!python/object:os.system {}", [":2: ", "tag"]),
        ("seed: 0", "true: 0", [":2: 'true' cannot be a key"]),
        ("seed: 0", 'seed: "\\0"', [":2: "]),
    ],
)  # fmt: skip
def test_a_wrong_configuration_is_told_by_line_and_key(
    file: Path, refused: Callable[..., str], old: str, new: str, said: list[str]
) -> None:
    file.write_text(GOOD.replace(old, new, 1))
    message = refused("check", file)
    assert all(part in message for part in said), message


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is empty"),
        (b"# nothing\n", "is empty"),
        (b"- 1\n", "holds a list, not a mapping"),
        (b"words\n", "holds a string, not a mapping"),
        (b"12\n", "holds a single value (12), not a mapping"),
        (b"\x7fELF\x02\x01\xff\xfe\x00", "not a text file in UTF-8"),
        (b"schema: 1\nseed: \x00\n", ":2: not YAML"),
        (GOOD.encode("utf-16"), "save it as UTF-8"),
        (b"a: " + b"x" * (2 << 20), "more than 1 MiB"),
        (b"[" + b"1," * 30_000 + b"]", "more than 20000 values"),
    ],
)
def test_a_file_that_is_no_configuration(file: Path, refused: Callable[..., str], data: bytes, said: str) -> None:
    file.write_bytes(data)
    message = refused("check", file)
    assert said in message
    assert str(file) in message


def test_a_byte_order_mark_is_no_fault(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    with pytest.raises(SystemExit) as left:
        main(["check", str(file)])
    assert left.value.code in (0, None)
    assert capsys.readouterr().out == f"{file}: ok\n"


def test_a_wrong_value_on_the_command_line_is_told_as_such(file: Path, refused: Callable[..., str]) -> None:
    message = refused("check", file, "--set", "machine.cores=1")
    assert "campaign.options.ranks" in message
    assert "machine.cores" in message
    assert f"{file} with --set train.options.gama: unknown key" in refused(
        "check", file, "--set", "train.options.gama=1"
    )


def test_a_rule_of_another_campaign(file: Path, refused: Callable[..., str]) -> None:
    message = refused("evaluate", file, "--policy", "lpt", "--against", "mine")
    assert "lpt does not fit campaign block_copolymer" in message


@pytest.mark.parametrize("place", ["experiment.yaml/run", "experiment.yaml", "x" * 300, ".", "/", "/proc/run", ""])
@pytest.mark.parametrize("verb", ["steer", "train"])
def test_a_place_that_cannot_be_a_run_folder(file: Path, refused: Callable[..., str], place: str, verb: str) -> None:
    more = ["--policy", "mine", "--run"] if verb == "steer" else ["--out"]
    message = refused(verb, file, *more, place)
    assert any(word in message for word in ("give a", "choose", "in it", "give the"))


@pytest.mark.parametrize("place", ["experiment.yaml/out", ".", "x" * 300, "/proc/out", "/"])
def test_a_place_that_cannot_be_a_result_file(file: Path, refused: Callable[..., str], place: str) -> None:
    for verb in (["evaluate", file, "--policy", "mine", "--against", "linear"], ["tune", "feedback", file]):
        message = refused(*verb, "--out", place)
        assert any(word in message for word in ("give the", "choose"))


def test_a_name_with_a_line_break_stays_in_one_line(file: Path, refused: Callable[..., str]) -> None:
    assert "a b" in refused("check", "a\nb")
    assert "\\x1b" in refused("check", "\x1b[31m")


def test_a_bundle_that_is_truncated_or_of_another_campaign(
    file: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(CONFIGS / "policies" / "annealing-ppo", bundle)
    other = CONFIGS / "ensemble_small.yaml"
    assert "block_copolymer" in refused("evaluate", other, "--policy", bundle, "--against", "lpt")
    weights = bundle / "weights.npz"
    weights.write_bytes(weights.read_bytes()[:1000])
    steer = ("steer", file, "--run", tmp_path / "run", "--policy")
    assert "weights.npz" in refused(*steer, bundle)
    file.write_text(GOOD.replace("  mine:", "  net: bundle\n  mine:"))
    assert "experiment.yaml:14: policies.net: " in refused(*steer, "net")
    (bundle / "manifest.json").unlink()
    assert "manifest.json" in refused(*steer, bundle)


def test_no_mpiexec_is_found_out_before_the_run_folder_is_made(
    file: Path, tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))  # where an mpiexec of the environment is looked for
    monkeypatch.setenv("PATH", str(tmp_path))
    message = refused("steer", file, "--policy", "mine", "--run", tmp_path / "run")
    assert ":5: campaign.options.ranks: 2 ranks want MPI" in message
    assert "pip install 'rlctl[mpi]'" in message


def test_more_than_the_machine_has(
    file: Path, tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    steer = ("steer", file, "--policy", "mine", "--run", tmp_path / "run", "--set")
    assert "machine.cores" in refused(*steer, "machine.cores=99999")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "machine.gpus" in refused(*steer, "machine.gpus=1")
    assert "experiment.yaml" in refused(*steer, "machine.gpus=1")


def test_a_campaign_that_only_a_twin_can_play_is_not_steered(tmp_path: Path, refused: Callable[..., str]) -> None:
    small, clairvoyant = CONFIGS / "ensemble_small.yaml", "campaign.options.clairvoyant=true"
    message = refused("steer", small, "--policy", "lpt", "--run", tmp_path / "run", "--set", clairvoyant)
    assert "campaign.options.clairvoyant: only a twin is clairvoyant" in message


@pytest.mark.parametrize("arguments", [["lauch"], ["check"], ["check", "a", "b"], ["check", "a", "--nope"], ["--nope"]])
def test_a_command_that_is_none(file: Path, refused: Callable[..., str], arguments: list[str]) -> None:
    refused(*arguments)


def test_a_bug_is_one_line_and_no_exit_code_of_a_mistake(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(config: object) -> None:
        raise ZeroDivisionError("oh\nno")

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(rlctl.api.preflight, "check", broken)
    with pytest.raises(SystemExit) as left:
        main(["check", str(file)])
    err = capsys.readouterr().err
    assert left.value.code == 70
    assert err.count("\n") == 1
    assert "bug in rlctl" in err
    (kept,) = tmp_path.glob("rlctl-bug-*")
    assert str(kept) in err
    assert "ZeroDivisionError" in kept.read_text()


CLOSED: Mapping[str, Callable[[], None]] = {
    "stdin": lambda: os.close(0),
    "stdout": lambda: os.close(1),
    "stderr": lambda: os.close(2),
    "all": lambda: os.closerange(0, 3),
}


@pytest.mark.parametrize("which", CLOSED)
def test_closed_streams(file: Path, which: str) -> None:
    done = subprocess.run(command("check", file), preexec_fn=CLOSED[which], capture_output=True, timeout=60)
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr


def test_a_reader_that_has_enough(file: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(command("check", file), stdout=write, stderr=subprocess.PIPE, timeout=60)
    os.close(write)
    assert done.returncode == 1
    assert done.stderr == b""


def test_standard_output_on_a_full_disk(file: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(command("check", file), stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr == "rlctl: standard output: cannot be written (No space left on device): free some space\n"


def test_an_old_character_set_and_a_dumb_terminal(file: Path) -> None:
    old = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii", "TERM": "dumb"}
    strange = file.with_name("\u00fcn\u6f22.yaml")
    strange.write_text(GOOD)
    main_end, terminal = pty.openpty()
    environment = {**os.environ, **old}
    done = subprocess.run(command("check", strange), stdout=terminal, stderr=terminal, env=environment, timeout=60)
    os.close(terminal)
    said = os.read(main_end, 10_000)
    os.close(main_end)
    assert done.returncode == 0, said
    assert said.replace(b"\r\n", b"").endswith(b": ok")
    assert b"\x1b" not in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("module", ["rlctl.cli.main", "annotated_types"])  # the latter while Typer reads the command
def test_an_interrupt_while_it_starts_is_one_line(tmp_path: Path, module: str, number: signal.Signals) -> None:
    """In text that is executed, where Python would remember it and end by SIGINT whatever the exit code is."""
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.abc, os, sys\n"
        "class Finder(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        f"        if name == '{module}': exec('os.kill(os.getpid(), {int(number)}); print(name)')\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command("check", "nowhere.yaml"),
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "rlctl: stopped\n")


def test_a_limit_on_file_sizes_while_training(tmp_path: Path) -> None:
    # Of the queue, which compiles nothing: only what the training writes can meet the limit.
    queue, out = CONFIGS / "ensemble_small.yaml", tmp_path / "out"
    small = ["train.num_envs=2", "train.decisions=64", "train.options.n_steps=16", "train.options.batch_size=16"]
    small += ["train.validation_instances=0", "train.judgement_instances=0"]
    sets = [part for one in small for part in ("--set", one)]

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    done = subprocess.run(
        command("train", queue, "--out", out, *sets, "--json"),
        preexec_fn=limit,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert str(out) in done.stderr
    assert "--resume" in done.stderr
    assert not (out / "policy").exists()
    assert not list((out / "checkpoints").glob("*/model.zip"))
    again = subprocess.run(
        command("train", queue, "--out", out, *sets, "--json", "--resume"), capture_output=True, text=True, timeout=120
    )
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout) == {"policy": str(out / "policy"), "judgement": None}


def test_an_interrupt_does_not_wait_for_what_the_workers_play(file: Path, tmp_path: Path) -> None:
    arguments = ("tune", "feedback", file, "--out", tmp_path / "f.yaml", "--instances", "500", "--workers", "2")
    process = subprocess.Popen(command(*arguments), stderr=subprocess.PIPE, text=True)
    try:
        workers: list[psutil.Process] = []
        end_s = time.monotonic() + 120.0
        while len(workers) < 2 or any(worker.cpu_times().user < 2.0 for worker in workers):
            assert time.monotonic() < end_s
            assert process.poll() is None
            time.sleep(0.1)
            workers = [
                child for child in psutil.Process(process.pid).children() if "spawn_main" in " ".join(child.cmdline())
            ]
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=15)
        assert process.returncode == 130
        assert err.endswith("rlctl: stopped\n")
        assert not any(worker.is_running() for worker in workers)
        assert not (tmp_path / "f.yaml").exists()
    finally:
        process.kill()
        process.wait()
