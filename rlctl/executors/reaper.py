"""The lease: no process of a task outlives its controller by more than ``LEASE_S`` and a moment.

Each task runs in a session of its own. A small resident process, the reaper, holds the reading end of a pipe on which
the executor tells it ``+SESSION STARTTIME`` and ``-SESSION``. Only the controller holds the writing end, so the end of
the stream means that the controller is gone, even by ``kill -9``. Then the reaper sends SIGTERM to every process of
the sessions that are left, SIGKILL after ``LEASE_S`` seconds, until none is alive; it removes the tasks' scratch folder
and ends. On Linux it also finds processes by a variable that all tasks inherit, so that one that was not yet told, or
that left its session, does not get away.

While the reaper lives it holds a lock on the working folder: a resumed campaign cannot start before the processes of
its predecessor are gone. If the reaper was killed as well (a batch system that ends a whole job kills it with the
rest), nobody stops what outlived both; so the lock's file says what was held, and the next controller in that folder
stops it before it begins. Nothing but the standard library is imported here, so that it starts quickly.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

from rlctl.errors import LaunchError

LEASE_S = 2.0
"""Seconds between SIGTERM and SIGKILL when the controller has died."""

TOKEN = "RLCTL_LEASE"
"""Variable in the environment of every task, with a value of its own for each executor."""

_LOCK = ".lease"
_PROC = Path("/proc")


def start_time(pid: int) -> int:
    """When a process started, in clock ticks since boot; with the pid it names a process uniquely. 0 if unknown."""
    fields = _stat(pid)
    return int(fields[19]) if fields else 0


def session_processes(sid: int) -> list[int]:
    """Living processes of a session; zombies do not count. Without /proc: the session itself, if anything lives."""
    if not _PROC.is_dir():
        try:
            os.killpg(sid, 0)
        except (ProcessLookupError, PermissionError):  # macOS answers EPERM for a group of zombies
            return []
        return [-sid]
    return [pid for pid in _pids() if _session(pid) == sid and (fields := _stat(pid)) and fields[0] not in "ZX"]


def send_signal(pids: list[int], number: signal.Signals) -> None:
    """Signal processes; those that have gone meanwhile are ignored. A negative one means a process group."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


class Lease:
    """The executor's end of the pipe; starts the reaper.

    Attributes:
        token: what every task must have in its environment as ``TOKEN``.
        scratch: folder in shared memory for the tasks' short-lived files, made by who needs it, removed at the end.
    """

    def __init__(self, workdir: Path) -> None:
        """Start the reaper, as soon as that of a previous controller has ended.

        Raises:
            LaunchError: another executor works in this folder.
        """
        self.token = uuid.uuid4().hex
        # Made only when the reaper is there that removes it: a kill in between would leave it behind.
        self.scratch = _scratch(self.token)
        self._held: dict[int, int] = {}
        self._workdir = workdir
        lock = _take_lock(workdir)
        _clear(workdir / _LOCK)
        self._note()
        self._reaper = self._start(lock)

    def hold(self, sid: int, started: int) -> None:
        """A session began."""
        self._held[sid] = started
        self._note()
        self._say(f"+{sid} {started}\n")

    def release(self, sid: int) -> None:
        """A session has ended, all of it."""
        if self._held.pop(sid, None) is not None:
            self._note()
            self._say(f"-{sid}\n")

    def renew(self) -> None:
        """Replace a reaper that somebody killed: without one there is no lease."""
        if self._reaper.poll() is None:
            return
        assert self._reaper.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._reaper.stdin.close()
        self._reaper = self._start(_take_lock(self._workdir))
        assert self._reaper.stdin is not None
        self._reaper.stdin.write("".join(f"+{s} {t}\n" for s, t in self._held.items()).encode())

    def close(self) -> None:
        """Stop whatever is left and wait until it is gone; may be called twice."""
        if self._reaper.stdin is not None and not self._reaper.stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                self._reaper.stdin.close()
        self._reaper.wait()
        shutil.rmtree(self.scratch, ignore_errors=True)

    def _start(self, lock: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "rlctl.executors.reaper", self.token, str(self.scratch)]
        # It must not find itself by the token of a surrounding task.
        environment = {name: value for name, value in os.environ.items() if name != TOKEN}
        try:
            return subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                bufsize=0,
                start_new_session=True,
                pass_fds=(lock,),
                env=environment,
            )
        finally:
            os.close(lock)  # the reaper's copy keeps the lock

    def _say(self, line: str) -> None:
        assert self._reaper.stdin is not None
        try:
            self._reaper.stdin.write(line.encode())
        except BrokenPipeError:
            self._reaper.wait()
            self.renew()

    def _note(self) -> None:
        """For the next controller, in case that the reaper dies with this one: what ``_clear`` reads."""
        text = f"{self.token} {_boot()}\n" + "".join(f"+{sid} {started}\n" for sid, started in self._held.items())
        with contextlib.suppress(OSError):  # a full disk: there is still the reaper
            _write(self._workdir / _LOCK, text.encode())


