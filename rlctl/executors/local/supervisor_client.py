"""The controller's end of a supervisor: starts one, or takes over what a controller that has died has left."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from rlctl.core.errors import LaunchError
from rlctl.executors.local import pid_file as pid_files
from rlctl.executors.local.pid_file import EXITS, LOCK, TASK, PidFile, exit_file, of_pool
from rlctl.executors.local.processes import GRACE_S, signal_name
from rlctl.executors.naming import scratch_folder

_PATIENCE_S = GRACE_S + 8.0


@dataclass(slots=True)
class LeftAttempts:
    """Attempts of a former controller, by key: process number and start time, or the message about the end.

    Attributes:
        gone_s: for how long they ran without a controller.
    """

    running: dict[str, tuple[int, int]] = field(default_factory=dict)
    ended: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    gone_s: float = 0.0


class SupervisorClient:
    """A connection to a supervisor. Sending needs a lock of the caller's; so does receiving.

    Attributes:
        token: what every process under it has in its environment, in the variable ``TASK``.
        scratch: folder in shared memory for short-lived files; the supervisor removes it at its end.
    """

    def __init__(
        self,
        workdir: Path,
        environment: Mapping[str, str],
        incarnation: int = 0,
        lease_s: float = 0.0,
        pid_file: Path | None = None,
        name: str = "",
    ) -> None:
        """Connect.

        Args:
            environment: of every program.
            pid_file: of the supervisor; None: the one of this folder, whose exit files belong to it too.
            name: of the pool, where several work in this folder.

        Raises:
            LaunchError: another controller works in this folder.
        """
        self._workdir = workdir
        self._alone = pid_file is None
        self._pid_file = pid_file or workdir / of_pool(LOCK, name)
        self._exits = workdir / of_pool(EXITS, name)
        self._hello = {"epoch": incarnation, "lease_s": lease_s, "environment": dict(environment)}
        self._input, self._output = bytearray(), bytearray()
        self._sending = threading.RLock()  # tasks start and end in different threads
        self._messages: list[dict[str, Any]] = []
        self._found: set[str] = set()  # keys of exit files
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None  # what the supervisor says before it dies
        self.left = LeftAttempts()
        workdir.mkdir(parents=True, exist_ok=True)
        self._connect()
        if self._alone:  # otherwise the files of others are there too
            self._read_exits()

    def fileno(self) -> int:
        """Number of the open socket, for selectors."""
        return self._socket.fileno()

    def send(self, do: str, **message: Any) -> None:
        """Ask for something; ``receive`` returns what comes of it, and notices a supervisor that has died."""
        self._later(do, **message)
        self.flush()

    def flush(self) -> None:
        """Send what waits for the next message."""
        with self._sending:
            output, self._output = self._output, bytearray()
            if output:
                with contextlib.suppress(OSError):  # also of a connection that is closed
                    self._socket.sendall(output)

    def receive(self) -> list[dict[str, Any]] | None:
        """Messages that have come; None: the supervisor has died."""
        try:
            data = self._socket.recv(1 << 16, socket.MSG_DONTWAIT)
        except BlockingIOError:
            data = None
        except OSError:
            data = b""
        if data == b"":
            return None
        self._input += data or b""
        *lines, rest = self._input.split(b"\n")
        self._input = rest
        messages, self._messages = self._messages, []
        return messages + [json.loads(line) for line in lines]

    def cause_of_death(self) -> str:
        """Why the supervisor has died, as far as is known."""
        lines: list[str] = []
        with contextlib.suppress(OSError):
            if self._errors is not None:
                self._errors.seek(0)
                lines = self._errors.read().decode(errors="replace").strip().splitlines()
        if lines:  # the fatal errors of Python itself have further lines
            return ([line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)] or lines)[-1].strip()
        code = None if self._process is None else self._process.wait()
        if code is not None and code < 0:
            return f"killed by {signal_name(-code)}"
        return "nothing tells why" if code is None else f"it has ended with code {code}"

    def replace(self, running: Mapping[str, Mapping[str, Any]]) -> None:
        """Start another supervisor in place of one that was killed; it adopts what runs: number, start, limits."""
        self._socket.close()
        if self._process is not None:
            self._process.wait()
        self._input.clear()
        end = time.monotonic() + _PATIENCE_S
        while (lock := self._lock(end)) is None:
            pass
        self._start(lock, self.token, running)

    def close(self, keep: bool = False) -> None:
        """Stop whatever is left and wait until it is gone; may be called twice.

        With ``keep``, ends that have not been acknowledged stay in files, for a later controller.
        """
        if self._socket.fileno() < 0:
            return
        self.send("bye", keep=keep)
        self._socket.settimeout(GRACE_S + 10.0)
        with contextlib.suppress(OSError):
            while self._socket.recv(1 << 16):
                pass
        self._socket.close()
        if self._process is not None:
            self._process.wait()
        if self._errors is not None:
            self._errors.close()
        pid_files.remove_folders(self.scratch)
        if self._alone:
            pid_files.remove_incomplete(self._exits)
        else:
            self._pid_file.unlink(missing_ok=True)

    def _later(self, do: str, **message: Any) -> None:
        with self._sending:
            self._output += json.dumps({"do": do, **message}).encode() + b"\n"

    def _connect(self) -> None:
        end = time.monotonic() + _PATIENCE_S
        while not self._take_over():
            if (lock := self._lock(end)) is not None:
                pid_files.clear(self._pid_file)
                self._start(lock, uuid.uuid4().hex)
                return

    def _lock(self, end: float) -> int | None:
        """Lock the pid file, or wait a moment; raises LaunchError at the end of patience."""
        lock = pid_files.try_lock(self._pid_file)
        if lock is None:
            if time.monotonic() > end:
                raise LaunchError(
                    f"{self._workdir}: another controller works here, or its processes are still being stopped: "
                    "stop it, or wait a moment and try again"
                )
            time.sleep(0.02)
        return lock

    def _take_over(self) -> bool:
        """Connect to a supervisor that lives and has no controller; False if there is none, or it is about to end."""
        found = PidFile.read(self._pid_file)
        if found is None:
            return False
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(10.0)
        try:
            connection.connect(str(scratch_folder(found.token) / "socket"))
            self._begin(connection, found.token)
        except OSError:
            connection.close()
            return False
        welcome = self._messages.pop(0)
        if welcome["event"] == "refused":
            connection.close()
            if "another controller" in welcome["why"]:
                raise LaunchError(f"{self._workdir}: another controller works here: stop it first")
            return False
        for task in welcome["tasks"]:
            if task["ended"] is None:
                self.left.running[task["key"]] = (task["pid"], task["start"])
            else:
                self.left.ended[task["key"]] = task["ended"]
        self.left.gone_s = welcome["gone_s"] or 0.0
        return True

    def _start(self, lock: int, token: str, running: Mapping[str, Any] | None = None) -> None:
        with contextlib.suppress(OSError):
            # Not a pipe: what has the other end of one would end with this process.
            self._errors = tempfile.TemporaryFile(prefix="rlctl-")  # noqa: SIM115
        ours, theirs = socket.socketpair()
        program = [sys.executable, "-P", "-m", "rlctl.executors.local.supervisor"]
        command = [*program, token, str(scratch_folder(token)), self._exits.name]
        # It must not be found by the mark of a surrounding task.
        environment = {name: value for name, value in os.environ.items() if name != TASK}
        try:
            self._process = subprocess.Popen(
                [*command, str(theirs.fileno()), str(lock), "first" if running is None else "replacement"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._errors or subprocess.DEVNULL,
                start_new_session=True,
                cwd=self._workdir,
                pass_fds=(theirs.fileno(), lock),
                env=environment,
            )
        finally:
            theirs.close()
            os.close(lock)  # the supervisor's copy keeps the lock
        self._begin(ours, token, running, wait=False)

    def _begin(
        self, connection: socket.socket, token: str, running: Mapping[str, Any] | None = None, wait: bool = True
    ) -> None:
        self._socket, self.token, self.scratch = connection, token, scratch_folder(token)
        hello = {**self._hello, "token": token, "adopt": running}
        with contextlib.suppress(OSError):  # it has died already, which ``receive`` notices
            connection.sendall(json.dumps(hello).encode() + b"\n")
        if not wait:
            connection.settimeout(None)
            return
        while b"\n" not in self._input:
            data = connection.recv(1 << 16)
            if not data:
                raise OSError("it has ended")
            self._input += data
        line, _, self._input = self._input.partition(b"\n")
        self._messages.append(json.loads(line))
        connection.settimeout(None)

    def _read_exits(self) -> None:
        for path in sorted(self._exits.glob("*.json")):
            with contextlib.suppress(OSError, ValueError, KeyError):
                ended = json.loads(path.read_bytes())
                self._found.add(ended["key"])
                if ended["key"] not in self.left.ended:
                    self.left.ended[ended["key"]] = ended
                    self.left.gone_s = max(self.left.gone_s, ended["gone_s"])

    def leave_exit(self, key: str) -> None:
        """How this attempt ended is in its file, which stays."""
        self.send("acknowledge", key=key, keep=True)

    def forget_exit(self, key: str) -> None:
        """The end of this attempt is recorded; the supervisor learns it with the next message, or by ``flush``."""
        self._later("acknowledge", key=key)
        if key in self._found:  # otherwise it is the supervisor's, if there is one
            (self._exits / exit_file(key)).unlink(missing_ok=True)
