"""A backend that runs programs as child processes of the controller, and functions in warm workers."""

import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rlctl.core.machine import Capacity
from rlctl.core.task import TaskSpec
from rlctl.executors.application import ProgramEnvironments
from rlctl.executors.backend import Attempt, AttemptOutcome, Backend, BackendEvent, Exited, ProgressReported, Recovered
from rlctl.executors.functions.warm_workers import WarmWorkers, check_call
from rlctl.executors.functions.worker_client import Initializer, Worker, initializer_message
from rlctl.executors.local.process_task import LOGS, ProcessTask
from rlctl.executors.local.processes import GRACE_S, ask_to_end, capped, family, reap, send_signal
from rlctl.executors.local.programs import ProgressFiles
from rlctl.system.devices import visible_devices, without_masks
from rlctl.system.mpi import clean_environment

NEVER = float("inf")


class Child:
    """A running program, in a session of its own: all that it starts belongs to the session."""

    def __init__(self, task: ProcessTask, workdir: Path, environment: dict[str, str]) -> None:
        gpus = [device for share in task.attempt.allocation for device, _ in share.gpus]
        request = task.prepare(visible_devices(os.environ).variables_for(gpus))
        environment = {**environment, **request["environment"]}
        with open(request["outputs"][0], "wb") as out, open(request["outputs"][1], "wb") as err:
            streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": out, "stderr": err}
            command = request["command"]
            self.process = subprocess.Popen(command, cwd=workdir, env=environment, start_new_session=True, **streams)
        self.task, self.pidfd = task, os.pidfd_open(self.process.pid)
        self.why: str | None = None  # "stopped" by request, or at its "walltime"
        self.stop_at = self.kill_at = NEVER
        if task.attempt.spec.walltime_s is not None:
            self.stop_at = time.monotonic() + task.attempt.spec.walltime_s

    def signal(self, number: int) -> None:
        """Send a signal to all of its processes."""
        send_signal(family([self.process.pid]), number)

    def stop(self, why: str, grace_s: float) -> None:
        """SIGTERM now, SIGKILL when the grace period is over."""
        self.why, self.stop_at, self.kill_at = self.why or why, NEVER, time.monotonic() + grace_s
        self.task.stopping = self.why == "stopped"
        ask_to_end(family([self.process.pid]))
        self.signal(signal.SIGCONT)  # one that is suspended could not end


class ChildBackend(Backend):
    """Attempts as child processes of this one; they end with it."""

    def __init__(self, capacity: Capacity, workdir: Path, initializer: Initializer | None = None) -> None:
        self.capacity = capacity
        self._workdir = workdir.absolute()
        self._environment = without_masks(clean_environment(os.environ))
        self._programs = ProgramEnvironments(self._environment)
        self._initializer = initializer_message(initializer)
        self._lock = threading.RLock()  # poll has a thread of its own
        self._children: dict[str, Child] = {}
        self._exits: list[tuple[Attempt, Callable[[], AttemptOutcome]]] = []
        self._progress = ProgressFiles(self._workdir)
        self._selector = selectors.DefaultSelector()
        self._woken = os.eventfd(0)
        self._selector.register(self._woken, selectors.EVENT_READ, lambda: os.eventfd_read(self._woken))
        self._calls = WarmWorkers(self._selector, self._start_worker, self._report, lambda worker, begins: None)

    def open(self, incarnation: int) -> Recovered:
        """Make the folders; the children of a former controller have ended with it."""
        (self._workdir / LOGS).mkdir(parents=True, exist_ok=True)
        return Recovered()

    def close(self, keep_outcomes: bool) -> None:
        """Stop what still runs, and wait until it has exited."""
        with self._lock:
            self._calls.close()
            reap([child.process.pid for child in self._children.values()], b"", GRACE_S)
            self._selector.close()

    def check(self, spec: TaskSpec) -> None:
        """Refuse what can never run here, for another reason than its size."""
        check_call(spec)
        if spec.function is None:
            self._programs.check(spec)

    def start(self, attempt: Attempt) -> bool:
        """Start an attempt; it runs when this returns, so no ``Started`` will follow."""
        with self._lock:
            if attempt.spec.function is not None:
                self._calls.call(attempt, [])
            else:
                task = ProcessTask(attempt, self._workdir, self._workdir / "scratch", self._programs)
                child = self._children[attempt.key] = Child(task, self._workdir, self._environment)
                self._selector.register(child.pidfd, selectors.EVENT_READ, partial(self._exited, child))
        self.wake()  # poll may have to wait less long
        return True

    def stop(self, key: str, grace_s: float) -> bool:
        """Stop an attempt; ``Exited`` will follow."""
        with self._lock:
            self._calls.stop(key, grace_s)  # ignores what is no call
            if key in self._children:
                self._children[key].stop("stopped", grace_s)
        self.wake()
        return False

    def signal(self, key: str, number: int) -> None:
        """Send a signal to every process of an attempt."""
        with self._lock:
            self._calls.signal(key, number)
            if key in self._children:
                self._children[key].signal(number)

    def poll(self, timeout_s: float | None) -> Sequence[BackendEvent]:
        """Wait until something happens, and report it."""
        with self._lock:
            children = list(self._children.values())
            reporting = [child.task.attempt for child in children if child.task.attempt.spec.progress_file is not None]
            due = min((min(child.stop_at, child.kill_at) for child in children), default=NEVER) - time.monotonic()
            waits = [timeout_s, self._calls.due_s(), max(due, 0.0), 0.25 if reporting else None]
        for ready, _ in self._selector.select(capped(min(wait for wait in waits if wait is not None))):
            with self._lock:
                ready.data()
        with self._lock:
            self._calls.look()
            for child in self._children.values():
                if time.monotonic() >= child.kill_at:
                    child.signal(signal.SIGKILL)
                elif time.monotonic() >= child.stop_at:
                    child.stop("walltime", GRACE_S)
            exits, self._exits = self._exits, []
        reports = [(attempt.key, self._progress.newest(attempt.spec)) for attempt in reporting]
        progress = [ProgressReported(key, data) for key, data in reports if data is not None]
        return [
            *progress,
            *(Exited(attempt.key, read()) for attempt, read in exits),
        ]  # may run user code: without the lock

    def wake(self) -> None:
        """End a ``poll`` that waits."""
        os.eventfd_write(self._woken, 1)

    def _exited(self, child: Child) -> None:
        self._selector.unregister(child.pidfd)
        os.close(child.pidfd)
        reap([child.process.pid], b"", 0.0)  # an attempt has exited when nothing that it started is alive
        del self._children[child.task.attempt.key]
        ended = {"why": child.why, "code": child.process.wait()}
        self._report(child.task.attempt, lambda: child.task.outcome(ended))

    def _report(self, attempt: Attempt, read: Callable[[], AttemptOutcome]) -> None:
        self._exits.append((attempt, read))

    def _start_worker(self, node: int, number: int) -> Worker:
        name = f"{os.getpid()}.{number}"
        environment = {**self._environment, "CHILD_WORKER": name}
        log = self._workdir / LOGS / "calls.out"
        return Worker(environment, None, f"CHILD_WORKER={name}", self._workdir, log, self._initializer)
