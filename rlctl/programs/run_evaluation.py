"""Runs a program for one evaluation, in a folder of its own, and reads its results.

``python -m rlctl.programs.run_evaluation PROGRAM EVALUATION -- COMMAND`` is started by an executor, once, whatever the
number of ranks, with the launcher at the beginning of the command. PROGRAM is the file that ``Program.prepare`` has
written, EVALUATION a JSON object with ``task``, ``values``, ``folder`` and ``result``. The process
imports little, as it runs beside each program.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO, NamedTuple

from rlctl.core.errors import RlctlError, described, one_line
from rlctl.programs.evaluation_folder import copy_over, fill_folder, remove
from rlctl.programs.placeholders import words
from rlctl.programs.readers import STREAMS, ReadError, read, text_of
from rlctl.system.srun_messages import machine_failure, rank_exit_code
from rlctl.system.wrapper_variables import restored

EXIT_CODES = {"exit": 81, "read": 82, "output": 83, "signal": 84, "launch": 85, "lost": 86}
"""Exit codes of this process for what no declared kind of failure covers; 81 also for declared ones."""

TAIL_BYTES = 1 << 20
LOOK_S = 1.0
_SHOWN = 20
"""Last lines of the program's output that this process prints when it has failed."""

GRACE_S = 5.0
"""Seconds that a program has to end once it has written too much."""

