"""The backend for Parsl: runs attempts wherever Parsl has workers.

Parsl gets an attempt only when a worker is free for it, so that it never holds a queue. Large arrays travel whole,
since hosts share no memory.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import queue
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlctl.core.errors import LaunchError, RlctlError, described
from rlctl.core.machine import Capacity
from rlctl.core.task import Failure, TaskSpec
from rlctl.executors.application import ProgramEnvironments
from rlctl.executors.backend import (
    Attempt,
    AttemptOutcome,
    Backend,
    BackendEvent,
    Exited,
    NodesChanged,
    ProgressReported,
    Recovered,
)
from rlctl.executors.functions.warm_workers import check_call
from rlctl.executors.functions.worker_client import Initializer, call_message, initializer_message, read_answer
from rlctl.executors.local.pid_file import of_pool
from rlctl.executors.local.process_task import ProcessTask
from rlctl.executors.local.programs import ProgressFiles
from rlctl.executors.ownership import networked
from rlctl.executors.parsl.attempt_files import PATIENCE_S, AttemptFiles, was_killed
from rlctl.executors.parsl.blocks import Blocks
from rlctl.executors.parsl.control_file import ControlWriter, Session, session_file
from rlctl.executors.parsl.options import ParslOptions
from rlctl.executors.parsl.task_runners import ENDED, STOPPED
from rlctl.executors.parsl.worker_slots import WorkerSlots
from rlctl.system.mpi import clean_environment

_LOOK_S = 0.25
_LOST_LOOK_S = 0.05
_POLL_S = 0.05
_POLL_NETWORK_S = 0.5
_LOST = ("WorkerLost", "ManagerLost", "BadStateException")
"""Exceptions of Parsl that mean the loss of a worker."""


_Answer = Future[bytes] | Mapping[str, Any] | AttemptOutcome
"""A worker's answer, the exit file of an adopted program, or an outcome."""


@dataclass(slots=True)
class _Running:
    """An attempt that was given to Parsl.

    Attributes:
        lost: why its worker was lost; empty: it is not. Its program may still run, until ``give_up_at`` at most.
    """

    attempt: Attempt
    stopping: bool = False
    lost: str = ""
    give_up_at: float = 0.0


