"""The executor on workers of Parsl: the same tasks, started wherever Parsl has workers.

Queue, books, journal and futures are rlctl's. Parsl is given a task only when a worker is free for it, so that it never
holds a queue. Large arrays travel whole, since there is no memory that hosts share.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import queue
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlctl.core.errors import LaunchError, RlctlError, described
from rlctl.core.machine import Capacity, Scoring
from rlctl.core.task import Failure, TaskSpec
from rlctl.executors.application import Application
from rlctl.executors.functions import serialization, worker_client
from rlctl.executors.local.process_task import Program
from rlctl.executors.local.progress_files import Reports
from rlctl.executors.mpi import clean_environment
from rlctl.executors.naming import attempt_key
from rlctl.executors.ownership import networked
from rlctl.executors.parsl.attempt_files import PATIENCE_S, AttemptFiles, was_killed
from rlctl.executors.parsl.blocks import Blocks
from rlctl.executors.parsl.control_file import FOLDER, ControlWriter
from rlctl.executors.parsl.worker_messages import ENDED, STOPPED, CallRequest, ProgramRequest, Session, session_file
from rlctl.executors.parsl.worker_slots import WorkerPool
from rlctl.executors.pool import Placement
from rlctl.executors.recovery import Past, placement_of
from rlctl.executors.scheduler import Ending, Task
from rlctl.executors.served import ServedExecutor, check_call
from rlctl.system.terminal import open_closed_streams

if TYPE_CHECKING:
    from rlctl.core.records import Recorder

_LOOK_S = 0.25
_POLL_S = 0.05
_POLL_NETWORK_S = 0.5


@dataclass(frozen=True, slots=True)
class Settings:
    """How a ``ParslExecutor`` treats its tasks.

    Attributes:
        workers_per_node: how many workers share what the books call a node; one: a task has its node for itself.
        lease_s: how long tasks go on when the controller has died.
        memory: whether a task that uses more memory than it asked for is stopped.
        output_mb: a program that writes more than so many MiB to its standard output or error is stopped.
        applications: environments of programs, by name.
    """

    workers_per_node: int = 1
    lease_s: float = 60.0
    memory: bool = True
    output_mb: float | None = 1024.0
    applications: Mapping[str, Application] | None = None


class ParslExecutor(ServedExecutor):
    """An executor on a ``HighThroughputExecutor`` of Parsl; see ``rlctl.executors.base.Executor`` for the contract."""

    def __init__(
        self,
        executor: Any,
        capacity: Capacity,
        workdir: Path,
        journal: Recorder | None = None,
        start_s: float = 0.0,
        *,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        eager: bool = True,
        scoring: Scoring | None = None,
        backfill: bool | None = None,
        settings: Settings | None = None,
        past: Past | None = None,
    ) -> None:
        """Start Parsl, unless it runs already.

        Args:
            executor: Parsl's; one that was started elsewhere is used, and not ended here.
            capacity: nodes, and what each has; they are there when their workers are.
            workdir: working directory of programs and workers, seen by all hosts; made if need be.
            journal: as for ``LocalExecutor``.
            start_s: where the clock stands.
            initializer, initargs: called in each worker before its first function.
            eager: start tasks as soon as they fit, rather than inside ``wait``.
            scoring: chooses nodes.
            backfill: whether tasks may overtake one that does not fit yet; None: if ``eager``.
            settings: the rest.
            past: what a journal says of former controllers.

        Raises:
            LaunchError: Parsl cannot be started.
        """
        open_closed_streams()
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        self._settings = settings or Settings()
        self._pool = WorkerPool(capacity, scoring, self._settings.workers_per_node)
        super().__init__(
            capacity,
            eager=eager,
            journal=journal,
            backfill=eager if backfill is None else backfill,
            pool=self._pool,
        )
        self._origin = time.monotonic() - start_s
        self._workdir = workdir.absolute()
        self._reports = Reports(self._workdir)
        self._past = past or Past()
        self._applications = dict(self._settings.applications or {})
        self._bare = clean_environment(os.environ)
        self._runs: dict[str, Task] = {}  # with Parsl
        self._lost: dict[str, tuple[Task, str, float]] = {}  # of these nobody knows whether they are dead
        self._finished: list[str] = []  # keys of programs whose exit files are not needed any more
        self._heard: queue.SimpleQueue[tuple[str, Future[bytes] | int | RlctlError]] = queue.SimpleQueue()
        self._let_go = False
        self._blocks = Blocks(executor)
        token = uuid.uuid4().hex
        folder = self._workdir / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        self._files = AttemptFiles(self._workdir)
        self._control = ControlWriter(folder, token)  # former controllers' workers stop when they read it
        self._origin -= self._files.take_over(self._settings.lease_s)
        self._token = token
        self._session = session_file(self._workdir, token)
        initialize = None if initializer is None else serialization.dump((initializer, initargs, {}), None)
        self._session.write_bytes(pickle.dumps(self._make_session(initialize)))
        try:
            self._blocks.start(self._workdir, token, self._settings.lease_s)
        except BaseException:
            self._session.unlink()
            self._blocks.stop()
            raise
        self._enough = threading.Event()
        work = (self._live, self._watch)
        self._others = [threading.Thread(target=self._guarded, args=(done,), daemon=True) for done in work]
        self._begin_serving()
        for thread in self._others:
            thread.start()

    def _make_session(self, initialize: bytes | None) -> Session:
        return Session(
            token=self._token,
            lease_s=self._settings.lease_s,
            poll_s=_POLL_NETWORK_S if networked(self._workdir) else _POLL_S,
            ours=self._blocks.ours,
            masters=self._blocks.masters,
            paths=[os.path.abspath(path) for path in sys.path],
            initializer=initialize,
            applications=self._applications,
        )

    def now(self) -> float:
        """Seconds since the campaign began."""
        return time.monotonic() - self._origin

    # The hooks.

    def _accept(self, spec: TaskSpec) -> None:
        check_call(spec)
        if spec.application is not None and spec.application not in self._applications:
            known = ", ".join(sorted(self._applications)) or "none"
            raise LaunchError(
                f"task {spec.uid}: application {spec.application!r} is not described: add it to "
                f"executor.options.applications (there: {known})"
            )

    def _resume(self, task: Task) -> bool:
        """Go on with an attempt that has ended unseen, or is known to have ended."""
        if super()._resume(task):
            return True
        attempt = self._past.attempts.get(task.uid)
        if attempt is None or task.spec.function is not None:
            return False
        key = attempt_key(task.uid, attempt.number)
        ended = self._files.ended(key)
        if ended is None:
            return False
        if ended["why"] == "stopped" or was_killed(ended):  # it did not come to its end
            self._files.forget(key)
            return False
        with self._mutex:
            task.attempt = attempt.number
            placement = placement_of(attempt, self.capacity, task.need)
            if placement is None or not self._books.adopt(task, placement, self.now(), attempt.since_s):
                self._books.tasks[task.uid] = task
            elif task.future is not None:
                task.future.set_running_or_notify_cancel()
            self._started(task)
            self._conclude(task, ended)
        return True

    def _taken(self) -> None:
        """What was told by the last ``wait`` is recorded by now: the exit files may go."""
        finished, self._finished = self._finished, []
        for key in finished:
            self._files.forget(key)

    def _launch(self, task: Task) -> None:
        key = task.key
        request: CallRequest | ProgramRequest
        if task.spec.function is not None:
            try:
                request = CallRequest(key, worker_client.call_message(task, [], None), task.spec.walltime_s)
            except Exception as error:
                self._ended(
                    task, Ending(failure=Failure.LAUNCH, message=f"cannot be pickled: {described(error)}", error=error)
                )
                return
        else:
            gpus = [device for part in task.placement for device, _ in part.gpus]
            request = ProgramRequest(key, task.spec, task.need, task.attempt, gpus, self._limits(task))
        try:
            future = self._blocks.submit(pickle.dumps((self._workdir, self._token, request)))
        except Exception as error:
            self._ended(task, Ending(failure=Failure.LOST, message=f"Parsl does not take it: {error}"))
            return
        self._runs[key] = task
        future.add_done_callback(lambda done: self._heard.put((key, done)))
        self._started(task)

    def _limits(self, task: Task) -> dict[str, float | None]:
        memory_mb = task.need.memory_per_rank_mb if self._settings.memory else None
        return {
            "walltime_s": task.spec.walltime_s,
            "memory_mb": None if memory_mb is None else memory_mb * task.need.ranks,
            "output_mb": self._settings.output_mb,
        }

    def _halt(self, task: Task, grace_s: float) -> None:
        self._control.request(task.key, "stop", grace_s)

    def _send(self, task: Task, number: int) -> None:
        self._control.request(task.key, "signal", number)

    def _progress(self, task: Task) -> Mapping[str, Any] | None:
        return self._reports.newest(task.spec)

    def _suspend(self, task: Task, suspended: bool) -> None:
        self._send(task, signal.SIGSTOP if suspended else signal.SIGCONT)

    def _where(self, placement: Placement) -> Mapping[str, Any]:
        return {**super()._where(placement), "nodes": [part.node for part in placement]}

    # The threads.

    def _live(self) -> None:
        """Show that we live, whatever else may be slow."""
        while True:
            self._control.beat()
            self._hear(self._blocks.check)
            if self._enough.wait(_LOOK_S):
                return

    def _watch(self) -> None:
        """Look how many workers there are; batch systems may be slow to answer."""
        while not self._enough.is_set() and self._hear(self._blocks.workers):
            self._enough.wait(_LOOK_S)

    def _hear(self, ask: Callable[[], int | None]) -> bool:
        """Pass on what is said; whether Parsl works."""
        try:
            said = ask()
        except RlctlError as error:
            self._heard.put(("", error))
            return False
        except Exception as error:
            self._heard.put(("", LaunchError(f"Parsl: {described(error)}")))
            return False
        if said is not None:
            self._heard.put(("", said))
        return True

    def _serve(self) -> None:
        """Hear what comes of tasks and of workers, until all is let go."""
        while True:
            with self._mutex:
                if self._closing and (not self._books.tasks or self._broken is not None):
                    break
            with contextlib.suppress(queue.Empty):
                key, news = self._heard.get(timeout=0.05 if self._lost else None)
                with self._mutex:
                    self._take(key, news)
            if self._lost:
                with self._mutex:
                    self._look_after_lost()
            with self._mutex:
                self._pump()

    def _take(self, key: str, news: Future[bytes] | int | RlctlError) -> None:
        if isinstance(news, Future):
            self._control.forget(key)
            self._answered(key, self._runs.pop(key), news)
        elif isinstance(news, RlctlError):
            self._break(news)
        elif key == "" and news != self._pool.workers:
            self._pool.connected(news)
            self._books.touch()
            self._news.notify_all()  # ``wait`` may start something now

    def _answered(self, key: str, task: Task, future: Future[bytes]) -> None:
        error: BaseException | None
        try:
            error = future.exception()
        except CancelledError as canceled:  # by Parsl, as it ends
            error = canceled
        if error is None:
            answer = future.result()
            if answer[:1] == ENDED:
                self._conclude(task, json.loads(answer[1:]))
            elif answer[:1] == STOPPED:
                if task.stop is None:  # its worker had not heard of us for too long, which is not the task's fault
                    self._control.beat(at_once=True)
                self._ended(task, Ending(stopped=True))
            else:
                self._end(task, partial(worker_client.ending, answer))
        elif type(error).__name__ not in ("WorkerLost", "ManagerLost", "BadStateException"):
            self._ended(task, Ending(failure=Failure.LAUNCH, message=f"Parsl: {described(error)}"))
        elif task.spec.function is None:
            self._lost[key] = (task, str(error), time.monotonic() + PATIENCE_S)
        elif task.work is not None:
            self._ended(task, Ending(failure=Failure.SIGNAL, message=f"the worker was lost: {error}"))
        else:
            self._ended(task, Ending(failure=Failure.LOST, message=str(error)))

    def _look_after_lost(self) -> None:
        """What a lost worker ran has ended when its supervisor says so, or can be believed to have ended."""
        for key, (task, message, until) in list(self._lost.items()):
            ended = self._files.ended(key)
            if ended is None and self._files.may_run(key) and time.monotonic() < until:
                continue
            del self._lost[key]
            self._control.forget(key)
            by_itself = ended is not None and ended["why"] != "stopped" and not was_killed(ended)
            if ended is not None and (by_itself or task.stop is not None):
                self._conclude(task, ended)
                continue
            self._files.forget(key)
            self._ended(task, Ending(failure=Failure.LOST, message=message))

    def _conclude(self, task: Task, ended: Mapping[str, Any]) -> None:
        key = task.key
        if ended["why"] == "stopped" and task.stop is None:
            self._control.beat(at_once=True)
        program = Program(task, self._workdir, self._workdir / FOLDER / "none", self._applications, self._bare)
        self._end(task, lambda: program.ending(ended))
        if self._journal is None:
            self._files.forget(key)
        elif not self._records_ends:
            self._finished.append(key)

    def _recorded(self, task: Task) -> None:
        if task.spec.function is None:
            self._files.forget(task.key)

    def _release_all(self) -> None:
        with self._mutex:
            if self._let_go:
                return
            self._let_go = True
            if self._broken is None:
                self._taken()
            self._control.close()
        self._enough.set()
        self._blocks.leave()
        for thread in self._others:
            thread.join()
        if self._runs:  # it is broken: nobody else waits for their end
            self._files.wait_for_programs()
        if self._blocks.ours:
            self._files.wait_for_workers()
            self._blocks.stop()
        self._session.unlink(missing_ok=True)
        self._files.remove_empty()
        self._control.remove_partial()

    def _wake(self) -> None:
        """End the sleep of the thread."""
        if threading.current_thread() is not self._thread:
            self._heard.put(("awake", 0))
