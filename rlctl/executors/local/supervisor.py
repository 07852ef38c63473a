"""A small resident process that starts programs, reaps them, and outlives its controller for the length of a lease.

Programs are its children, so it learns how they end whatever becomes of the controller, and what they leave behind is
reparented to it (it is a subreaper, where the system has such a thing), so nothing gets away. It keeps walltimes and
limits too. When the controller dies it goes on: a later controller connects to the socket in its scratch folder,
learns what runs and what has ended, and takes over. If none comes within the lease it stops what still runs. Outcomes
that were not acknowledged are kept in exit files, written whole and through to the device; see ``pid_file``.

Nothing but the standard library is imported here, so that it starts quickly.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import selectors
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from rlctl.executors.local.controller_link import ControllerLink
from rlctl.executors.local.forked_module import fork_module
from rlctl.executors.local.pid_file import TASK, PidFile, exit_file, mark, remove_folders, write_through
from rlctl.executors.local.processes import GRACE_S, capped, family, reap, send_signal, start_time
from rlctl.executors.local.supervised_program import SupervisedProgram, spawn

_POLL_S = 0.02
_LOOK_S = 0.2
"""How often limits of memory and output are looked at."""


class Supervisor:
    """See the module."""

    def __init__(self, token: str, scratch: Path, exits: Path, pid_file: int, replacement: bool) -> None:
        self._token = token
        self._replacement = replacement  # of one that was killed: only its controller knows what runs, and tells first
        self._strangers = False  # whether that controller died before it could tell
        self._scratch = scratch
        self._exits = exits
        self._pid_file = pid_file
        self._programs: dict[str, SupervisedProgram] = {}
        self._by_pid: dict[int, SupervisedProgram] = {}
        self._watched: dict[int, tuple[int, int]] = {}  # workers, which die with their controller, by what signal
        self._selector = selectors.DefaultSelector()
        self._link = ControllerLink(self._selector, token, self._refusal, self._welcome, self._obey, self._abandoned)
        self._environment: dict[str, str] = {}
        self._lease_s = 0.0
        self._gone_at: float | None = None  # since when there is no controller
        self._over = False
        self._looked_at = 0.0

    def run(self, first: socket.socket) -> None:
        """Serve until everything has ended."""
        self._write_pid_file()  # first: should it be killed, the next one removes what is made from here on
        self._scratch.mkdir(mode=0o700, exist_ok=True)
        self._link.listen(self._scratch / "socket")
        woken, waker = os.pipe()
        os.set_blocking(woken, False)
        os.set_blocking(waker, False)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        self._selector.register(woken, selectors.EVENT_READ, lambda _: os.read(woken, 4096))
        self._link.connect(first)
        while not (self._over and not any(e.ended is None for e in self._programs.values())):
            for key, mask in self._selector.select(self._timeout()):
                key.data(mask)
            self._reap()
            self._look()
        for program in self._programs.values():
            self._keep(program)
        if self._strangers:
            reap([], mark(self._token), GRACE_S)
        self._link.finish()
        remove_folders(self._scratch)

    # The controller; see ``ControllerLink``.

    def _refusal(self, hello: Mapping[str, Any]) -> str | None:
        if self._over or (self._replacement and hello["adopt"] is None):
            return "it stops what has been left behind"
        return None

    def _welcome(self, hello: Mapping[str, Any]) -> None:
        """Serve a controller; its hello tells what a supervisor has run that was killed."""
        self._lease_s, self._environment = hello["lease_s"], hello["environment"]
        gone_s = None if self._gone_at is None else time.monotonic() - self._gone_at
        self._gone_at = None
        self._write_pid_file()
        self._link.say(event="welcome", tasks=[e.known() for e in self._programs.values()], gone_s=gone_s)
        if self._replacement:
            self._replacement = False
            for key, about in hello["adopt"].items():
                self._adopt(key, **about)

    def _abandoned(self, before_hello: bool) -> None:
        """Go on without a controller."""
        self._gone_at = time.monotonic()
        if before_hello:
            self._strangers = self._replacement
            return
        self._write_pid_file()
        for sid, (began, number) in self._watched.items():
            if start_time(sid) in (began, 0):
                send_signal([sid] if number == signal.SIGTERM else family([sid]), number)
        self._watched.clear()
        for program in self._programs.values():
            self._keep(program)

    def _obey(self, do: str, message: dict[str, Any]) -> None:
        try:
            self._OPERATIONS[do](self, **message)
        except Exception as error:
            if do != "run" or message["key"] in self._programs:
                raise
            self._link.say(event="failed", key=message["key"], error=f"{type(error).__name__}: {error}")

    # What a controller can ask for.

    def _run(
        self,
        key: str,
        command: list[str],
        environment: dict[str, str],
        outputs: list[str],
        cores: list[int] | None,
        forked: bool = False,
        **limits: Any,
    ) -> None:
        full = {**self._environment, **environment, TASK: f"{self._token}:{key}"}
        try:
            pid = (fork_module if forked else spawn)(command, full, outputs, cores)
        except (OSError, ValueError) as error:
            self._link.say(event="failed", key=key, error=str(error))
            return
        program = SupervisedProgram(key, pid, start_time(pid), mark(self._token, key), tuple(outputs))
        self._programs[key] = self._by_pid[pid] = program
        self._write_pid_file()
        self._link.say(event="started", key=key, pid=pid, start=program.began)
        program.limit(**limits)  # the walltime as the controller counts it, from the message on

    def _adopt(self, key: str, pid: int, start: int, **limits: Any) -> None:
        """A program of a supervisor that has died: no child of this one, so its exit code will not be known."""
        program = SupervisedProgram(key, pid, start, mark(self._token, key))
        program.limit(**limits)
        self._programs[key] = program
        self._write_pid_file()
        try:
            program.pidfd = os.pidfd_open(pid) if pid > 0 and start_time(pid) == start else None
        except OSError:
            program.pidfd = None
        if program.pidfd is None:
            self._settle(program)
        else:
            self._selector.register(program.pidfd, selectors.EVENT_READ, lambda _: self._adopted_ended(program))

    def _adopted_ended(self, program: SupervisedProgram) -> None:
        assert program.pidfd is not None
        self._selector.unregister(program.pidfd)
        os.close(program.pidfd)
        program.pidfd = None
        self._settle(program)

    def _stop(self, key: str, grace_s: float) -> None:
        program = self._programs.get(key)
        if program is not None and program.ended is None and not program.settling:
            program.stop("stopped", grace_s)

    def _signal(self, key: str, number: int) -> None:
        program = self._programs.get(key)
        if program is not None and program.ended is None:
            program.signal(number)

    def _acknowledge(self, key: str, keep: bool = False) -> None:
        program = self._programs.pop(key, None)
        if program is not None and program.kept and not keep:
            (self._exits / exit_file(key)).unlink(missing_ok=True)

    def _watch(self, pid: int, number: int = signal.SIGKILL) -> None:
        self._watched[pid] = (start_time(pid), number)

    def _unwatch(self, pid: int) -> None:
        self._watched.pop(pid, None)

    def _bye(self, keep: bool) -> None:
        """Stop everything; keep nothing but what the controller could not record, if it asks for that."""
        self._lease_over()
        if keep:
            return
        for program in list(self._programs.values()):
            if program.ended is not None:
                self._acknowledge(program.key)

    _OPERATIONS: ClassVar[dict[str, Callable[..., None]]] = {
        "run": _run,
        "stop": _stop,
        "signal": _signal,
        "acknowledge": _acknowledge,
        "watch": _watch,
        "unwatch": _unwatch,
        "bye": _bye,
    }

    # What happens by itself.

    def _timeout(self) -> float | None:
        now = time.monotonic()
        due = float("inf")
        for program in self._programs.values():
            if program.ended is not None:
                continue
            if program.settling or now >= program.kill_at:
                due = min(due, now + _POLL_S)
            due = min(due, program.stop_at if program.why is None else program.kill_at)
            if program.memory_mb is not None or program.output_mb is not None:
                due = min(due, self._looked_at + _LOOK_S)
        if self._gone_at is not None and not self._over:
            due = min(due, self._gone_at + self._lease_s)
        return capped(None if due == float("inf") else max(0.0, due - now))

    def _reap(self) -> None:
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            program = self._by_pid.pop(pid, None)
            if program is not None:
                program.code = os.waitstatus_to_exitcode(status)
                program.usage = {"cpu_s": usage.ru_utime + usage.ru_stime, "peak_mb": usage.ru_maxrss / 1024}
                self._settle(program)

    def _settle(self, program: SupervisedProgram) -> None:
        """Its first process has ended: report its end when nothing is left of it."""
        if program.settle(self._by_pid):
            if self._link.connected:
                self._link.say(**program.ended or {})
            else:
                self._keep(program)

    def _look(self) -> None:
        """Enforce walltimes, limits, grace periods and the lease."""
        now = time.monotonic()
        look = now - self._looked_at >= _LOOK_S
        if look:
            self._looked_at = now
        for program in list(self._programs.values()):
            if program.ended is not None:
                continue
            if program.settling:
                self._settle(program)
            elif now >= program.kill_at:
                program.kill()
            elif program.why is None and now >= program.stop_at:
                program.stop("walltime", GRACE_S)
            elif look and program.why is None:
                program.check_limits()
        if self._gone_at is None or self._over:
            return
        if not any(e.ended is None for e in self._programs.values()):
            self._over = True  # how they ended is in files
        elif now - self._gone_at >= self._lease_s:
            self._lease_over()

    def _lease_over(self) -> None:
        self._over = True
        for program in self._programs.values():
            if program.settling:  # the controller may have given what its first process has left more time
                program.kill_at = min(program.kill_at, time.monotonic() + GRACE_S)
            elif program.ended is None:
                program.stop("stopped", GRACE_S)

    # What stays.

    def _keep(self, program: SupervisedProgram) -> None:
        """Write how the program ended into a file, since the controller may not have recorded the message."""
        if program.ended is None:
            return
        program.kept = True
        path = self._exits / exit_file(program.key)
        gone_s = 0.0 if self._gone_at is None else time.monotonic() - self._gone_at
        with contextlib.suppress(OSError):  # a full disk: then it will be run again
            self._exits.mkdir(exist_ok=True)
            write_through(path, json.dumps({**program.ended, "gone_s": gone_s}).encode())

    def _write_pid_file(self) -> None:
        """Write the pid file, for a controller that finds this process dead, and for ``unattended``."""
        alive = {e.pid: e.began for e in self._programs.values() if e.ended is None and e.pid > 0}
        ends_s = None if self._gone_at is None else self._gone_at + self._lease_s
        PidFile(self._token, alive, ends_s).write(self._pid_file)


def _become_subreaper() -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


def _write_down(*error: Any) -> None:
    """Write the traceback of a bug into two files: standard error is one of the controller's, which may have gone."""
    text = "".join(traceback.format_exception(*error))
    with contextlib.suppress(OSError):
        sys.stderr.write(text)
    Path("supervisor.err").write_text(text)


def main() -> None:
    """Run with arguments of ``supervisor_client``: token, two folders, numbers of two open files, and its kind."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    token, scratch, exits, connection, pid_file, kind = sys.argv[1:]
    sys.excepthook = _write_down
    for handle in (int(connection), int(pid_file)):
        os.set_inheritable(handle, False)  # programs must not hold them
    _become_subreaper()
    supervisor = Supervisor(token, Path(scratch), Path.cwd() / exits, int(pid_file), kind == "replacement")
    supervisor.run(socket.socket(fileno=int(connection)))


if __name__ == "__main__":
    main()
