"""Programs of users: run for real from their options, on the local executor, and what comes of them."""

from __future__ import annotations

import concurrent.futures as cf
import csv
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from rlctl.config.validation import validated
from rlctl.core.errors import ConfigError
from rlctl.core.machine import Capacity
from rlctl.core.task import Failure, Resources, TaskId
from rlctl.executors import LocalExecutor, TaskFailed, TaskFuture
from rlctl.executors.application import Application
from rlctl.executors.local.options import LocalOptions
from rlctl.programs.options import ProgramOptions
from rlctl.programs.program import EvaluationRequest, Program
from rlctl.system.mpi import find_mpiexec

PATIENCE_S = 60.0
needs_mpi = pytest.mark.skipif(find_mpiexec() is None, reason="needs mpiexec")


class Place:
    """A folder with files of the user, and a run in it."""

    def __init__(self, folder: Path) -> None:
        self.here, self.work = folder / "project", folder / "run" / "work"
        self.here.mkdir()
        self.work.mkdir(parents=True)
        self.applications: dict[str, Application] = {}
        self.executor: LocalExecutor | None = None

    def program(self, known: tuple[str, ...] = ("x",), **options: Any) -> Program:
        """One whose only result, unless the options say otherwise, is the number that it prints."""
        given = {"results": {"out": {"regex": r"out = (\S+)"}}, **options}
        program = Program("program", validated(ProgramOptions, given), self.here, known)
        program.prepare(self.work)
        return program

    def submit(self, program: Program, number: int = 0, **request: Any) -> TaskFuture:
        if self.executor is None:
            how = LocalOptions(lease_s=0.0, pin=False, oversubscribe=True, applications=self.applications)
            self.executor = LocalExecutor(Capacity(cores=4), self.work, eager=True, options=how)
        given = {"values": {"x": 1.5}, "resources": Resources(), **request}
        return self.executor.submit_task(program.task(TaskId(f"{number:04d}"), EvaluationRequest(number, **given)))

    def result(self, program: Program, number: int = 0, **request: Any) -> Mapping[str, Any]:
        return self.submit(program, number, **request).result(PATIENCE_S)

    def failure(self, program: Program, number: int = 0, **request: Any) -> tuple[Failure | None, str]:
        with pytest.raises(TaskFailed) as failed:
            self.result(program, number, **request)
        return failed.value.result.failure, failed.value.result.message

    def script(self, name: str, text: str) -> Path:
        path = self.here / name
        path.write_text(text)
        path.chmod(0o755)
        return path

    def folder(self, number: int = 0) -> Path:
        return self.work / "evaluations" / f"{number:04d}"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    if place.executor is not None:
        place.executor.close()


def until(condition: Callable[[], Any], what: str) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end_s, f"not within {PATIENCE_S} s: {what}"
        time.sleep(0.01)


def sh(script: str) -> list[str]:
    return ["sh", "-c", script]


@pytest.mark.quick
def test_an_evaluation_has_a_folder_of_its_own_with_templates_copies_and_links(place: Place) -> None:
    (place.here / "big.dat").write_text("shared")
    (place.here / "tables").mkdir()
    (place.here / "tables" / "a.csv").write_text("1")
    (place.here / "in.tex").write_text(r"\frac{1}{2} <<x:.3f>> <<ranks>> <<task>>")
    script = place.script("run.sh.template", "#!/bin/sh\ncat in.tex sub/in.tex; pwd; echo out = {x}\n")
    script.chmod(0o750)
    program = place.program(
        command="sh run.sh",
        templates={"in.tex": "sub/in.tex"},
        delimiters=["<<", ">>"],
        copy=["in.tex", "tables", "*.template"],
        link="big.dat",
        results={"out": {"regex": r"<<x|out"}, "x": {"regex": r"\\frac\{1\}\{2\} ([\d.]+)", "file": "sub/in.tex"}},
        before="cp run.sh.template run.sh",
    )
    with pytest.raises(TaskFailed, match=r"result out \(regex <<x\|out\): 'out' is not a number"):
        place.result(program)
    folder = place.folder()
    assert sorted(path.name for path in folder.iterdir()) == [
        "big.dat", "in.tex", "run.sh", "run.sh.template", "stderr.txt", "stdout.txt", "sub", "tables",
    ]  # fmt: skip
    assert (folder / "sub" / "in.tex").read_text() == r"\frac{1}{2} 1.500 1 0"
    assert (folder / "in.tex").read_text() == r"\frac{1}{2} <<x:.3f>> <<ranks>> <<task>>"
    assert os.readlink(folder / "big.dat") == str(place.here / "big.dat")
    assert (folder / "tables" / "a.csv").read_text() == "1"
    assert stat.S_IMODE((folder / "run.sh.template").stat().st_mode) == 0o750
    assert str(folder) in (folder / "stdout.txt").read_text()


