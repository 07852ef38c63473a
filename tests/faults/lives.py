"""Lives of rlctl that can be ended at an exact point: a small server that forks one real process for each.

Everything costly is imported once, so that hundreds of lives take minutes. A life is a forked process that runs
``rlctl.__main__.main`` with real arguments; it can be killed from outside like any other. Each thing that it does to
the world (a record, a rename, a file opened for writing, a folder, a process started ...) is counted through Python's
audit hooks; asked to, the life sends itself a signal right before the n-th, or right after it where that is another
moment.

One line of JSON per life on standard input: ``arguments``, ``cwd``, ``log`` (where folders that it makes under the
system's temporary folders, and its number of effects, are noted), ``output`` and ``errors`` (files), and ``point`` and
``signal``, or null. Two lines come back: its process number, and its exit code in the manner of ``subprocess``.
"""

import atexit
import gc
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

EFFECTS = {
    "fcntl.flock",
    "os.kill",
    "os.mkdir",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.truncate",
    "shutil.rmtree",
    "sqlite3.connect",
    "subprocess.Popen",
    "tempfile.mkdtemp",
}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class Effects:
    """Counts what this process does to the world, and ends it at the point that was asked for."""

    def __init__(self, log: str, point: int | None, number: int) -> None:
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._point = point
        self._signal = number
        self._count = 0
        self._busy = False

    def install(self) -> None:
        """From now on."""
        from rlctl.executors.event_log import Journal

        sys.addaudithook(self._heard)
        self._wrap(Journal, "append", before=True)
        self._wrap(subprocess.Popen, "__init__", before=False)
        atexit.register(lambda: self._note(f"effects {self._count}"))

    def _heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "tempfile.mkdtemp":
            self._note(f"folder {arguments[0]}")
        if event in EFFECTS or (event == "open" and self._writes(*arguments)):
            self._tick(event)

    def _writes(self, path: object, mode: object, flags: int) -> bool:
        return bool(flags & WRITES) and "__pycache__" not in str(path)

    def _wrap(self, owner: Any, name: str, before: bool) -> None:
        plain: Callable[..., Any] = getattr(owner, name)

        def wrapped(*arguments: Any, **named: Any) -> Any:
            if before:
                self._tick(f"before {name}")
            result = plain(*arguments, **named)
            self._tick(f"after {name}")
            return result

        setattr(owner, name, wrapped)

    def _tick(self, what: str) -> None:
        if self._busy:
            return
        self._count += 1
        if self._count == self._point:
            self._busy = True
            self._note(f"point {self._count} {what}")
            os.kill(os.getpid(), self._signal)
            self._busy = False

    def _note(self, line: str) -> None:
        os.write(self._log, f"{line}\n".encode())


def serve() -> None:
    """Fork a life for each line; returns only in the lives, with their arguments in ``sys.argv``."""
    for line in sys.stdin:
        asked = json.loads(line)
        pid = os.fork()
        if pid == 0:
            break
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
    else:
        sys.exit()
    os.chdir(asked["cwd"])
    for number, path, flags in [
        (0, os.devnull, os.O_RDONLY),
        (1, asked["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
        (2, asked["errors"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
    ]:
        opened = os.open(path, flags, 0o644)
        os.dup2(opened, number)
        os.close(opened)
    Effects(asked["log"], asked["point"], asked["signal"]).install()
    sys.argv = ["rlctl", *asked["arguments"]]


if __name__ == "__main__":
    for module in sys.argv[1:]:
        importlib.import_module(module)
    from rlctl.__main__ import main

    gc.freeze()  # a fork that looks for garbage among all this would copy its memory
    serve()
    main()
