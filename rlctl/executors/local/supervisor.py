"""A small resident process that starts programs, reaps them, and outlives its controller for the length of a lease.

Programs are its children, so it learns how they end whatever becomes of the controller, and what they leave behind is
reparented to it (it is a subreaper, where the system has such a thing), so nothing gets away. Walltimes and limits are
its business too. When the controller dies it goes on: a later controller connects to the socket in its scratch folder,
is told what runs and what has ended, and takes over. If none comes within the lease it stops what still runs. Endings
that nobody has acknowledged are kept in files ``UID.ATTEMPT.json``, in ``exits`` or the folder of its pool, written
whole and through to the device.

While it lives it holds a lock on the working folder, and the lock's file tells where it is and what runs, for a
controller that finds it dead. One line of JSON per message; see ``_OPERATIONS`` and ``_say``. Nothing but the standard
library is imported here, so that it starts quickly.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import selectors
import shutil
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from rlctl.executors.local.processes import (
    GRACE_S,
    ask_to_end,
    boot,
    capped,
    children,
    family,
    reap,
    resident_mb,
    send_signal,
    signal_name,
    start_time,
)
from rlctl.executors.naming import file_name, spare

TASK = "RLCTL_TASK"
"""Variable in the environment of every program: token and key."""

EXITS = "exits"
LAUNCHER_S = 15.0
"""How long a launcher that was told to end its program on other machines may take until it is killed itself."""

AGAIN_S = 0.5
"""It is told so often: the word is lost at times while it starts."""

_POLL_S = 0.02
_LOOK_S = 0.2
"""How often limits of memory and output are looked at."""


@dataclass(slots=True)
class Exec:
    """A program that was started and has not been acknowledged as ended."""

    key: str
    pid: int
    began: int  # start time of the process
    mark: bytes  # what its processes have in their environment
    outputs: tuple[str, ...] = ()
    stop_at: float = float("inf")
    memory_mb: float | None = None
    output_mb: float | None = None
    control: list[str] | None = None  # command that signals a program on other machines; names of signals follow
    told_at: float = float("inf")  # when its launcher was first told to end it
    again_at: float = 0.0
    why: str | None = None  # "stopped", "walltime", "memory", "output"
    kill_at: float = float("inf")
    settling: bool = False  # its first process has ended
    code: int | None = None
    usage: dict[str, float] = field(default_factory=dict)
    pidfd: int | None = None  # of one that is not our child
    ended: dict[str, Any] | None = None  # the message about its end

    def known(self) -> dict[str, Any]:
        """What a new controller is told."""
        return {"key": self.key, "pid": self.pid, "start": self.began, "ended": self.ended}


class Supervisor:
    """See the module."""

    def __init__(self, token: str, scratch: Path, exits: Path, note: int, replacement: bool) -> None:
        self._token = token
        self._replacement = replacement  # of one that was killed: only its controller knows what runs, and tells first
        self._strangers = False  # whether that controller died before it could tell
        self._scratch = scratch
        self._exits = exits
        self._note = note
        self._execs: dict[str, Exec] = {}
        self._by_pid: dict[int, Exec] = {}
        self._watched: dict[int, tuple[int, int]] = {}  # workers, which die with their controller, by what signal
        self._selector = selectors.DefaultSelector()
        self._controller: socket.socket | None = None
        self._input, self._output = bytearray(), bytearray()
        self._blocked = False  # whether some of the output waits to be sent
        self._environment: dict[str, str] = {}
        self._epoch = -1
        self._lease_s = 0.0
        self._gone_at: float | None = None  # since when there is no controller
        self._over = False
        self._looked_at = 0.0
        self._affinity = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None

    def run(self, first: socket.socket) -> None:
        """Serve until everything has ended."""
        self._scratch.mkdir(mode=0o700, exist_ok=True)
        (self._scratch / "socket").unlink(missing_ok=True)  # of a predecessor that was killed
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self._scratch / "socket"))
        listener.listen(4)
        listener.setblocking(False)
        woken, waker = os.pipe()
        os.set_blocking(woken, False)
        os.set_blocking(waker, False)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        self._selector.register(woken, selectors.EVENT_READ, lambda _: os.read(woken, 4096))
        self._selector.register(listener, selectors.EVENT_READ, lambda _: self._accept(listener))
        self._write_note()
        self._connect(first)
        while not (self._over and not any(e.ended is None for e in self._execs.values())):
            for key, mask in self._selector.select(self._timeout()):
                key.data(mask)
            self._reap()
            self._look()
        for exec_ in self._execs.values():
            self._keep(exec_)
        if self._strangers:
            reap([], f"{TASK}={self._token}:".encode(), GRACE_S)
        with contextlib.suppress(BlockingIOError, OSError):
            if self._controller is not None and self._output:
                self._controller.sendall(self._output)
        for folder in {self._scratch, spare(self._scratch)}:
            shutil.rmtree(folder, ignore_errors=True)

    # The controller.

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            self._connect(listener.accept()[0])

    def _connect(self, connection: socket.socket) -> None:
        """A candidate; it becomes the controller with its first message."""
        connection.setblocking(False)
        pending = bytearray()

        def read(mask: int) -> None:
            if connection is self._controller:
                self._serve(mask)
                return
            data = _receive(connection)
            if data is None:
                return
            pending.extend(data)
            if not data:
                self._selector.unregister(connection)
                connection.close()
                if self._epoch < 0:  # the controller died before its first word
                    self._gone_at = time.monotonic()
                    self._strangers = self._replacement
            elif b"\n" in pending:
                line, _, rest = bytes(pending).partition(b"\n")
                self._welcome(connection, json.loads(line), rest)

        self._selector.register(connection, selectors.EVENT_READ, read)

    def _welcome(self, connection: socket.socket, hello: Mapping[str, Any], rest: bytes) -> None:
        refused = None
        if hello.get("token") != self._token or self._over or (self._replacement and hello["adopt"] is None):
            refused = "it stops what has been left behind"
        elif hello["epoch"] < self._epoch or (hello["epoch"] == self._epoch and self._controller is not None):
            refused = "another controller works here"
        if refused is not None:
            with contextlib.suppress(OSError):
                connection.sendall(json.dumps({"event": "refused", "why": refused}).encode() + b"\n")
            self._selector.unregister(connection)
            connection.close()
            return
        if self._controller is not None:  # of an earlier epoch: it is not to do anything any more
            self._drop()
        self._controller, self._input, self._output = connection, bytearray(rest), bytearray()
        self._blocked = False
        self._epoch, self._lease_s = hello["epoch"], hello["lease_s"]
        self._environment = hello["environment"]
        gone_s = None if self._gone_at is None else time.monotonic() - self._gone_at
        self._gone_at = None
        self._write_note()
        self._say(event="welcome", tasks=[e.known() for e in self._execs.values()], gone_s=gone_s)
        if self._replacement:
            self._replacement = False
            for key, about in hello["adopt"].items():
                self._adopt(key, **about)
        self._obey()

    def _drop(self) -> None:
        assert self._controller is not None
        self._selector.unregister(self._controller)
        self._controller.close()
        self._controller = None

    def _serve(self, mask: int) -> None:
        assert self._controller is not None
        if mask & selectors.EVENT_WRITE:
            self._send()
        if not mask & selectors.EVENT_READ:
            return
        data = _receive(self._controller)
        if data is None:
            return
        if data:
            self._input.extend(data)
            self._obey()
            return
        self._drop()
        self._gone_at = time.monotonic()
        self._write_note()
        for sid, (began, number) in self._watched.items():
            if start_time(sid) in (began, 0):
                send_signal([sid] if number == signal.SIGTERM else family([sid]), number)
        self._watched.clear()
        for exec_ in self._execs.values():
            self._keep(exec_)

    def _obey(self) -> None:
        while (end := self._input.find(b"\n")) >= 0:
            message = json.loads(self._input[:end])
            del self._input[: end + 1]
            do = message.pop("do")
            try:
                self._OPERATIONS[do](self, **message)
            except Exception as error:
                if do != "run" or message["key"] in self._execs:
                    raise
                self._say(event="failed", key=message["key"], error=f"{type(error).__name__}: {error}")

    def _say(self, **message: Any) -> None:
        if self._controller is not None:
            self._output += json.dumps(message).encode() + b"\n"
            self._send()

    def _send(self) -> None:
        assert self._controller is not None
        with contextlib.suppress(BlockingIOError):
            try:
                while self._output:
                    del self._output[: self._controller.send(self._output)]
            except OSError as error:
                if isinstance(error, BlockingIOError):
                    raise
                self._output.clear()  # it has gone; reading will tell
        if bool(self._output) != self._blocked:  # tell when the rest can be sent, or no more
            self._blocked = bool(self._output)
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._blocked else 0)
            self._selector.modify(self._controller, events, self._selector.get_key(self._controller).data)

    # What a controller can ask for.

    def _run(
        self,
        key: str,
        command: list[str],
        environment: dict[str, str],
        outputs: tuple[str, str],
        cores: list[int] | None,
        walltime_s: float | None = None,
        memory_mb: float | None = None,
        output_mb: float | None = None,
        control: list[str] | None = None,
    ) -> None:
        mark = f"{self._token}:{key}"
        full = {**self._environment, **environment, TASK: mark}
        create = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
        files = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, outputs[0], create, 0o644),
            (os.POSIX_SPAWN_OPEN, 2, outputs[1], create, 0o644),
        ]
        try:
            if cores is not None and self._affinity is not None:
                os.sched_setaffinity(0, cores)  # a child inherits it, so it never runs elsewhere
            try:
                pid = os.posix_spawn(
                    command[0],
                    command,
                    full,
                    file_actions=files,
                    setsid=True,
                    setsigmask=[],
                    setsigdef=[signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGCHLD],
                )
            finally:
                if cores is not None and self._affinity is not None:
                    os.sched_setaffinity(0, self._affinity)
        except (OSError, ValueError) as error:
            self._say(event="failed", key=key, error=str(error))
            return
        sign = f"{TASK}={mark}\0".encode()
        exec_ = Exec(key, pid, start_time(pid), sign, tuple(outputs), float("inf"), memory_mb, output_mb, control)
        self._execs[key] = self._by_pid[pid] = exec_
        self._write_note()
        self._say(event="started", key=key, pid=pid, start=exec_.began)
        if walltime_s is not None:  # as the controller counts, from when it is told
            exec_.stop_at = time.monotonic() + walltime_s

    def _adopt(
        self,
        key: str,
        pid: int,
        start: int,
        walltime_s: float | None = None,
        memory_mb: float | None = None,
        output_mb: float | None = None,
        control: list[str] | None = None,
    ) -> None:
        """A program of a supervisor that has died: no child of ours, so its exit code will not be known."""
        stop_at = float("inf") if walltime_s is None else time.monotonic() + walltime_s
        sign = f"{TASK}={self._token}:{key}\0".encode()
        exec_ = Exec(key, pid, start, sign, (), stop_at, memory_mb, output_mb, control)
        self._execs[key] = exec_
        self._write_note()
        try:
            exec_.pidfd = os.pidfd_open(pid) if pid > 0 and start_time(pid) == start else None
        except OSError:
            exec_.pidfd = None
        if exec_.pidfd is None:
            self._settle(exec_)
        else:
            self._selector.register(exec_.pidfd, selectors.EVENT_READ, lambda _: self._adopted_ended(exec_))

    def _adopted_ended(self, exec_: Exec) -> None:
        assert exec_.pidfd is not None
        self._selector.unregister(exec_.pidfd)
        os.close(exec_.pidfd)
        exec_.pidfd = None
        self._settle(exec_)

    def _stop(self, key: str, grace_s: float) -> None:
        exec_ = self._execs.get(key)
        if exec_ is not None and exec_.ended is None and not exec_.settling:
            self._end(exec_, "stopped", grace_s)

    def _signal(self, key: str, number: int) -> None:
        exec_ = self._execs.get(key)
        if exec_ is not None and exec_.ended is None:
            self._tell(exec_, number)

    def _acknowledge(self, key: str, keep: bool = False) -> None:
        if self._execs.pop(key, None) is not None and not keep:
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
        for exec_ in list(self._execs.values()):
            if exec_.ended is not None:
                self._acknowledge(exec_.key)

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
        if self._output and self._controller is None:
            self._output.clear()
        now = time.monotonic()
        due = float("inf")
        for exec_ in self._execs.values():
            if exec_.ended is not None:
                continue
            if exec_.settling or now >= exec_.kill_at:
                due = min(due, now + _POLL_S)
            due = min(due, exec_.stop_at if exec_.why is None else exec_.kill_at)
            if exec_.memory_mb is not None or exec_.output_mb is not None:
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
            exec_ = self._by_pid.pop(pid, None)
            if exec_ is not None:
                exec_.code = os.waitstatus_to_exitcode(status)
                exec_.usage = {"cpu_s": usage.ru_utime + usage.ru_stime, "peak_mb": usage.ru_maxrss / 1024}
                self._settle(exec_)

    def _settle(self, exec_: Exec) -> None:
        """The first process has ended: has it left anything?"""
        exec_.settling = True
        alive = self._members(exec_)
        if alive:
            now = time.monotonic()
            if exec_.kill_at == float("inf"):
                exec_.kill_at = now + GRACE_S
                ask_to_end(alive)
            elif now >= exec_.kill_at:
                send_signal(alive, signal.SIGKILL)
            return
        exec_.ended = {
            "event": "ended",
            "key": exec_.key,
            "code": exec_.code,
            "why": exec_.why,
            "usage": exec_.usage,
        }
        if self._controller is not None:
            self._say(**exec_.ended)
        else:
            self._keep(exec_)

    def _members(self, exec_: Exec) -> list[int]:
        """Living processes of a program."""
        mine = children()
        if mine is None or (exec_.code is None and exec_.settling):  # not our child
            return _family(exec_)
        if exec_.settling and not (set(mine) - self._by_pid.keys()):
            return []
        return _family(exec_)

    def _end(self, exec_: Exec, why: str, grace_s: float) -> None:
        exec_.why = exec_.why or why
        exec_.kill_at = time.monotonic() + grace_s
        self._tell(exec_, signal.SIGTERM, signal.SIGCONT)  # a suspended one could not hear it

    def _tell(self, exec_: Exec, *numbers: int) -> None:
        """Signal all processes of a program, on other machines too."""
        if exec_.control is None:
            members = self._members(exec_)
            for number in numbers:
                if number == signal.SIGTERM:
                    ask_to_end(members)
                else:
                    send_signal(members, number)
            return
        named = [(signal_name(number).removeprefix("SIG"), number) for number in numbers]
        names = [name if name.isalnum() else str(number) for name, number in named]
        with contextlib.suppress(OSError):
            os.posix_spawn(exec_.control[0], [*exec_.control, *names], os.environ)

    def _kill(self, exec_: Exec) -> None:
        """End what did not end when it was told to; launchers end their programs when they get SIGTERM."""
        now = time.monotonic()
        exec_.told_at = min(exec_.told_at, now)
        if exec_.control is None or now > exec_.told_at + LAUNCHER_S + 1.0:
            send_signal(_family(exec_), signal.SIGKILL)
        elif now > exec_.again_at and start_time(exec_.pid) == exec_.began:
            late = now > exec_.told_at + LAUNCHER_S  # its own death ends its program too, that of all of it would not
            send_signal([exec_.pid], signal.SIGKILL if late else signal.SIGTERM)
            exec_.again_at = now + AGAIN_S

    def _look(self) -> None:
        """Walltimes, limits, graces, the lease."""
        now = time.monotonic()
        look = now - self._looked_at >= _LOOK_S
        if look:
            self._looked_at = now
        for exec_ in list(self._execs.values()):
            if exec_.ended is not None:
                continue
            if exec_.settling:
                self._settle(exec_)
            elif now >= exec_.kill_at:
                self._kill(exec_)
            elif exec_.why is None and now >= exec_.stop_at:
                self._end(exec_, "walltime", GRACE_S)
            elif look and exec_.why is None:
                self._limit(exec_)
        if self._gone_at is None or self._over:
            return
        if not any(e.ended is None for e in self._execs.values()):
            self._over = True  # how they ended is in files
        elif now - self._gone_at >= self._lease_s:
            self._lease_over()

    def _limit(self, exec_: Exec) -> None:
        if exec_.memory_mb is not None and resident_mb(self._members(exec_)) > exec_.memory_mb:
            self._end(exec_, "memory", 0.0)
        elif exec_.output_mb is not None:
            for path in exec_.outputs:
                with contextlib.suppress(OSError):
                    if os.stat(path).st_size > exec_.output_mb * 2**20:
                        self._end(exec_, "output", 0.0)
                        os.truncate(path, int(exec_.output_mb * 2**20))

    def _lease_over(self) -> None:
        self._over = True
        for exec_ in self._execs.values():
            if exec_.ended is None and not exec_.settling:
                self._end(exec_, "stopped", GRACE_S)

    # What stays.

    def _keep(self, exec_: Exec) -> None:
        """Write how it ended into a file: whoever was told may not have recorded it."""
        if exec_.ended is None:
            return
        path = self._exits / exit_file(exec_.key)
        gone_s = 0.0 if self._gone_at is None else time.monotonic() - self._gone_at
        with contextlib.suppress(OSError):  # a full disk: then it will be run again
            self._exits.mkdir(exist_ok=True)
            write_through(path, json.dumps({**exec_.ended, "gone_s": gone_s}).encode())

    def _write_note(self) -> None:
        """For a controller that finds this process dead, and for those who look; see ``supervision._read_note``."""
        lines = [f"{self._token} {boot()}\n"]
        if self._gone_at is not None:
            lines.append(f"-{self._gone_at + self._lease_s:.3f}\n")
        lines += [f"+{e.pid} {e.began}\n" for e in self._execs.values() if e.ended is None and e.pid > 0]
        text = "".join(lines).encode()
        with contextlib.suppress(OSError):
            os.pwrite(self._note, text, 0)  # in place, since the file is the lock
            os.ftruncate(self._note, len(text))


def _family(exec_: Exec) -> list[int]:
    """Living processes of a program; its number may be a stranger's by now, its mark is its own."""
    ours = exec_.pid > 0 and start_time(exec_.pid) in (exec_.began, 0)
    return family([exec_.pid] if ours else [], exec_.mark)