class ParslBackend(Backend):
    """Attempts on a ``HighThroughputExecutor`` of Parsl."""

    def __init__(
        self,
        executor: Any,
        capacity: Capacity,
        workdir: Path,
        options: ParslOptions | None = None,
        *,
        initializer: Initializer | None = None,
        pool: str = "",
    ) -> None:
        """Prepare the backend; ``open`` starts Parsl.

        Args:
            executor: Parsl's; one that runs already is used, and not shut down here.
            capacity: nodes, and what each has; they are up when their workers have connected.
            workdir: working directory of programs and workers, seen by all hosts; made if it is missing.
            initializer: called in each worker before its first function.
            pool: name of the pool, where several work in this folder.
        """
        self.capacity = capacity
        self._options = options or ParslOptions()
        self._workdir = workdir.absolute()
        self._folder = self._workdir / of_pool("parsl", pool)
        self._environments = ProgramEnvironments(clean_environment(os.environ), self._options.applications)
        self._initialize = initializer_message(initializer)
        self._blocks = Blocks(executor)
        self._files = AttemptFiles(self._workdir, self._folder)
        self._progress_files = ProgressFiles(self._workdir)
        self._token = uuid.uuid4().hex
        self._workers = 0
        self._mutex = threading.Lock()
        self._running: dict[str, _Running] = {}
        self._unacknowledged: set[str] = set()  # keys of programs whose exit files are still there
        self._inbox: queue.SimpleQueue[tuple[str, _Answer] | NodesChanged | Exception | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []

    def node_pool(self) -> WorkerSlots:
        """Nodes that consist of workers."""
        return WorkerSlots(self.capacity, per_node=self._options.workers_per_node)

    def nodes(self) -> NodesChanged:
        """As many workers as have connected."""
        return NodesChanged(workers=self._workers)

    def open(self, incarnation: int) -> Recovered:
        """Stop what a former controller's workers run, and start Parsl."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._control = ControlWriter(self._folder, self._token)  # former controllers' workers stop when they read it
        unattended_s = self._files.take_over(self._options.lease_s)
        self._session = session_file(self._folder, self._token)
        session = Session(
            token=self._token,
            workdir=self._workdir,
            folder=self._folder,
            poll_s=_POLL_NETWORK_S if networked(self._workdir) else _POLL_S,
            ours=self._blocks.ours,
            masters=self._blocks.masters,
            paths=[os.path.abspath(path) for path in sys.path],
            initializer=self._initialize,
            options=self._options,
        )
        self._session.write_bytes(pickle.dumps(session))
        try:
            self._blocks.start(self._folder, self._token, self._options.lease_s)
        except BaseException:
            self._session.unlink()
            self._blocks.stop()
            raise
        for check in (self._show_life, self._blocks.workers):
            thread = threading.Thread(target=self._repeat, args=(check,), name="rlctl-parsl", daemon=True)
            thread.start()
            self._threads.append(thread)
        return Recovered(unattended_s=unattended_s)

    def close(self, keep_outcomes: bool) -> None:
        """Stop all that runs, and shut Parsl down if it was started here."""
        if not keep_outcomes:
            for key in self._unacknowledged:
                self._files.forget(key)
        self._closing.set()
        self._control.close()
        self._blocks.leave()
        for thread in self._threads:
            thread.join()
        if self._running:
            self._files.wait_for_programs()
        if self._blocks.ours:
            self._files.wait_for_workers()
            self._blocks.stop()
        self._session.unlink(missing_ok=True)
        self._files.remove_empty()
        self._control.remove_partial()

    def check(self, spec: TaskSpec) -> None:
        """See ``Backend``."""
        check_call(spec)
        self._environments.application(spec)

    def start(self, attempt: Attempt) -> bool:
        """Give an attempt to Parsl, which has a worker for it."""
        message: Any = None
        if attempt.spec.function is not None:
            try:
                message = call_message(attempt, [], None)
            except Exception as error:
                raise LaunchError(f"cannot be pickled: {described(error)}") from error
        request = attempt._replace(call=message)
        with self._mutex:
            self._running[attempt.key] = _Running(attempt)
        try:
            future = self._blocks.submit(pickle.dumps((self._folder, self._token, request)))
        except Exception as error:
            outcome = AttemptOutcome(failure=Failure.LOST, message=f"Parsl does not take it: {error}")
            self._inbox.put((attempt.key, outcome))
        else:
            future.add_done_callback(lambda done: self._inbox.put((attempt.key, done)))
        if attempt.spec.progress_file is not None:
            self.wake()  # poll looks at such files
        return True

    def adopt(self, attempt: Attempt) -> bool:
        """Take the outcome of a program that ended without a controller."""
        ended = self._files.ended(attempt.key)
        if ended is None:
            return False
        if ended["why"] == "stopped" or was_killed(ended):
            self._files.forget(attempt.key)
            return False
        with self._mutex:
            self._running[attempt.key] = _Running(attempt)
        self._inbox.put((attempt.key, ended))
        return True

    def stop(self, key: str, grace_s: float) -> bool:
        """Ask the worker to stop an attempt."""
        with self._mutex:
            running = self._running.get(key)
        if running is not None:
            running.stopping = True
            self._control.request(key, "stop", grace_s)
        return False

    def signal(self, key: str, number: int) -> None:
        """Ask the worker to send a signal."""
        if key in self._running:
            self._control.request(key, "signal", number)

    def acknowledge(self, key: str) -> None:
        """Remove the exit file of a program."""
        if key in self._unacknowledged:
            self._unacknowledged.discard(key)
            self._files.forget(key)

    def poll(self, timeout_s: float | None) -> Sequence[BackendEvent]:
        """See ``Backend``."""
        with self._mutex:
            running = list(self._running.values())
        lost = [each for each in running if each.lost]
        reporting = [each.attempt for each in running if each.attempt.spec.progress_file is not None]
        limits = (timeout_s, _LOST_LOOK_S if lost else None, _LOOK_S if reporting else None)
        events: list[BackendEvent] = []
        with contextlib.suppress(queue.Empty):
            news = self._inbox.get(timeout=min((limit for limit in limits if limit is not None), default=None))
            if isinstance(news, Exception):
                raise news
            if isinstance(news, NodesChanged):
                events.append(news)
            elif news is not None:
                key, answer = news
                events += self._exited(self._running[key], self._outcome(self._running[key], answer))
        for each in lost:
            events += self._exited(each, self._outcome_of_lost(each))
        for attempt in reporting:
            data = self._progress_files.newest(attempt.spec)
            events += [] if data is None else [ProgressReported(attempt.key, data)]
        return events

    def wake(self) -> None:
        """See ``Backend``."""
        self._inbox.put(None)

    def _exited(self, running: _Running, outcome: AttemptOutcome | None) -> Sequence[BackendEvent]:
        if outcome is None:
            return ()
        key = running.attempt.key
        with self._mutex:
            del self._running[key]
        self._control.forget(key)
        return (Exited(key, outcome),)

    def _outcome(self, running: _Running, answer: _Answer) -> AttemptOutcome | None:
        """Read what has become of an attempt; None: its worker was lost, and its program may still run."""
        if isinstance(answer, AttemptOutcome):
            return answer
        if isinstance(answer, Mapping):
            return self._outcome_of_program(running, answer)
        error: BaseException | None
        try:
            error = answer.exception()
        except CancelledError as canceled:  # by Parsl, as it ends
            error = canceled
        if error is None:
            data = answer.result()
            if data[:1] == ENDED:
                return self._outcome_of_program(running, json.loads(data[1:]))
            if data[:1] != STOPPED:
                return read_answer(data)
            if not running.stopping:  # the worker missed this controller for the length of the lease
                self._control.beat(at_once=True)
            return AttemptOutcome(stopped=True)
        if type(error).__name__ not in _LOST:
            return AttemptOutcome(failure=Failure.LAUNCH, message=f"Parsl: {described(error)}")
        if running.attempt.call is not None:
            return AttemptOutcome(failure=Failure.SIGNAL, message=f"the worker was lost: {error}")
        if running.attempt.spec.function is not None:
            return AttemptOutcome(failure=Failure.LOST, message=str(error))
        running.lost, running.give_up_at = str(error) or "its worker was lost", time.monotonic() + PATIENCE_S
        return None

    def _outcome_of_lost(self, running: _Running) -> AttemptOutcome | None:
        """A program has ended once its supervisor has written so, or when none can be running any more."""
        key = running.attempt.key
        ended = self._files.ended(key)
        if ended is None and self._files.may_run(key) and time.monotonic() < running.give_up_at:
            return None
        by_itself = ended is not None and ended["why"] != "stopped" and not was_killed(ended)
        if ended is not None and (by_itself or running.stopping):
            return self._outcome_of_program(running, ended)
        self._files.forget(key)
        return AttemptOutcome(failure=Failure.LOST, message=running.lost)

    def _outcome_of_program(self, running: _Running, ended: Mapping[str, Any]) -> AttemptOutcome:
        if ended["why"] == "stopped" and not running.stopping:
            self._control.beat(at_once=True)
        self._unacknowledged.add(running.attempt.key)
        scratch = self._folder / "none"
        program = ProcessTask(running.attempt, self._workdir, scratch, self._environments)
        program.stopping = running.stopping
        return program.outcome(ended)

    def _show_life(self) -> None:
        self._control.beat()
        self._blocks.check()

    def _repeat(self, work: Callable[[], int | None]) -> None:
        """Show life, or count workers, again and again; batch systems may be slow to respond."""
        while not self._closing.is_set():
            try:
                workers = work()
            except Exception as error:
                problem = error if isinstance(error, RlctlError) else LaunchError(f"Parsl: {described(error)}")
                self._inbox.put(problem)
                return
            if workers is not None and workers != self._workers:
                self._workers = workers
                self._inbox.put(NodesChanged(workers=workers))
            self._closing.wait(_LOOK_S)
