"""Starts lives of rlctl, ends them in every way there is, and looks whether the machine is clean afterwards."""

import contextlib
import json
import os
import re
import shlex
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import forms
import numpy as np
from evidence import Found, processes_in

from rlctl.executors.local.processes import GRACE_S

HERE = Path(__file__).parent
FULL = forms.full("FAULTS")
SEED = int(os.environ.get("RLCTL_FAULTS_SEED", "0"))
NOTHING_SAID = "rlctl: stopped\n"
ENTRY_POINTS = """[rlctl.campaigns]
logged = evidence_campaign:Factory
[rlctl.policies]
remembering = evidence_campaign:Remembering
"""


@dataclass
class Row:
    """One line of the table."""

    kind: str
    kills: int = 0
    lives: int = 0
    found: Found = field(default_factory=Found)
    clean_s: list[float] = field(default_factory=list)
    faulty: list[str] = field(default_factory=list)
    folder: Path | None = None

    def add(self, folder: Path, found: Found) -> None:
        """What one place has shown; where that is a fault, the message names the place, its kills and what it was."""
        self.found.add(found)
        if found.faults:
            self.faulty.append(f"{place(folder)}: {found}")

    def __str__(self) -> str:
        found = self.found
        clean = f"{statistics.median(self.clean_s):.2f} {max(self.clean_s):.2f}" if self.clean_s else "- -"
        numbers = [self.kills, self.lives, found.finished, found.again, found.decisions, found.wrong, found.processes]
        return f"{self.kind:48}" + "".join(f"{n:>8}" for n in [*numbers, len(found.left), *clean.split()])


HEAD = f"{'kind of kill':48}" + "".join(
    f"{word:>8}" for word in ["kills", "lives", "tasks", "again", "decis.", "wrong", "procs", "left", "median", "max"]
)


class Life:
    """A process that runs the command line, cold or from the server."""

    def __init__(self, pid: int, finish: Any, folder: Path) -> None:
        self.pid = pid
        self._finish = finish
        self._folder = folder
        self.killed_s = 0.0

    def kill(self, number: int = signal.SIGKILL) -> None:
        self.killed_s = time.monotonic()
        os.kill(self.pid, number)

    def end(self) -> int:
        """Wait for its end; the exit code, negative for a signal."""
        code: int = self._finish()
        self.killed_s = self.killed_s or time.monotonic()
        return code

    @property
    def alive(self) -> bool:
        """Zombies have no working folder that can be read."""
        return os.path.exists(f"/proc/{self.pid}/exe")

    @property
    def errors(self) -> str:
        return (self._folder / "errors").read_text()