def test_a_template_keeps_the_mode_of_its_file_and_loses_its_ending(place: Place) -> None:
    place.script("run.sh.template", "#!/bin/sh\necho out = {x:.2f}\n")
    assert place.result(place.program(command="./run.sh", templates="run.sh.template")) == {
        "outputs": {"out": 1.5},
        "attempts": 1,
    }


def test_a_copied_folder_does_not_hold_the_run_that_it_is_copied_into(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "runs").mkdir()
    place = Place(tmp_path / "project" / "runs")
    place.here = tmp_path / "project"
    place.script("sim.sh", "echo out = 1")
    (tmp_path / "project" / "runs" / "old").write_text("large")
    try:
        for number, copied in enumerate(("*", ".")):
            assert place.result(place.program(command="true", copy=copied, after=[sh("echo out = 1")]), number)
            names = {path.name for path in place.folder(number).rglob("*")}
            assert "sim.sh" in names
            assert not names & {"run", "old", "work"}
    finally:
        assert place.executor is not None
        place.executor.close()


def test_commands_run_before_and_after_in_the_same_folder_and_surroundings(place: Place) -> None:
    place.script("post.py", "import os; print('out =', open('made').read().strip(), os.environ['MINE'])")
    program = place.program(
        before=[sh("echo first >log; echo {x} >made"), "sh -c 'echo second >>log'"],
        command=sh("cat log"),
        after="python ./post.py",
        copy="post.py",
        environment={"MINE": "x{x:.1f}", "LD_MINE": "for the program"},
        results={"out": {"regex": r"out = (\S+)"}, "mine": {"regex": r"out = \S+ x(\S+)"}},
    )
    assert place.result(program)["outputs"] == {"out": 1.5, "mine": 1.5}
    assert (place.folder() / "stdout.txt").read_text().splitlines()[:2] == ["first", "second"]


@pytest.mark.parametrize(
    ("options", "failure", "said"),
    [
        ({"before": "false"}, Failure.EXIT, "exit: false, which runs before it: ended with exit code 1"),
        ({"before": [["sh", "-c", "echo why >&2; exit 4"]]}, Failure.EXIT, "ended with exit code 4: why"),
        ({"before": "no-such-program"}, Failure.LAUNCH, "launch: no-such-program, which runs before it: "),
        ({"after": "false"}, Failure.EXIT, "exit: false, which runs after it: ended with exit code 1"),
        ({"command": sh("echo why >&2; exit 5")}, Failure.EXIT, "exit: exit code 5: why"),
        ({"command": sh("kill -SEGV $$")}, Failure.SIGNAL, "signal: killed by SIGSEGV"),
        ({"command": "./no-such-program"}, Failure.LAUNCH, "launch: ./no-such-program: No such file or directory"),
        ({"command": sh("echo E = 1")}, Failure.GARBAGE, r"read: result out (regex out = (\S+)): nothing matches"),
        ({"command": sh("echo out = nan")}, Failure.GARBAGE, "nan is not finite"),
        ({"command": sh("echo out = 1; yes"), "output_mb": 1}, Failure.OUTPUT, "output: wrote more than 1 MiB"),
        ({"results": {"out": {"json": "out.json"}}}, Failure.GARBAGE, "there is no file out.json; there: stderr.txt,"),
    ],
)
def test_a_failure_says_what_has_failed(place: Place, options: dict[str, Any], failure: Failure, said: str) -> None:
    kind, message = place.failure(place.program(**{"command": sh("echo out = 1"), **options}))
    assert kind is failure
    assert said in message


