"""A call: a function in a warm worker process, one for each core, and what came of it."""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path
from types import ModuleType
from typing import Any

import pebble

from rlctl.executors.program import LOGS, Ending
from rlctl.executors.reaper import Lease, send_signal, session_processes, start_time
from rlctl.task import Failure, TaskSpec

_Answer = tuple[Failure | None, str]


class Worker:
    """A pool of one Pebble process, into which one call at a time is put.

    The process has a session of its own, whose number it reports when it starts; a call is handed over only then, so
    that no function ever runs outside the lease.
    """

    def __init__(self, workdir: Path, lease: Lease, wake: Callable[[], None]) -> None:
        (workdir / LOGS).mkdir(exist_ok=True)
        self.sid: int | None = None
        self._lease = lease
        self._wake = wake
        context = _Context()
        self.reader, self._writer = context.Pipe(duplex=False)
        self._pool: Any = pebble.ProcessPool(
            max_workers=1,
            initializer=_begin,
            initargs=(self._writer, str((workdir / LOGS / "calls.out").absolute())),
            context=context,
        )
        self._waiting: tuple[Any, ...] | None = None
        self.future: Any = None

    @property
    def alive(self) -> bool:
        """Whether it can take a call; starts the process if there is none yet."""
        return bool(self._pool.active) and (self.sid is None or bool(session_processes(self.sid)))

    def submit(self, spec: TaskSpec, cores: tuple[int, ...]) -> None:
        """Run a function as soon as the process is there."""
        self.future = None
        self._waiting = (spec.function, json.dumps(dict(spec.parameters)), cores, dict(spec.environment))
        self.attend()

    def attend(self) -> None:
        """Take note of a process that has started; hand over the call that waits for it."""
        while self.reader.poll():
            self.sid = int(self.reader.recv_bytes())
            self._lease.hold(self.sid, start_time(self.sid))
        if self._waiting is not None and self.sid is not None and self.alive:
            arguments, self._waiting = self._waiting, None
            self.future = self._pool.schedule(_invoke, args=arguments)
            self.future.add_done_callback(lambda _: self._wake())

    def drop(self) -> None:
        """Give up a call that has not been handed over."""
        self._waiting = None

    def forget(self, sid: int) -> None:
        """A process has died, and all of its session; its successor reports itself, or has done so."""
        self._lease.release(sid)
        if self.sid == sid:
            self.sid = None

    def close(self) -> None:
        """Stop the process and what it has started; returns when all is dead."""
        self._pool.stop()
        self._pool.join()
        if self.sid is not None:
            while alive := session_processes(self.sid):
                send_signal(alive, signal.SIGKILL)
                time.sleep(0.01)
            self.forget(self.sid)
        self.reader.close()
        self._writer.close()


class Call:
    """One attempt of a call, running or waiting for its worker to start.

    Attributes:
        sid: session of the worker; None until the function has been handed over.
    """

    pidfd: int | None = None

    def __init__(self, spec: TaskSpec, cores: tuple[int, ...], worker: Worker) -> None:
        self.sid: int | None = None
        self._worker = worker
        self._dropped = False
        worker.submit(spec, cores)
        if worker.future is not None:
            self.sid = worker.sid

    def ended(self) -> bool:
        """Whether the function has returned or its worker has died."""
        self._worker.attend()
        if self._worker.future is None:
            if not self._worker.alive:
                self.drop()
            return self._dropped
        if self.sid is None:
            self.sid = self._worker.sid
        return bool(self._worker.future.done())

    def drop(self) -> None:
        """End it before it is handed over."""
        self._worker.drop()
        self._dropped = True

    def remains(self) -> list[int]:
        """What is still alive of a worker that did not answer."""
        if self.sid is None or self._worker.future.exception() is None:
            return []
        return session_processes(self.sid)

    def ending(self) -> Ending:
        """What the function returned or raised, or how its worker died."""
        if self.sid is None:
            return Ending(failure=Failure.LAUNCH, message="the worker process does not start")
        error = self._worker.future.exception()
        if error is None:
            failure, text = self._worker.future.result()
            return Ending(failure=failure, message=text) if failure else Ending(values=json.loads(text))
        if isinstance(error, pebble.ProcessExpired):
            code = error.exitcode
            if code < 0:
                return Ending(failure=Failure.SIGNAL, message=f"the worker was killed by signal {-code}")
            return Ending(failure=Failure.EXIT, message=f"the worker ended with code {code}")
        return Ending(failure=Failure.LOST, message=f"the worker was lost: {error}")

    def close(self) -> None:
        """Let go of a worker that has died; one that lives stays warm."""
        if self.sid is not None and self._worker.future.exception() is not None:
            self._worker.forget(self.sid)


class _Process(SpawnProcess):
    """A worker that does not run the user's main script again.

    Functions are found by name, so it has no need of it; and a script that starts tasks outside of
    ``if __name__ == "__main__"`` would start them all once more in each worker.
    """

    def start(self) -> None:
        """Start it while the main module is out of sight."""
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            super().start()
        finally:
            sys.modules["__main__"] = main


class _Context(SpawnContext):
    Process = _Process


def _begin(writer: Connection, log: str) -> None:
    """First thing in a new worker: its own session, no words to the user's terminal, and its number reported."""
    os.setsid()
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.close(out)
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    writer.send_bytes(str(os.getpid()).encode())


def _invoke(name: str, parameters: str, cores: tuple[int, ...], environment: Mapping[str, str]) -> _Answer:
    """In the worker: run the function; the answer is JSON, or a failure and its reason."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        module, _, attribute = name.partition(":")
        try:
            function = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError, ValueError) as error:
            return Failure.LAUNCH, f"{name}: {error}"
        try:
            values = function(**json.loads(parameters))
        except BaseException as error:  # also SystemExit: the worker stays
            return Failure.EXIT, f"{type(error).__name__}: {error}"
        if not isinstance(values, Mapping):
            return Failure.GARBAGE, f"{name} returned {type(values).__name__}, not a mapping"
        try:
            return None, json.dumps(dict(values), allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            return Failure.GARBAGE, f"{name}: its result is not JSON: {error}"
    finally:
        os.environ.clear()
        os.environ.update(before)
