"""The controller's end of a warm worker: at most one call is ever in it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlctl.core.errors import LaunchError, described
from rlctl.core.task import Failure
from rlctl.executors.backend import Attempt, AttemptOutcome
from rlctl.executors.functions import serialization, worker
from rlctl.executors.functions.large_results import read_object
from rlctl.executors.local.processes import ask_to_end, family, send_signal, signal_name

_WORKER = "rlctl.executors.functions.worker"

Initializer = tuple[Callable[..., object], tuple[Any, ...]]
"""Called, with these arguments, in each worker before its first function."""


class RemoteTraceback(Exception):
    """The traceback of an exception that a worker raised; its cause, as in ``concurrent.futures.process``."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


class Worker:
    """A worker process, in a session of its own.

    Attributes:
        attempt: what it works at; None: it is idle.
        stop_at: when its walltime is over, on the monotonic clock.
        stopped: "stopped" by request, at its "walltime", or since its node was "lost".
        unread: whether it died before it had taken its call, which therefore never began.
        most: bytes that go over the socket at once; more goes through a file.
        end_signal: signal by which the supervisor ends it when the controller has died.
    """

    end_signal = signal.SIGKILL
    most = serialization.SMALL_BYTES

    def __init__(
        self,
        environment: Mapping[str, str],
        scratch: Path | None,
        mark: str,
        workdir: Path | None,
        log: Path | None,
        initializer: bytes | None,
        paths: Sequence[str] | None = None,
    ) -> None:
        """Start it.

        Args:
            scratch: folder for large arrays; None: they go over the socket.
            mark: by which it, and what it starts, is found.
            workdir, log, paths: its folder, file for what it prints, and module path; None: those of this process.
            initializer: message to begin with.

        Raises:
            OSError: it cannot be started.
        """
        self.attempt: Attempt | None = None
        self.kill_at = float("inf")
        self.stop_at = float("inf")
        self.stopped: str | None = None
        self.closed = False
        self.unread = False
        self.mark = mark.encode() + b"\0"  # whole: no other begins with it
        self._buffer = bytearray()
        self._scratch = scratch
        paths = [os.path.abspath(path) for path in sys.path] if paths is None else paths  # it works elsewhere
        first = serialization.posted(worker.PATH + json.dumps(list(paths)).encode(), scratch, self.most)
        if initializer is not None:
            first += serialization.posted(worker.INITIALIZE + initializer, scratch, self.most)
        ours, theirs = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * serialization.SMALL_BYTES)
        life, self._life = os.pipe()
        output = None if log is None else os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            self._process = self.start(theirs, life, environment, workdir, output)
        except BaseException:
            ours.close()
            os.close(self._life)
            raise
        finally:
            theirs.close()
            os.close(life)
            if output is not None:
                os.close(output)
        self.socket = ours
        self.pid = self._process.pid
        self.pidfd = os.pidfd_open(self.pid) if hasattr(os, "pidfd_open") else None
        self._send(first)

    def start(
        self, theirs: socket.socket, life: int, environment: Mapping[str, str], workdir: Path | None, output: int | None
    ) -> subprocess.Popen[bytes]:
        """Start the process; ``life`` is a pipe that closes when this process has gone."""
        return subprocess.Popen(
            [sys.executable, "-m", _WORKER, str(theirs.fileno()), str(life), str(self._scratch or "")],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            pass_fds=(theirs.fileno(), life),
            cwd=workdir,
            env=dict(environment),
        )

    def call(self, attempt: Attempt, cores: list[int]) -> None:
        """Hand over a call; raises LaunchError if that is impossible."""
        try:
            message = serialization.posted(call_message(attempt, cores, self._scratch), self._scratch, self.most)
        except Exception as error:
            what = "handed over" if attempt.call is None else "pickled"
            raise LaunchError(f"cannot be {what}: {described(error)}") from error
        self.hand_over(attempt, message)

    def hand_over(self, attempt: Attempt, message: bytes) -> None:
        """Hand over a call that has been posted already."""
        self.attempt = attempt
        try:
            self._send(message)
        except BaseException:  # an interrupt: half of the message may be on its way, so that no other can follow
            self.attempt = None
            self.kill()
            raise

    def receive(self) -> list[bytes] | None:
        """Whole messages that have come; None: it has closed its end."""
        try:
            data = self.socket.recv(serialization.RECEIVE_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return []
        except OSError as error:
            # The system's word that the other end closed with something unread: the last that was sent is the call.
            self.unread = self.unread or isinstance(error, ConnectionResetError)
            data = b""
        if not data:
            return None
        if not self._buffer and serialization.whole(data):  # as nearly always
            return [data[serialization.HEAD :]]
        self._buffer += data
        return list(serialization.frames(self._buffer))

    def terminate(self, grace_kill_at: float) -> None:
        """Send SIGTERM to it and to all that it has started."""
        self.kill_at = grace_kill_at
        members = family([self.pid], self.mark)
        ask_to_end(members)
        send_signal(members, signal.SIGCONT)

    def kill(self) -> bool:
        """Send SIGKILL; returns whether anything of it is still alive."""
        alive = family([self.pid], self.mark)
        send_signal(alive, signal.SIGKILL)
        return bool(alive)

    def signal(self, number: int) -> None:
        """Send a signal to it and to all that it has started."""
        send_signal(family([self.pid], self.mark), number)

    @property
    def ended(self) -> bool:
        """Whether the process has ended."""
        return self._process.poll() is not None

    def death(self) -> AttemptOutcome:
        """How it died."""
        code = self._process.wait()
        self.receive()
        if self.unread:
            return AttemptOutcome(failure=Failure.LOST, message="its worker died before it took the call")
        if code < 0:
            return AttemptOutcome(failure=Failure.SIGNAL, message=f"the worker was killed by {signal_name(-code)}")
        return AttemptOutcome(failure=Failure.EXIT, message=f"the worker ended with code {code}")

    def close(self) -> None:
        """Close the connection to a process that has ended, or end one that is idle."""
        self.closed = True
        self.socket.close()
        if self.pidfd is not None:
            os.close(self.pidfd)
            self.pidfd = None
        if not self.ended and self.attempt is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(1.0)  # an idle one ends by itself
        while self.kill() or not self.ended:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0.02)
        os.close(self._life)

    def _send(self, message: bytes) -> None:
        try:
            self.socket.sendall(message)
        except OSError:  # it has died, as will be noticed
            self.unread = True