def test_results_of_an_earlier_attempt_are_not_this_ones(place: Place) -> None:
    """Those of a failed try, of an attempt that a lost controller began, and of the folder itself."""
    first = place.program(command=sh("echo out = 1 >out.txt; echo x >{restart_out}"), results={"out": {
        "regex": "out = (.*)", "file": "out.txt"}})  # fmt: skip
    assert place.result(first)["outputs"] == {"out": 1.0}
    assert (place.work / "restarts" / "0000").exists()
    assert place.executor is not None
    place.executor.close()
    place.executor = None
    again = place.program(command="true", results={"out": {"regex": "out = (.*)", "file": "out.txt"}})
    assert place.failure(again)[0] is Failure.GARBAGE
    assert not (place.work / "results" / "0000.json").exists()
    assert not (place.work / "restarts" / "0000").exists()


@pytest.mark.parametrize(("keep", "kept"), [("all", {"0000", "0001"}), ("failed", {"0001"}), ("none", set[str]())])
def test_folders_are_kept_as_asked_for(place: Place, keep: str, kept: set[str]) -> None:
    program = place.program(command=sh("echo out = 1; exit {x}"), keep=keep)
    assert place.result(program, 0, values={"x": 0})["outputs"] == {"out": 1.0}
    assert place.failure(program, 1, values={"x": 1})[1] == "exit: exit code 1: out = 1"
    assert {path.name for path in (place.work / "evaluations").iterdir()} == kept
    assert (place.work / "results" / "0000.json").exists()


KINDS = {
    "diverged": {"exit_codes": [3, 4], "then": "infeasible"},
    "licence": {"pattern": "no licence: .*", "file": "stderr", "retry": 2},
    "broken": {"pattern": "disk full", "file": "log.txt", "then": "stop"},
    "read": {"then": "infeasible"},
    "signal": {"retry": 1},
}


@pytest.mark.parametrize(
    ("script", "then"),
    [
        ("exit 4", {"kind": "diverged", "then": "infeasible", "message": "exit code 4", "attempts": 1}),
        ("echo disk full >log.txt", {"kind": "broken", "then": "stop", "message": "log.txt: disk full", "attempts": 1}),
        ("true", {"kind": "read", "then": "infeasible", "attempts": 1}),
    ],
)
def test_a_kind_of_failure_may_be_a_result(place: Place, script: str, then: dict[str, Any]) -> None:
    values = place.result(place.program(command=sh(script), failures=KINDS))
    assert {name: values[name] for name in then} == then


@pytest.mark.quick
def test_a_kind_of_failure_is_retried_in_an_empty_folder_as_often_as_asked_for(place: Place) -> None:
    count = place.here / "count"
    script = f"ls; echo x >>{count}; test $(wc -l <{count}) -ge %d || {{ echo no licence: a >&2; touch left; exit 0; }}"
    program = place.program(command=sh(f"{script % 3}; echo out = 2"), failures=KINDS)
    assert place.result(program) == {"outputs": {"out": 2.0}, "attempts": 3}
    assert "left" not in (place.folder() / "stdout.txt").read_text()
    count.unlink()
    program = place.program(command=sh(f"{script % 4}; echo out = 2"), failures=KINDS)
    assert place.failure(program, 1) == (Failure.EXIT, "licence: stderr: no licence: a")
    assert count.read_text() == "x\n" * 3


