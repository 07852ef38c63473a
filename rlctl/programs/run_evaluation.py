"""Runs a program for one evaluation, in a folder of its own, and reads its results.

``python -m rlctl.programs.run_evaluation PROGRAM EVALUATION -- COMMAND`` is started by an executor, once, whatever the
number of ranks, with the launcher at the beginning of the command. PROGRAM is the file that ``Program.prepare`` has
written, EVALUATION a JSON object with ``task``, ``values``, ``folder`` and ``result``. The process
imports little, as it runs beside each program.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rlctl.core.errors import RlctlError, described, one_line
from rlctl.programs.placeholders import render
from rlctl.programs.readers import STREAMS, ReadError, read, text_of

EXIT_CODES = {"exit": 81, "read": 82, "output": 83, "signal": 84}
"""Exit codes of this process for what no declared kind of failure covers; 81 also for declared ones."""

TAIL_BYTES = 1 << 20
LOOK_S = 1.0


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
        self._kinds: Mapping[str, Mapping[str, Any]] = program["failures"]
        self._outputs: dict[str, float] = {}

    def run(self) -> int:
        """Run it, again after failures that are to be retried, and write the result; returns the exit code."""
        result, tries = Path(self._evaluation["result"]).absolute(), dict[str, int]()
        result.parent.mkdir(parents=True, exist_ok=True)
        while (failed := self._attempt()) is not None:
            tries[failed.kind] = tries.get(failed.kind, 0) + 1
            if tries[failed.kind] > self._kinds.get(failed.kind, {}).get("retry", 0):
                break
        attempts = sum(tries.values()) + (failed is None)
        keep = self._program["keep"]
        if keep == "none" or (keep == "failed" and failed is None):
            shutil.rmtree(self._folder, ignore_errors=True)
        if failed is None:
            _write(result, {"outputs": self._outputs, "attempts": attempts})
            return 0
        then = self._kinds.get(failed.kind, {}).get("then", "fail")
        if then != "fail":
            _write(result, {"kind": failed.kind, "then": then, "message": failed.message, "attempts": attempts})
            return 0
        print(f"{failed.kind}: {failed.message}", file=sys.stderr)
        return EXIT_CODES.get(failed.kind, EXIT_CODES["exit"])

    def _attempt(self) -> Failed | None:
        fill_folder(self._program, self._evaluation["values"], self._folder)
        for words in self._program["before"]:
            if (code := self._call(words)) != 0:
                return Failed("exit", f"{words[0]}, which runs before it, ended with exit code {code}")
        too_much, code = self._main()
        if too_much:
            return Failed("output", f"wrote more than {self._program['output_mb']} MiB of output")
        if (failed := self._judged(code)) is not None:
            return failed
        for words in self._program["after"]:
            if (after := self._call(words)) != 0:
                return Failed("exit", f"{words[0]}, which runs after it, ended with exit code {after}")
        try:
            self._outputs = {
                name: read(name, reader, self._folder, code) for name, reader in self._program["results"].items()
            }
        except ReadError as error:
            return Failed("read", str(error))
        return None

    def _judged(self, code: int) -> Failed | None:
        """What the exit code and the text patterns say."""
        for name, kind in self._kinds.items():
            if code in kind["exit_codes"]:
                return Failed(name, f"exit code {code}" + self._last_line())
            if kind.get("pattern") is None:
                continue
            with contextlib.suppress(OSError, RlctlError):
                match = re.search(kind["pattern"], text_of(kind["file"], self._folder), re.MULTILINE)
                if match is not None:
                    return Failed(name, one_line(f"{kind['file']}: {match[0]}"))
        number = -code if code < 0 else code - 128  # as shells and launchers say it
        if code < 0 or (code > 128 and number in signal.valid_signals()):
            return Failed("signal", f"killed by {signal.Signals(number).name}" + self._last_line())
        if code != 0 and not any("exit_code" in reader for reader in self._program["results"].values()):
            return Failed("exit", f"exit code {code}" + self._last_line())
        return None

    def _main(self) -> tuple[bool, int]:
        """Run the command: whether it was stopped as it wrote too much, and its exit code."""
        with self._streams("wb") as (out, err), _patient():
            process = subprocess.Popen(
                self._command, cwd=self._folder, stdin=subprocess.DEVNULL, stdout=out, stderr=err
            )
            progress = self._program.get("progress")
            every_s, reported = LOOK_S if progress is None else min(LOOK_S, progress["every_s"]), None
            while not _ended(process, every_s):
                if any(os.fstat(file.fileno()).st_size > self._program["output_mb"] * 2**20 for file in (out, err)):
                    process.kill()
                    return True, process.wait()
                if progress is not None:
                    reported = self._report(progress["read"], reported)
            return False, process.returncode

    def _report(self, reader: Mapping[str, Any], reported: float | None) -> float | None:
        """Append the number to the progress file if there is a new one."""
        try:
            value = read("progress", {**reader, "tail": TAIL_BYTES}, self._folder)
        except ReadError:  # not yet
            return reported
        if value != reported:
            with open(self._evaluation["progress"], "a") as file:
                file.write(json.dumps({"progress": value}) + "\n")
        return value

    def _call(self, words: Sequence[str]) -> int:
        """Exit code of a command before or after the program; what it prints is appended to the program's."""
        command = [render(word, self._evaluation["values"]) for word in words]
        with self._streams("ab") as (out, err):
            try:
                return subprocess.call(command, cwd=self._folder, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
            except OSError as error:
                err.write(f"{described(error)}\n".encode())
                return 127

    @contextlib.contextmanager
    def _streams(self, mode: str) -> Any:
        with (
            open(self._folder / STREAMS["stdout"], mode) as out,
            open(self._folder / STREAMS["stderr"], mode) as err,
        ):
            yield out, err

    def _last_line(self) -> str:
        for stream in ("stderr", "stdout"):
            with contextlib.suppress(OSError, RlctlError):
                if lines := text_of(stream, self._folder, TAIL_BYTES).strip().splitlines():
                    return f": {one_line(lines[-1])}"
        return ""


def fill_folder(program: Mapping[str, Any], values: Mapping[str, Any], folder: Path) -> None:
    """Make the folder of an evaluation anew, with what the program finds there.

    Raises:
        OSError: a file cannot be copied or written.
        ConfigError: a placeholder of a template cannot be replaced.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for source in program["copy"]:
        path = Path(source)
        if path.is_dir():
            shutil.copytree(path, folder / path.name)
        else:
            shutil.copy2(path, folder / path.name)
    for source in program["link"]:
        (folder / Path(source).name).symlink_to(source)
    first, last = program["delimiters"]
    for name, text in program["templates"].items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(render(text, values, (first, last)))


@contextlib.contextmanager
def _patient() -> Any:
    """Survive a request to stop, which the program gets as well: its exit is what counts, e.g. after a checkpoint."""
    handlers = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


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
    sys.path.insert(0, description["here"])  # for functions that read results
    try:
        return EvaluationRun(description, json.loads(evaluation), command).run()
    except (OSError, RlctlError) as error:
        print(f"exit: {one_line(described(error) if isinstance(error, OSError) else str(error))}", file=sys.stderr)
        return EXIT_CODES["exit"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