def initializer_message(initializer: Initializer | None) -> bytes | None:
    """The message that has workers call an initializer; raises TypeError if it cannot be called."""
    if initializer is None:
        return None
    if not callable(initializer[0]):
        raise TypeError("initializer must be a callable")
    return serialization.dump((*initializer, {}), None)


def call_message(attempt: Attempt, cores: list[int], scratch: Path | None) -> bytes:
    """The message that has a worker call a function; raises what pickle raises."""
    if attempt.call is not None:
        return worker.CALL + serialization.dump(attempt.call, scratch)
    spec = attempt.spec
    message = [spec.function, dict(spec.parameters), cores, dict(spec.environment), attempt.key]
    return worker.NAMED + json.dumps(message).encode()


def read_answer(message: bytes) -> AttemptOutcome:
    """The outcome that a worker's answer means."""
    try:
        message = serialization.opened(message)
        kind, data = message[:1], message[1:]
        if kind == worker.JSON:
            return AttemptOutcome(read_object(data))
        if kind == worker.FAILURE:
            failure, text = json.loads(data)
            return AttemptOutcome(failure=Failure(failure), message=text)
    except Exception as error:
        text = f"its result cannot be read: {described(error)}"
        return AttemptOutcome(failure=Failure.GARBAGE, message=text, error=error)
    try:
        value = serialization.load(data)
    except BaseException as error:
        text = f"its result cannot be unpickled: {described(error)}"
        return AttemptOutcome(failure=Failure.GARBAGE, message=text, error=error)
    if kind == worker.VALUE:
        return AttemptOutcome(value=value)
    raised, text = value
    raised.__cause__ = RemoteTraceback(text)
    return AttemptOutcome(failure=Failure.EXIT, message=described(raised), error=raised)