def test_the_exit_code_can_be_a_result(place: Place) -> None:
    assert place.result(place.program(command=sh("exit 7"), results={"code": {"exit_code": True}}))["outputs"] == {
        "code": 7.0
    }


def test_a_function_of_the_users_beside_the_configuration_reads_a_result(place: Place) -> None:
    (place.here / "analysis.py").write_text(
        "import numpy as np\ndef norm(folder): return np.linalg.norm(np.loadtxt(folder / 'v.txt'))\n"
    )
    program = place.program(command=sh("echo 3 4 >v.txt"), results={"out": {"function": "analysis:norm"}})
    assert place.result(program)["outputs"] == {"out": 5.0}
    (place.here / "numpy.py").write_text("raise RuntimeError('not the one that is meant')\n")
    command = [sys.executable, "-c", "import numpy; numpy.savez('v.npz', out=6.0)"]
    program = place.program(command=command, results={"out": {"npz": "v.npz"}})
    assert place.result(program, 1)["outputs"] == {"out": 6.0}


@pytest.mark.parametrize("file", ["stdout", "log.txt"])
def test_progress_is_reported_while_it_runs(place: Place, file: str) -> None:
    go = place.here / "go"
    to = "" if file == "stdout" else ">>log.txt"
    script = (
        f"echo E = 3.0 {to}; printf 'E = 2' {to}; while ! test -e {go}; do sleep 0.05; done; echo .5 {to}; echo out = 1"
    )
    program = place.program(
        command=sh(script), progress={"read": {"regex": r"E = (\S+)", "file": file}, "every_s": 0.05}
    )
    future = place.submit(program)
    lines = place.work / "results" / "0000.progress.jsonl"
    until(lambda: lines.exists() and lines.read_text(), "it reports")
    assert json.loads(lines.read_text()) == {"progress": 3.0}  # what is being written is no number yet
    go.touch()
    assert future.result(PATIENCE_S)["outputs"] == {"out": 1.0}
    assert [json.loads(line)["progress"] for line in lines.read_text().splitlines()] == [3.0, 2.5]


@pytest.mark.quick
def test_the_file_that_a_segment_starts_from_outlives_it(place: Place) -> None:
    script = "test -z '{restart_in}' || cat '{restart_in}' >{restart_out}; echo {task} >>{restart_out}; "
    script += "echo out = $(wc -l <{restart_out})"
    program = place.program(command=sh(script), keep="none")
    assert place.result(program, 0)["outputs"] == {"out": 1.0}
    for number in (1, 2, 3):  # three continue the first one, the last two at the same time as each other
        assert place.result(program, number, restart_from=0 if number < 3 else 2)["outputs"]
    files = {path.name: path.read_text().split() for path in (place.work / "restarts").iterdir()}
    assert files == {"0000": ["0"], "0001": ["0", "1"], "0002": ["0", "2"], "0003": ["0", "2", "3"]}
    assert not list((place.work / "evaluations").iterdir())


@pytest.mark.quick
def test_a_restart_file_of_the_programs_own_name_takes_the_place_of_the_first_input(place: Place) -> None:
    (place.here / "start.txt").write_text("fresh\n")
    script = "cat start.txt - >end.txt <task; echo out = $(wc -l <end.txt)"
    restart = {"end.txt": "start.txt"}
    program = place.program(
        command=sh(script), before=[sh("echo {task} >task")], copy="start.txt", restart=restart, keep="none"
    )
    for number, start in ((0, None), (1, 0), (2, 1)):
        result = place.result(program, number, restart_from=start)
        assert result == {"outputs": {"out": number + 2.0}, "attempts": 1, "restart": True}
    assert (place.work / "restarts" / "0002").read_text() == "fresh\n0\n1\n2\n"
    assert (place.work / "restarts" / "0000").read_text() == "fresh\n0\n"
    assert (place.here / "start.txt").read_text() == "fresh\n"


