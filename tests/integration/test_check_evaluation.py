"""``rlctl check`` of a campaign that runs a program: shows an evaluation, tries one, says in one line what is wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from rlctl.cli.main import main

SIMULATION = "import sys\nx, y = map(float, sys.argv[1:])\nprint('energy =', (x - 1) ** 2 + y)\n"
GOOD = r"""
program:
  command: python sim.py {x} {y:.3f}
  copy: sim.py
  templates: [in.txt]
  results:
    energy: {regex: 'energy = (\S+)'}
  walltime_s: 60
campaign:
  name: search
  options:
    parameters: {x: {low: 0, high: 3}, y: {low: 0, high: 1}}
    objective: {minimize: energy}
    starts: [{x: 1.5, y: 0.25}]
    until: {evaluations: 3}
machine: {cores: 2}
executor: {name: local, options: {oversubscribe: true}}
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    path = tmp_path / "search.yaml"
    path.write_text(GOOD)
    (tmp_path / "sim.py").write_text(SIMULATION)
    (tmp_path / "in.txt").write_text("x is {x:.1f}\nranks are {ranks}\n")
    yield path
    assert not list(temporary.iterdir())


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def check(file: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs ``rlctl check`` with changes of the file, as ``program.command=...``; exit code, output, errors."""

    def run(*options: str, **changes: Any) -> tuple[int, str, str]:
        data = yaml.safe_load(GOOD)
        for key, value in changes.items():
            *sections, last = key.split("__")
            section = data
            for name in sections:
                section = section.setdefault(name, {})
            section[last] = value
        file.write_text(yaml.safe_dump(data, sort_keys=False) if changes else GOOD)
        with pytest.raises(SystemExit) as left:
            main(["check", str(file), *options])
        out, err = capsys.readouterr()
        return int(left.value.code or 0), out, err

    return run


def test_an_evaluation_is_shown_as_it_would_be_run(check: Run, file: Path) -> None:
    code, out, err = check(program__resources={"ranks": [2, 1]}, program__before="cp in.txt in.old")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == f"{file}: ok"
    assert "evaluation in work/evaluations/0000: x 1.5, y 0.25" in lines
    assert "  ranks 2, cores_per_rank 1, walltime_s 60" in lines
    assert "  before: cp in.txt in.old" in lines
    command = next(line for line in lines if line.startswith("  $ "))
    assert "mpiexec" in command
    assert command.endswith(f"-n 2 {sys.executable} sim.py 1.5 0.250")
    assert f"  sim.py: copy of {file.parent / 'sim.py'}" in lines
    assert lines[lines.index("    | x is 1.5") + 1] == "    | ranks are 2"


def test_an_evaluation_is_shown_as_json(check: Run) -> None:
    code, out, _ = check("--json")
    shown = json.loads(out)
    assert (code, shown["ok"]) == (0, True)
    assert shown["evaluation"]["command"] == [sys.executable, "sim.py", "1.5", "0.250"]
    assert {entry["name"]: entry["text"] for entry in shown["evaluation"]["files"]} == {
        "sim.py": None,
        "in.txt": "x is 1.5\nranks are 1\n",
    }
    assert shown["evaluation"]["walltime_s"] == 60.0
    assert "probe" not in shown


def test_a_step_of_slurm_is_shown_as_one(check: Run) -> None:
    code, out, err = check(executor={"name": "slurm"}, program__resources={"ranks": 2})
    assert code == 0, err
    assert f"  $ srun --ntasks=2 {sys.executable} sim.py 1.5 0.250" in out.splitlines()


@pytest.mark.quick
def test_a_probe_runs_one_evaluation_and_leaves_nothing(check: Run, file: Path) -> None:
    before = sorted(file.parent.rglob("*"))
    code, out, _ = check("--probe")
    assert code == 0
    assert "s: energy 0.5" in out.splitlines()[-1]
    code, out, _ = check("--probe", "--json")
    assert (code, json.loads(out)["probe"]["results"]) == (0, {"energy": 0.5})
    assert sorted(file.parent.rglob("*")) == before


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"program__command": "python sim.py {x}"}, ["exit: exit code 1: ValueError: not enough", "    | Traceback"]),
        ({"program__results": {"energy": {"regex": "E=(.*)"}}}, ["nothing matches in stdout", "    | energy = 0.5"]),
        ({"program__walltime_s": 0.4, "program__command": "sleep 30"}, ["stopped at its walltime of 0.4 s"]),
        (
            {"program__failures": {"bad": {"pattern": "energy", "then": "infeasible"}}, "program__keep": "none"},
            ["bad, which means infeasible: stdout: energy", "    | energy = 0.5"],
        ),
    ],
)
def test_a_probe_without_results_says_why(check: Run, changes: dict[str, Any], said: list[str]) -> None:
    code, out, err = check("--probe", **changes)
    assert (code, err) == (1, "")
    for words in ("the probe failed after ", *said):
        assert words in out
    code, out, err = check("--probe", "--json", **changes)
    assert (code, err) == (1, "")
    assert json.loads(out)["ok"] is False
    assert json.loads(out)["probe"]["failure"]


@pytest.mark.parametrize(
    ("changes", "key", "said"),
    [
        ({"program__command": "no-such-program {x}"}, "program.command", "no-such-program: no such program"),
        ({"program__command": "/nowhere/sim {x}"}, "program.command", "/nowhere/sim: no such program"),
        ({"program__command": "./sim {x}"}, "program.command", "./sim: there is no such program"),
        ({"program__command": "python sim.py {z}"}, "program.command", "placeholder {z} is not defined; known: "),
        ({"program__command": "python sim.py {stagee}"}, "program.command", "did you mean 'stage'?"),
        ({"program__command": "python sim.py {x:d}"}, "program.command", "placeholder {x:d} with the value 1.5: "),
        ({"program__command": "python 'sim.py"}, "program.command", "No closing quotation"),
        ({"program__command": ""}, "program.command", "should have at least 1 item"),
        ({"program__command": None}, "program.command", "should be a valid list"),
        ({"program__comand": "x"}, "program.comand", "unknown key; known: after, application, before, command"),
        ({"program__before": ["true", "no-such-before"]}, "program.before.1", "no-such-before: no such program"),
        ({"program__after": [["no-such-after", "x"]]}, "program.after.0", "no-such-after: no such program"),
        ({"program__environment": {"A": "{z}"}}, "program.environment.A", "placeholder {z} is not defined"),
        ({"program__environment": ["A"]}, "program.environment", "should be a mapping"),
        ({"program__application": "lammps"}, "program.command", "application 'lammps' is not described"),
        ({"program__templates": ["gone.txt"]}, "program.templates", "gone.txt: there is no such file"),
        ({"program__templates": ["."]}, "program.templates", "is no file in the folder of an evaluation"),
        ({"program__templates": {"in.txt": "../in.txt"}}, "program.templates", "'../in.txt' is no file in the folder"),
        (
            {"program__templates": {"in.txt": "stdout.txt"}},
            "program.templates",
            "what the program prints has",
        ),
        ({"program__templates": ["sim.py"]}, "program.templates", "sim.py would be there twice"),
        ({"program__templates": ["t.yaml"]}, "program.templates", "t.yaml:2: placeholder {a} is not defined"),
        ({"program__delimiters": "<<>>"}, "program.delimiters", "should be a valid tuple"),
        ({"program__delimiters": ["", ">"]}, "program.delimiters", "give two texts without letters"),
        ({"program__delimiters": ["<x", ">"]}, "program.delimiters", "give two texts without letters"),
        ({"program__command": "python {here}/gone.py"}, "program.command", "{here}/gone.py: there is no such file"),
        (
            {"campaign__options__stages": [{"name": "a"}, {"name": "a"}]},
            "campaign.options.stages.1.name",
            "'a' names an earlier stage",
        ),
        ({"program__copy": "gone.py"}, "program.copy.0", "gone.py: there is no such file"),
        ({"program__copy": ["sim.py", "*.gone"]}, "program.copy.1", "*.gone: there is no such file"),
        (
            {"program__link": ["sim.py"]},
            "program.link",
            "sim.py would be there twice: a file of copy",
        ),
        ({"program__keep": "some"}, "program.keep", "should be 'all', 'failed' or 'none'"),
        ({"program__results": {}}, "program.results", "should have at least 1 item"),
        ({"program__results": {"a b": {"regex": "x"}}}, "program.results", "'a b' is no name of a result"),
        (
            {"program__results": {"energy": {"regx": "x"}}},
            "program.results.energy",
            "one key of json, labelled",
        ),
        ({"program__results": {"energy": "E = (.*)"}}, "program.results.energy", "one key of json, labelled"),
        (
            {"program__results": {"energy": {"regex": "("}}},
            "program.results.energy.regex",
            "not a regular expression",
        ),
        ({"program__results": {"energy": {"regex": "x", "take": "sum"}}}, "program.results.energy.take", "'mean'"),
        (
            {"program__results": {"energy": {"json": "a", "regex": "x"}}},
            "program.results.energy",
            "one key of json",
        ),
        ({"program__results": {"energy": {"exit_code": 3}}}, "program.results.energy.exit_code", "True"),
        ({"program__results": {"energy": {"npz": "a", "index": "x"}}}, "program.results.energy.index", "valid integer"),
        ({"program__results": {"energy": {"function": "mine"}}}, "program.results.energy.function", "pattern"),
        ({"program__results": {"energy": {"function": "mine:f"}}}, "program.results.energy", "there is no module mine"),
        ({"program__results": {"x": {"regex": "x"}}}, "program.results.x", "a parameter has this name"),
        ({"program__progress": {"every_s": 1}}, "program.progress.read", "is missing"),
        ({"program__progress": {"read": {"regex": "x"}, "every_s": 0}}, "program.progress.every_s", "greater than or"),
        ({"program__failures": {"bad": {}}}, "program.failures", "bad: give exit_codes or a pattern"),
        (
            {"program__failures": {"bad": {"pattern": "["}}},
            "program.failures.bad.pattern",
            "not a regular expression",
        ),
        ({"program__failures": {"lost": {"exit_codes": [1]}}}, "program.failures", "call it otherwise"),
        ({"program__failures": {"timeout": {"retry": 1}}}, "program.failures", "timeout cannot be retried"),
        ({"program__failures": {"exit": {"exit_codes": [1]}}}, "program.failures", "it has no codes and pattern"),
        ({"program__failures": {"bad": {"exit_codes": [1], "then": "ignore"}}}, "program.failures.bad.then", "'stop'"),
        ({"program__failures": {"bad": {"exit_codes": [1], "retry": -1}}}, "program.failures.bad.retry", "-1"),
        ({"program__resources": {"ranks": [0]}}, "program.resources", "ranks: give different numbers from 1 on"),
        ({"program__resources": {"ranks": [2, 2]}}, "program.resources", "ranks: give different numbers"),
        ({"program__resources": {"ranks": 64}}, "program.resources", "no choice of resources fits on 1 nodes"),
        ({"program__resources": {"gpus": True}}, "program.resources.gpus", "should be a valid list"),
        ({"program__walltime_s": 0}, "program.walltime_s", "should be greater than 0"),
        ({"program__output_mb": 0}, "program.output_mb", "greater than or equal to 1"),
        ({"program": None}, "program", "add this section, with command and results"),
        ({"programs": {"a": {"command": "x", "results": {"e": {"regex": "x"}}}}}, "programs", "not both"),
        ({"folder": "nowhere"}, "program.templates", "in.txt: there is no such file"),
        (
            {"executor__options": {"applications": {"a": {"venv": "gone"}}}},
            "executor.options.applications.a",
            "gone: no virtual environment, it is not there",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line_with_its_place(
    check: Run, file: Path, changes: dict[str, Any], key: str | None, said: str
) -> None:
    (file.parent / "t.yaml").write_text("x: {x}\nmap: {a: 1}\n")
    code, out, err = check(**changes)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert said in err
    assert err.startswith(f"rlctl: {file}")
    if key is not None:
        place, _, _ = err.removeprefix(f"rlctl: {file}:").partition(": ")
        assert f": {key}: " in err, err
        last = key.split(".")[-1]
        line = file.read_text().splitlines()[int(place) - 1]
        known = [part for part in key.split(".") if f"{part}:" in line]
        assert known or last.isdigit() or "- " in line, line


def test_a_campaign_does_not_begin_without_its_program(
    check: Run, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check(program__command="no-such-program {x}")
    with pytest.raises(SystemExit) as left:
        main(["steer", str(file), "--policy", "random_search", "--run", "run"])
    assert left.value.code == 2
    assert capsys.readouterr().err.startswith(f"rlctl: {file}:2: program.command: no-such-program: no such program")
    assert not Path("run").exists()


@pytest.mark.parametrize("executor", ["slurm", "parsl"])
def test_what_this_machine_lacks_does_not_keep_an_evaluation_from_being_shown(
    check: Run, file: Path, executor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if executor == "parsl":
        pytest.importorskip("parsl", reason="needs Parsl: pip install 'rlctl[parsl]'")
    (file.parent / "places.py").write_text(
        "from parsl.executors import HighThroughputExecutor\nconfig = HighThroughputExecutor(max_workers_per_node=2)\n"
    )
    options = {"applications": {"md": {"mpiexec": "/only/there/mpiexec"}}}
    options |= {"config": "places.py"} if executor == "parsl" else {}
    changes = {"program__application": "md", "program__resources": {"ranks": 2}, "program__command": "lmp -in {x}"}
    code, out, err = check(executor={"name": executor, "options": options}, **changes)
    assert code == 0, err
    assert "/only/there/mpiexec" in err
    assert [line for line in out.splitlines() if line.startswith("  $ ") and line.endswith("lmp -in 1.5")]


def test_programs_that_only_other_machines_have_are_doubted(check: Run) -> None:
    code, _, err = check(program__command="no-such-program {x}", executor={"name": "slurm"})
    assert code == 0
    assert "no-such-program: no such program" in err
    assert "whether the nodes have it" in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_probe_that_is_interrupted_leaves_nothing(file: Path, number: int) -> None:
    (file.parent / "sim.py").write_text("import time\nopen({ready!r}, 'w')\ntime.sleep(300)\n".format(
        ready=str(file.parent / "ready")))  # fmt: skip
    environment = {**os.environ, "TMPDIR": str(file.parent / "temporary")}
    command = [sys.executable, "-m", "rlctl", "check", str(file), "--probe"]
    probing = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    end_s = time.monotonic() + 60.0
    while not (file.parent / "ready").exists():
        assert probing.poll() is None, probing.communicate()
        assert time.monotonic() < end_s
        time.sleep(0.02)
    probing.send_signal(number)
    _, err = probing.communicate(timeout=60)
    assert (probing.returncode, err) == (130, "rlctl: stopped\n")
    work = str(file.parent / "temporary")
    assert not [p for p in psutil.process_iter() if any(work in word for word in words(p))]
    shutil.rmtree(file.parent / "temporary" / "nothing", ignore_errors=True)


def words(process: psutil.Process) -> list[str]:
    try:
        return [*process.cmdline(), process.cwd()]
    except psutil.Error:
        return []