class Machine:
    """Lives in folders of their own: ``folder/here`` is where they work, ``folder/here/run`` their run."""

    def __init__(self, folder: Path, *modules: str) -> None:
        self.base = folder
        info = folder / "logged-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: logged\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(ENTRY_POINTS)
        # The lives' only folder for temporary files: what they leave in it is seen.
        self.temporary = folder / "temporary"
        self.temporary.mkdir()
        paths = [str(folder), str(HERE), str(HERE.parent / "integration")]
        self.environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(paths),
            "TMPDIR": str(self.temporary),
            "OMP_NUM_THREADS": "1",
        }
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            # A suite in the background of a script ignores it, and so would all lives, which pass for unharmed.
            signal.signal(signal.SIGINT, signal.default_int_handler)
        self._server = subprocess.Popen(
            [sys.executable, str(HERE / "lives.py"), *modules],
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._server.communicate()

    def place(self, name: str, config: str) -> Path:
        folder = self.base / name
        (folder / "here").mkdir(parents=True)
        (folder / "here" / "config.yaml").write_text(config)
        (folder / "log").touch()
        return folder

    def live(self, folder: Path, arguments: list[str], point: int | None = None, number: int = signal.SIGKILL) -> Life:
        """From the server; with ``point`` it sends itself the signal at its n-th effect."""
        asked = {
            "arguments": arguments,
            "cwd": str(folder / "here"),
            "log": str(folder / "log"),
            "output": str(folder / "output"),
            "errors": str(folder / "errors"),
            "point": point,
            "signal": int(number),
        }
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(asked) + "\n")
        self._server.stdin.flush()
        answer = self._server.stdout
        return Life(int(answer.readline()), lambda: int(answer.readline()), folder)

    def cold(self, folder: Path, arguments: list[str]) -> Life:
        """A new interpreter, which begins with its imports."""
        with open(folder / "output", "wb") as out, open(folder / "errors", "wb") as err:
            process = subprocess.Popen(
                [sys.executable, "-m", "rlctl", *arguments],
                cwd=folder / "here",
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )
        return Life(process.pid, lambda: process.wait(60), folder)

    def clean(self, folder: Path, life: Life, row: Row, limit_s: float = GRACE_S + 2.0) -> None:
        """After a death: nothing of it may be alive when the lease is over."""
        while left := processes_in(folder):
            if time.monotonic() - life.killed_s > limit_s:
                row.add(folder, Found(processes=len(left)))
                for pid in left:
                    os.kill(pid, signal.SIGKILL)
                return
            time.sleep(0.01)
        row.clean_s.append(time.monotonic() - life.killed_s)

    def leftovers(self, folder: Path) -> list[str]:
        """Files and folders outside of the run folder that should be gone."""
        beside = {str(folder / "here" / name) for name in set(os.listdir(folder / "here")) - {"config.yaml", "run"}}
        outside = [str(folder / "here" / line.split(maxsplit=1)[1]) for line in noted(folder, "folder")]
        shared = Path("/dev/shm")
        lease = folder / "here" / "run" / "work" / ".lease"
        token = lease.read_text().split()[0] if lease.exists() and lease.stat().st_size else None
        outside += [str(shared / f"rlctl-{token}")] if token else []
        # PyTorch keeps a cache for all its processes there.
        temporary = {name for name in os.listdir(self.temporary) if not name.startswith("torchinductor_")}
        temporary = {name for name in temporary if not _is_probe(self.temporary / name)}
        return sorted(beside | {path for path in outside if os.path.exists(path)}) + sorted(temporary)


def _is_probe(path: Path) -> bool:
    """Whether it is the file by which Python's ``tempfile`` tests a folder, and which a kill in between leaves."""
    return bool(re.fullmatch(r"[a-z0-9_]{8}", path.name)) and path.is_file() and path.read_bytes() in (b"", b"blat")


def noted(folder: Path, kind: str) -> list[str]:
    """Lines of one kind that the lives have noted."""
    return [line for line in (folder / "log").read_text().splitlines() if line.startswith(kind + " ")]


def effects(folder: Path) -> int:
    """How many the last life had that came to its end. Their number differs a little from life to life, by chance."""
    return int(noted(folder, "effects")[-1].split()[1])


def place(folder: Path) -> str:
    """Its name, and the points at which its lives were ended."""
    return f"{folder.name} ({', '.join(noted(folder, 'point')) or 'no point'})"


def printed_line(life: Life) -> list[str]:
    """The arguments of the command that an interrupted life says to go on with."""
    lines = life.errors.splitlines()
    assert len(lines) == 1, life.errors
    command = shlex.split(lines[0].partition("to resume: ")[2])
    assert command[0] == "rlctl"
    return command[1:]


@contextlib.contextmanager
def judged(table: list[Row], kind: str, **about: object) -> Iterator[Row]:
    """A row of the table; says how to repeat it when it fails."""
    row = Row(kind)
    table.append(row)
    try:
        yield row
        assert row.found.faults == 0, "\n".join([HEAD, str(row), *row.faulty])
    except BaseException:
        last = f", last in {place(row.folder)}" if row.folder else ""
        print(f"\nto repeat: RLCTL_FAULTS_SEED={SEED}, {kind}, {about}{last}")
        raise


def chance(*key: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence([SEED, *key]))