@pytest.mark.quick
def test_a_restart_folder_goes_from_run_to_run_and_a_failure_leaves_none(place: Place) -> None:
    script = "mkdir -p state; echo {task} >>state/seen; echo out = $(wc -l <state/seen); test {task} != 2"
    program = place.program(command=sh(script), restart="state")
    place.result(program, 0)
    assert place.result(program, 1, restart_from=0)["outputs"] == {"out": 2.0}
    assert (place.work / "restarts" / "0001" / "seen").read_text() == "0\n1\n"
    assert place.failure(program, 2, restart_from=1)[0] is Failure.EXIT
    assert not (place.work / "restarts" / "0002").exists()
    assert (place.work / "restarts" / "0001" / "seen").read_text() == "0\n1\n"


@pytest.mark.quick
@pytest.mark.parametrize("restart", ["/tmp/end", {"end": "../start"}, {"a": "b", "c": "d"}])
def test_a_restart_is_one_file_in_the_folder(place: Place, restart: Any) -> None:
    with pytest.raises(ConfigError) as refused:
        place.program(command="true", restart=restart)
    assert refused.value.key[:1] == ("restart",)


@pytest.mark.quick
@pytest.mark.parametrize("where", ["before", "after"])
def test_commands_around_a_program_fail_as_is_declared(place: Place, where: str) -> None:
    kinds = {"refused": {"pattern": "too long a step", "then": "infeasible"}}
    commands = {where: [sh("echo too long a step; exit 1")]}
    result = place.result(place.program(command=sh("echo out = 1"), failures=kinds, **commands))
    assert (result["kind"], result["then"], result["message"]) == (
        "refused", "infeasible", "stdout: too long a step",
    )  # fmt: skip
    other = place.program(command=sh("echo out = 1"), failures=kinds, **{where: [sh("echo other; exit 1")]})
    assert place.failure(other, 1) == (Failure.EXIT, f"exit: sh, which runs {where} it: ended with exit code 1: other")


def test_a_program_past_its_walltime_is_stopped_saves_its_state_and_is_not_retried(place: Place) -> None:
    runs = place.here / "runs"
    script = f"echo >>{runs}; trap 'echo saved >{{restart_out}}; exit 9' TERM; while :; do sleep 0.05; done"
    program = place.program(command=sh(script), failures={"signal": {"retry": 5}, "exit": {"retry": 5}}, walltime_s=2.0)
    kind, message = place.failure(program)
    assert (kind, message) == (Failure.TIMEOUT, "stopped at its walltime of 2 s")
    assert (place.work / "restarts" / "0000").read_text() == "saved\n"
    assert runs.read_text() == "\n"


def test_what_ignores_a_stop_is_killed_and_leaves_nothing(place: Place) -> None:
    script = f"trap '' TERM; : {place.here}; (trap '' TERM; sleep 299) & sleep 299"
    future = place.submit(place.program(command=sh(script)))
    until(lambda: any(len(p.children()) == 2 for p in processes(str(place.here))), "both sleep")
    future.stop(0.2)
    with pytest.raises(cf.CancelledError):
        future.result(PATIENCE_S)
    assert not processes(str(place.here))
    assert not (place.work / "results" / "0000.json").exists()


def test_a_program_ends_with_what_reads_its_results(place: Place) -> None:
    """The system may kill a process that has done nothing, where memory is short."""
    future = place.submit(place.program(command=sh(f": {place.here}; echo >ready; sleep 298")))
    until((place.folder() / "ready").exists, "it runs")
    (program,) = [p for p in processes(str(place.here)) if p.name() == "sh"]
    program.parent().kill()
    with pytest.raises(TaskFailed, match="SIGKILL"):
        future.result(PATIENCE_S)
    assert not processes(str(place.here))