def reap(sessions: dict[int, int], token: str) -> None:
    """Stop all processes of the sessions and all that carry the token; returns when none is alive."""
    began = time.monotonic()
    pause_s = 0.02
    terminated: set[int] = set()
    while alive := _leftovers(sessions, token):
        if time.monotonic() - began < LEASE_S:
            send_signal([pid for pid in alive if pid not in terminated], signal.SIGTERM)
            terminated.update(alive)
        else:
            send_signal(alive, signal.SIGKILL)
            pause_s = min(2 * pause_s, 1.0)
        time.sleep(pause_s)


def _clear(note: Path) -> None:
    """Stop what a controller and its reaper, both dead, have left on this machine, and remove its scratch folder."""
    first, *lines = note.read_text().splitlines() or [""]
    token, _, boot = first.partition(" ")
    if re.fullmatch("[0-9a-f]{32}", token) is None or boot != _boot():
        return
    held = [line[1:].split() for line in lines if re.fullmatch(r"\+\d+ \d+", line)]
    sessions = {int(sid): int(started) for sid, started in held}
    # The note may be old: a number whose first process has gone may be a stranger's by now; the token finds the rest.
    reap({sid: started for sid, started in sessions.items() if started and start_time(sid) == started}, token)
    shutil.rmtree(_scratch(token), ignore_errors=True)


def _scratch(token: str) -> Path:
    shared = Path("/dev/shm")
    return (shared if os.access(shared, os.W_OK) else Path(tempfile.gettempdir())) / f"rlctl-{token}"


def _boot() -> str:
    """This life of this machine; process numbers and shared memory end with it."""
    boot = _PROC / "sys/kernel/random/boot_id"
    return f"{platform.node()} {boot.read_text().strip() if boot.exists() else ''}"


def _write(note: Path, text: bytes) -> None:
    """In place, since the file is the lock; a kill in between leaves at worst a session too many, which has ended."""
    handle = os.open(note, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.pwrite(handle, text, 0)
        os.ftruncate(handle, len(text))
    finally:
        os.close(handle)


def _leftovers(sessions: dict[int, int], token: str) -> list[int]:
    found: list[int] = []
    for sid, started in sessions.items():
        now = start_time(sid)
        if not (now and started and now != started):  # otherwise the number belongs to a stranger by now
            found += session_processes(sid)
    mark = f"{TOKEN}={token}".encode()
    for pid in _pids():
        with contextlib.suppress(OSError):
            if pid not in found and mark in (_PROC / str(pid) / "environ").read_bytes().split(b"\0"):
                found.append(pid)
    return [pid for pid in found if pid != os.getpid()]


def _pids() -> list[int]:
    return [int(name) for name in os.listdir(_PROC) if name.isdigit()] if _PROC.is_dir() else []


def _session(pid: int) -> int:
    """A system call each, which is ten times cheaper than reading /proc/PID/stat."""
    try:
        return os.getsid(pid)
    except (ProcessLookupError, PermissionError):
        return 0


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the state on (state, parent, group, session ...); empty if it has gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].decode().split()  # the name before may hold spaces
    except OSError:
        return []


def _take_lock(workdir: Path) -> int:
    """Lock the folder; waits for the reaper of a controller that has just died."""
    workdir.mkdir(parents=True, exist_ok=True)
    lock = os.open(workdir / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    end = time.monotonic() + LEASE_S + 5.0
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except OSError as error:
            if time.monotonic() > end:
                os.close(lock)
                raise LaunchError(
                    f"{workdir}: another controller works here, or its processes are still being stopped: "
                    "stop it, or wait a moment and try again"
                ) from error
            time.sleep(0.05)


def main() -> None:
    """Listen until the controller is gone, then stop what it left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    token, scratch = sys.argv[1:]
    sessions: dict[int, int] = {}
    for line in sys.stdin:
        if not line.endswith("\n"):
            break  # the controller died while it wrote: the token finds that session
        if line.startswith("+"):
            sid, started = line[1:].split()
            sessions[int(sid)] = int(started)
        else:
            sessions.pop(int(line[1:]), None)
    reap(sessions, token)
    shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main()
