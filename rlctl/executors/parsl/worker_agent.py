"""Runs inside a worker of Parsl: ``perform`` for each task, and a ``WorkerAgent`` that stays between tasks.

A worker of Parsl never runs user code itself. Its agent keeps a warm worker for calls and a supervisor for programs, as
the local backend does, so that tasks can be stopped without losing the worker, and end with it. While a task runs the
agent checks the control file and Parsl's manager many times a second; between tasks a thread does so, and releases what
is no longer needed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import platform
import threading
import time
from collections.abc import Callable
from typing import Any

import psutil

from rlctl.core.task import Failure
from rlctl.executors.backend import Attempt
from rlctl.executors.local.processes import GRACE_S
from rlctl.executors.parsl.control_file import ControlReader, Session, session_file
from rlctl.executors.parsl.task_runners import STOPPED, CallRunner, ProgramRunner, failure

log = logging.getLogger(__name__)

_IDLE_S = 0.5


_agents: list[WorkerAgent] = []  # of this process: that of the last controller that sent a task


def perform(buffer: bytes) -> bytes:
    """Run one attempt; what Parsl calls in its worker.

    Args:
        buffer: folder of the backend, token of the controller, and an ``Attempt``, pickled; its ``call`` is the message
            for a warm worker.
    """
    folder, token, attempt = pickle.loads(buffer)
    agent = _agents[0] if _agents else None
    if agent is None or agent.session.token != token:
        if agent is not None:
            with agent.busy:
                agent.close()
        try:
            session = pickle.loads(session_file(folder, token).read_bytes())
        except OSError as error:
            where = f"{platform.node()} does not see the run folder ({error})"
            return failure(Failure.LAUNCH, f"{where}: put it on a file system that all workers share")
        agent = WorkerAgent(session)
        _agents[:] = [agent]
    with agent.busy:
        return STOPPED if agent.closed else agent.run(attempt)


class WorkerAgent:
    """Runs the tasks of one controller in one worker of Parsl.

    Attributes:
        busy: held while a task runs, or while all is released.
        closed: whether all was released.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.busy = threading.Lock()
        self.closed = False
        self._control = ControlReader(session.folder, session.token, session.options.lease_s)
        self._calls = CallRunner(session)
        self._programs = ProgramRunner(session)
        self._manager = os.getppid()
        manager = psutil.Process(self._manager)
        # Managers start a server process of their own, which survives when they are killed.
        self._kin = [manager, *(child for child in manager.children() if child.pid != os.getpid())]
        threading.Thread(target=self._watch_idle, name="rlctl-worker-agent", daemon=True).start()

    def run(self, attempt: Attempt) -> bytes:
        """Run one attempt; the caller holds ``busy``."""
        new_requests = self._requests(attempt.key)
        if attempt.spec.function is not None:
            return self._calls.run(attempt, new_requests)
        self._control.read()
        if self._control.over:  # the controller has gone since it sent this, or is just coming back
            time.sleep(self.session.poll_s)
            return STOPPED
        return self._programs.run(attempt, new_requests, lambda: self._control.silent_s)

    def close(self) -> None:
        """Release all; the caller holds ``busy``."""
        if not self.closed:
            self.closed = True
            self._calls.close()
            self._programs.close()

    def _requests(self, key: str) -> Callable[[], list[tuple[str, Any]]]:
        """A function that returns new requests to an attempt; a last one to stop once the controller has gone."""
        done = 0
        ending = False
        read_at = 0.0

        def new() -> list[tuple[str, Any]]:
            nonlocal done, ending, read_at
            now = time.monotonic()
            if now < read_at + self.session.poll_s:
                return []
            read_at = now
            self._control.read()
            requests = self._control.requests(key, done)
            done += len(requests)
            found = [(str(verb), value) for verb, value in requests]
            if os.getppid() != self._manager:
                self._exit()
            if self._control.over and not ending:
                ending = True
                found.append(("stop", GRACE_S))
            return found

        return new

    def _watch_idle(self) -> None:
        """Between tasks: release what is not needed, exit when the controller or the manager has gone."""
        while not self.closed:
            time.sleep(max(_IDLE_S, self.session.poll_s))
            if not self.busy.acquire(blocking=False):
                continue
            try:
                if self.closed:
                    return
                self._control.read()
                if os.getppid() != self._manager:
                    self._exit()
                if self._control.over:
                    self.close()
                    if self.session.ours and self._control.over != "closed":
                        self._exit()
            except Exception:  # without this thread the worker would stay for ever
                log.exception("%s: between two tasks", self.session.folder)
            finally:
                self.busy.release()

    def _exit(self) -> None:
        """End this worker, and its manager with all that it has started."""
        self.close()
        for process in self._kin:
            with contextlib.suppress(psutil.Error):  # it has exited
                # Python's resource tracker unlinks semaphores, and ends when all others have ended.
                if "resource_tracker" not in " ".join(process.cmdline()):
                    process.kill()
        os._exit(1)