def test_a_program_sees_the_gpus_that_it_was_given(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    how = LocalOptions(lease_s=0.0, pin=False, oversubscribe=True)
    place.executor = LocalExecutor(Capacity(cores=4, gpus=2), place.work, eager=True, options=how)
    results = {name: {"regex": rf"{name} = (\S+)"} for name in ("asked", "gpu", "threads")}
    script = "echo asked = {gpus:g}; echo gpu = $CUDA_VISIBLE_DEVICES; echo threads = $OMP_NUM_THREADS"
    program = place.program(command=sh(script), results=results)
    need = Resources(gpus_per_rank=1.0, cores_per_rank=2)
    gpus = [place.submit(program, number, resources=need).result(PATIENCE_S)["outputs"] for number in range(2)]
    assert gpus == [{"asked": 1.0, "gpu": 4.0, "threads": 2.0}] * 2
    assert "result gpu (regex" in place.failure(program, 2)[1]  # without GPUs, it sees none


def processes(word: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if any(word in argument for argument in process.cmdline()) and process.pid != os.getpid():
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.mark.quick
def test_signals_meant_for_the_program_do_not_end_what_reads_its_results(place: Place) -> None:
    script = "trap 'echo out = 8; exit 0' USR1; echo >ready; while :; do sleep 0.05; done"
    future = place.submit(place.program(command=sh(script)))
    until((place.folder() / "ready").exists, "it runs")
    assert place.executor is not None
    place.executor.signal(TaskId("0000"), signal.SIGUSR1)
    assert future.result(PATIENCE_S)["outputs"] == {"out": 8.0}


def test_memory_counts_the_program_and_not_what_reads_its_results(place: Place) -> None:
    command = [sys.executable, "-c", "x = b'x' * ({x} << 20); import time; time.sleep(1.5); print('out = 1')"]
    program = place.program(command=command)
    need = Resources(memory_per_rank_mb=64)
    capacity = Capacity(cores=4, memory_mb=1024)
    how = LocalOptions(lease_s=0.0, pin=False, oversubscribe=True)
    place.executor = LocalExecutor(capacity, place.work, eager=True, options=how)
    assert place.result(program, 0, values={"x": 30}, resources=need)["outputs"] == {"out": 1.0}
    kind, _ = place.failure(program, 1, values={"x": 400}, resources=need)
    assert kind is Failure.MEMORY


RANKS = """
from mpi4py import MPI
comm = MPI.COMM_WORLD
open(f"rank{comm.rank}", "w").close()
if comm.rank == 0: print("out =", comm.size, flush=True)
comm.Barrier()
if {x} and comm.rank == 1: import os, signal; os.kill(os.getpid(), signal.{how})
"""


@needs_mpi
def test_ranks_of_a_program_run_together_and_its_readers_once(place: Place) -> None:
    (place.here / "reading.py").write_text(
        "def count(folder):\n"
        "    (folder / 'read').open('a').write('once')\n"
        "    return len(list(folder.glob('rank*')))\n"
    )
    (place.here / "sim.py").write_text(RANKS)
    program = place.program(
        ("x", "how"),
        command="python sim.py",
        templates="sim.py",
        results={"out": {"regex": r"out = (\S+)"}, "files": {"function": "reading:count"}},
        failures={"crash": {"exit_codes": [139], "then": "infeasible"}},
    )
    two = Resources(ranks=2)
    assert place.result(program, values={"x": 0, "how": "SIGSEGV"}, resources=two)["outputs"] == {
        "out": 2.0,
        "files": 2.0,
    }
    assert (place.folder() / "read").read_text() == "once"
    values = place.result(program, 1, values={"x": 1, "how": "SIGSEGV"}, resources=two)
    assert (values["kind"], values["then"]) == ("crash", "infeasible")
    kind, message = place.failure(program, 2, values={"x": 1, "how": "SIGKILL"}, resources=two)
    assert (kind, message.partition(":")[0]) == (Failure.SIGNAL, "signal")
    assert "SIGKILL" in message


@pytest.mark.quick
def test_a_program_has_the_environment_of_its_application_and_its_wrapper_that_of_rlctl(place: Place) -> None:
    venv = place.here / "venv"
    (venv / "bin").mkdir(parents=True)
    shutil.copy("/bin/sh", venv / "bin" / "sh-of-venv")
    (venv / "bin" / "python").write_text('#!/bin/sh\ntest "$PYTHONHOME" = /nowhere && echo "out = 4"\n')
    (venv / "bin" / "python").chmod(0o755)
    broken = place.here / "libraries"
    broken.mkdir()
    (broken / "libc.so.6").write_text("no library")
    place.applications = {
        "other": Application(
            venv=str(venv), environment={"PYTHONHOME": "/nowhere", "PYTHONPATH": "/nowhere", "MINE": "2"}
        ),
        "linked": Application(environment={"LD_LIBRARY_PATH": str(broken)}),
    }
    program = place.program(
        command="python",
        application="other",
        before=[sh('python >before; sh-of-venv -c "echo m = $MINE"')],
        results={
            "out": {"regex": r"out = (\S+)"},
            "m": {"regex": "m = (.*)"},
            "b": {"regex": "= (4)", "file": "before"},
        },
    )
    assert place.result(program)["outputs"] == {"out": 4.0, "m": 2.0, "b": 4.0}
    # A library that would break any Python: the program does not start, and that is said as of any other program.
    linked = place.program(command=[sys.executable, "-c", "print('out = 1')"], application="linked")
    assert place.failure(linked, 1) == (Failure.EXIT, f"exit: exit code 127: {lines(place.folder(1) / 'stderr.txt')}")


def lines(path: Path) -> str:
    from rlctl.core.errors import one_line

    text = path.read_text()
    assert "libc.so.6" in text
    return one_line(text.strip().splitlines()[-1])


SEARCH = r"""
program:
  command: sh -c 'case {k} in 1) sleep 30;; 2) exit 4;; 3) exit 0;; 4) kill -9 $$;; esac; echo e = {k}'
  results: {e: {regex: 'e = (\S+)'}}
  failures:
    timeout: {then: infeasible}
    bad: {exit_codes: [4], then: infeasible}
    read: {then: infeasible}
    signal: {retry: 1, then: infeasible}
  walltime_s: 2
campaign:
  options:
    parameters: {k: {low: 0, high: 5, integer: true}}
    objective: {minimize: e}
    until: {evaluations: 6}
machine: {cores: 2}
executor: {options: {oversubscribe: true, pin: false}}
steer: {stop_after_failures: 1, stop_after_first_failures: 1, rules_on_twin: false}
"""


@pytest.mark.parametrize("timeout", ["infeasible", "stop", "fail"])
def test_what_follows_from_kinds_of_failure_in_a_campaign(tmp_path: Path, timeout: str) -> None:
    """Infeasible evaluations are results: the brake, which no failure may pass here, does not count them."""
    file = tmp_path / "search.yaml"
    file.write_text(SEARCH.replace("timeout: {then: infeasible}", f"timeout: {{then: {timeout}}}"))
    command = [sys.executable, "-m", "rlctl", "steer", str(file), "--policy", "random_search", "--run", "run"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == (3 if timeout == "fail" else 0), done.stderr
    with open(tmp_path / "run" / "evaluations.csv") as table:
        rows = {int(row["k"]): (row["status"], row["kind"], row["e"]) for row in csv.DictReader(table)}
    expected = {0: ("done", "", "0.0"), 2: ("infeasible", "bad", ""), 3: ("infeasible", "read", "")}
    expected |= {4: ("infeasible", "signal", ""), 5: ("done", "", "5.0")}
    assert rows[1] == ("infeasible" if timeout == "infeasible" else "failed", "timeout", "")
    rest = {k: row for k, row in rows.items() if k != 1 and row[0] not in ("running", "stopped")}
    assert rest.items() <= expected.items()
    if timeout == "infeasible":
        assert set(rows) == set(range(6))