def exit_file(key: str) -> str:
    """Name of the file that tells how an attempt ended."""
    return f"{file_name(key)}.json"


def write_through(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole, on the device, or not at all."""
    new = path.with_name(f".{path.name}.new")
    with open(new, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _receive(connection: socket.socket) -> bytes | None:
    """What has come; empty at its end, None if there is nothing."""
    try:
        return connection.recv(65536)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def _become_subreaper() -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


def _write_down(*error: Any) -> None:
    """A bug has no terminal to appear on here; standard error is a file of the controller's, which may have gone."""
    text = "".join(traceback.format_exception(*error))
    with contextlib.suppress(OSError):
        sys.stderr.write(text)
    Path("supervisor.err").write_text(text)


def main() -> None:
    """Started by ``supervisor_client``: token, two folders, numbers of two open files, and its kind."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    token, scratch, exits, connection, note, kind = sys.argv[1:]
    sys.excepthook = _write_down
    for handle in (int(connection), int(note)):
        os.set_inheritable(handle, False)  # programs must not hold them
    _become_subreaper()
    supervisor = Supervisor(token, Path(scratch), Path.cwd() / exits, int(note), kind == "replacement")
    supervisor.run(socket.socket(fileno=int(connection)))


if __name__ == "__main__":
    main()