_SURVIVED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Signals that are meant for the program, which gets them as well."""


class Failed(NamedTuple):
    """How an attempt failed.

    Attributes:
        kind: declared by the user, or a key of ``EXIT_CODES``.
        message: one line for people.
    """

    kind: str
    message: str


class EvaluationRun:
    """The program's attempts for one evaluation; see the module."""

    def __init__(self, program: Mapping[str, Any], evaluation: Mapping[str, Any], command: Sequence[str]) -> None:
        self._program, self._evaluation, self._command = program, evaluation, command
        self._folder = Path(evaluation["folder"]).absolute()
        self._result, self._progress, self._restart = (
            Path(evaluation[name]).absolute() for name in ("result", "progress", "restart")
        )
        self._kinds: Mapping[str, Mapping[str, Any]] = program["failures"]
        self._environment = restored(os.environ)
        self._under_srun = os.path.basename(command[0]) == "srun"
        self._running: subprocess.Popen[bytes] | None = None
        self._stopping = False
        self._code = 0
        self._outputs: dict[str, float] = {}

    def run(self) -> int:
        """Run it, again after failures that are to be retried, and write the result; returns the exit code."""
        for number in _SURVIVED:
            signal.signal(number, self._signalled)
        tries = dict[str, int]()
        for stale in (self._result, self._progress):
            stale.parent.mkdir(parents=True, exist_ok=True)
            stale.unlink(missing_ok=True)
        while (failed := self._attempt()) is not None and not self._stopping and failed.kind != "lost":
            tries[failed.kind] = tries.get(failed.kind, 0) + 1
            if tries[failed.kind] > self._kinds.get(failed.kind, {}).get("retry", 0):
                break
        last_lines = {stream: self._text(stream).splitlines()[-_SHOWN:] for stream in STREAMS}
        attempts = sum(tries.values()) + (failed is None)
        keep = self._evaluation.get("keep", self._program["keep"])
        if keep == "none" or (keep == "failed" and failed is None):
            remove(self._folder)
        if failed is None:
            left = {"restart": True} if self._restart.exists() else {}
            _write(self._result, {"outputs": self._outputs, "attempts": attempts, **left})
            return 0
        kind = self._kinds.get(failed.kind, {})
        if (then := kind.get("then", "fail")) != "fail" and not self._stopping:
            _write(self._result, {"kind": failed.kind, "then": then, "message": failed.message, "attempts": attempts})
            return 0
        for stream, lines in last_lines.items():
            text = "".join(f"\n    | {line}" for line in lines)
            print(f"{self._evaluation['folder']}/{STREAMS[stream]} ends with:{text}", file=sys.stderr)
        print(f"{failed.kind}: {failed.message}", file=sys.stderr)
        declared = bool(kind.get("exit_codes")) or kind.get("pattern") is not None
        return EXIT_CODES["exit" if declared else failed.kind]

    def _attempt(self) -> Failed | None:
        fill_folder(self._program, self._evaluation["values"], self._folder)
        remove(self._restart)
        self._restart.parent.mkdir(parents=True, exist_ok=True)
        for found in self._program["restart"].values():
            if before := self._evaluation["values"]["restart_in"]:
                copy_over(self._folder / before, self._folder / found)
        failed = self._commands("before") or self._main() or self._commands("after") or self._read()
        for left in self._program["restart"]:
            if failed is None and (self._folder / left).exists():
                copy_over(self._folder / left, self._restart)
        return failed

    def _commands(self, place: str) -> Failed | None:
        """Run the commands before or after the program; what they print is appended to what it prints."""
        for command in self._program[place]:
            called = words(command, self._evaluation["values"])
            if called[0] == "python" and not self._program["application"]:
                called[0] = sys.executable
            failed, code = self._started(called, lambda process, out, err: None)
            if failed is None and code != 0 and (declared := self._by_pattern()) is not None:
                return declared
            if failed is not None or code != 0:
                why = f"ended with exit code {code}{self._last_line()}" if failed is None else failed.message
                return Failed("exit" if failed is None else failed.kind, f"{called[0]}, which runs {place} it: {why}")
        return None

    def _main(self) -> Failed | None:
        failed, code = self._started(self._command, self._watch)
        return failed or self._judged(code)

    def _started(self, command: Sequence[str], watch: Callable[..., Failed | None]) -> tuple[Failed | None, int]:
        """Run a command to its end: how it failed, if not by its exit code, and that."""
        if self._stopping:
            return Failed("signal", "stopped by request"), 0
        with (
            open(self._folder / STREAMS["stdout"], "ab") as out,
            open(self._folder / STREAMS["stderr"], "ab") as err,
        ):
            try:
                process = self._running = subprocess.Popen(
                    command,
                    cwd=self._folder,
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                )
            except OSError as error:
                return Failed("launch", f"{command[0]}: {error.strerror}"), 0
            failed = watch(process, out, err)
            code = process.wait()
        self._running = None
        return Failed("signal", "stopped by request") if self._stopping else failed, code

    def _watch(self, process: subprocess.Popen[bytes], *streams: BinaryIO) -> Failed | None:
        """Report its progress, and stop it if it writes too much, until it ends."""
        progress, most = self._program.get("progress"), self._program["output_mb"] * 2**20
        every_s = LOOK_S if progress is None else progress["every_s"]
        reported, due = None, time.monotonic() + every_s
        while not _ended(process, min(LOOK_S, max(0.0, due - time.monotonic()))):
            if any(os.fstat(stream.fileno()).st_size > most for stream in streams):
                process.terminate()
                if not _ended(process, GRACE_S):
                    process.kill()
                return Failed("output", f"wrote more than {self._program['output_mb']} MiB of output")
            if time.monotonic() >= due:
                due = time.monotonic() + every_s
                reported = self._report(progress, reported)
        self._report(progress, reported)
        return None

    def _report(self, progress: Mapping[str, Any] | None, reported: float | None) -> float | None:
        """Append the number to the progress file if there is a new one."""
        if progress is None:
            return None
        try:
            value = read("progress", {**progress["read"], "tail": TAIL_BYTES}, self._folder)
        except ReadError:  # not yet
            return reported
        if value != reported:
            with open(self._progress, "a") as file:
                file.write(json.dumps({"progress": value}) + "\n")
        return value

    def _judged(self, code: int) -> Failed | None:
        """What the exit code and the text patterns say."""
        if self._under_srun:
            errors = self._text("stderr")
            if lost := machine_failure(errors, self._stopping):
                return Failed("lost", lost)
            code = rank_exit_code(errors, code) if code else code
        for name, kind in self._kinds.items():
            if code in kind["exit_codes"]:
                return Failed(name, f"exit code {code}" + self._last_line())
            if (said := self._matched(name, kind)) is not None:
                return said
        number = -code if code < 0 else code - 128  # as shells and launchers say it
        if code < 0 or (code > 128 and number in signal.valid_signals()):
            return Failed("signal", f"killed by {_signal_name(number)}" + self._last_line())
        if code != 0 and not any("exit_code" in reader for reader in self._program["results"].values()):
            return Failed("exit", f"exit code {code}" + self._last_line())
        self._code = code
        return None

    def _matched(self, name: str, kind: Mapping[str, Any]) -> Failed | None:
        """This kind of failure, if its pattern is in the output."""
        with contextlib.suppress(OSError, RlctlError):
            text = text_of(kind["file"], self._folder) if kind.get("pattern") is not None else ""
            if text and (match := re.search(kind["pattern"], text, re.MULTILINE)) is not None:
                return Failed(name, one_line(f"{kind['file']}: {match[0]}"))
        return None

    def _by_pattern(self) -> Failed | None:
        """The first kind of failure whose pattern is in the output."""
        return next(filter(None, itertools.starmap(self._matched, self._kinds.items())), None)

    def _read(self) -> Failed | None:
        try:
            for name, reader in self._program["results"].items():
                self._outputs[name] = read(name, reader, self._folder, self._code)
        except ReadError as error:
            return Failed("read", str(error))
        return None

    def _text(self, stream: str) -> str:
        with contextlib.suppress(OSError, RlctlError):
            return text_of(stream, self._folder, TAIL_BYTES)
        return ""

    def _last_line(self) -> str:
        for stream in ("stderr", "stdout"):
            if lines := self._text(stream).strip().splitlines():
                return f": {one_line(lines[-1])}"
        return ""

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        """Go on, so that the program's end is seen, e.g. after a checkpoint; its processes get the signal as well."""
        if number in (signal.SIGTERM, signal.SIGINT):
            self._stopping = True
            if self._under_srun and self._running is not None:  # which alone ends processes on other machines
                self._running.send_signal(signal.SIGTERM)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # of real time
        return f"signal {number}"


def _ended(process: subprocess.Popen[bytes], timeout_s: float) -> bool:
    """Wait for the end of a process, for so long at most."""
    if not hasattr(os, "pidfd_open"):
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout_s)
        return process.returncode is not None
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(process.pid)
        try:
            select.select([descriptor], [], [], timeout_s)
        finally:
            os.close(descriptor)
    return process.poll() is not None


def _write(path: Path, result: Mapping[str, Any]) -> None:
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps(result))
    partial.replace(path)


def main(arguments: Sequence[str]) -> int:
    """See the module."""
    program, evaluation, _, *command = arguments
    description = json.loads(Path(program).read_text())
    readers = [*description["results"].values(), (description["progress"] or {}).get("read", {})]
    if any("function" in reader for reader in readers):  # else modules there could only get in the way
        sys.path.insert(0, description["here"])
    try:
        return EvaluationRun(description, json.loads(evaluation), command).run()
    except (OSError, RlctlError) as error:
        print(f"exit: {one_line(described(error) if isinstance(error, OSError) else str(error))}", file=sys.stderr)
        return EXIT_CODES["exit"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
