"""The local executor: tasks as real processes on the cores and GPUs of this machine.

Functions run in warm workers, one at a time in each; programs run each in a session of its own under a supervisor
(``supervisor``), which also says what becomes of them when the controller dies. A task holds its place
until nothing that it has started is alive.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import selectors
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlctl.core.errors import RlctlError
from rlctl.core.machine import Capacity, Scoring
from rlctl.core.task import Failure, TaskSpec, TaskState
from rlctl.executors.application import Application
from rlctl.executors.devices import HIDDEN, without_masks
from rlctl.executors.functions import serialization, worker_client
from rlctl.executors.functions.worker_client import Worker
from rlctl.executors.futures import ExecutorBroken
from rlctl.executors.local.inventory import Layout, Places, available_cores
from rlctl.executors.local.process_task import LOGS, Program, check_program
from rlctl.executors.local.processes import capped
from rlctl.executors.local.progress_files import Reports
from rlctl.executors.local.supervisor import GRACE_S, TASK
from rlctl.executors.local.supervisor_client import Supervision
from rlctl.executors.mpi import clean_environment
from rlctl.executors.naming import attempt_key
from rlctl.executors.pool import Placement
from rlctl.executors.recovery import Past, placement_of
from rlctl.executors.scheduler import Ending, Task
from rlctl.executors.served import ServedExecutor, check_call
from rlctl.executors.sharing import Clock, Share
from rlctl.system.terminal import open_closed_streams

if TYPE_CHECKING:
    from rlctl.core.records import Recorder

REPLACEMENTS = 5
"""Supervisors that die so often, one after the other, before they are of use are not replaced any more."""

LONG_S = 60.0
"""A supervisor that lives so long is of use, though it may have had nothing to tell."""

_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Settings:
    """How a ``LocalExecutor`` treats its tasks.

    Attributes:
        pin: whether tasks may use only the cores that they were given.
        lease_s: how long programs go on when the controller has died; a later one takes them over.
        memory: whether a task that uses more memory than it asked for is stopped.
        output_mb: a task that writes more than so many MiB to its standard output or error is stopped.
        oversubscribe: whether more cores and GPUs than this machine has may be booked, to rehearse another one's shape.
        applications: environments of programs, by name.
    """

    pin: bool = True
    lease_s: float = 0.0
    memory: bool = True
    output_mb: float | None = 1024.0
    oversubscribe: bool = False
    applications: Mapping[str, Application] = field(default_factory=dict)


class LocalExecutor(ServedExecutor):
    """An executor on this machine; see ``rlctl.executors.base.Executor`` for the contract.

    ``LocalExecutor(max_workers=4)`` takes the place of a ``ProcessPoolExecutor``; ``LocalExecutor(Capacity(cores=4),
    workdir=...)`` runs the tasks of a campaign, inside ``wait`` only.

    >>> with LocalExecutor(max_workers=1) as executor:
    ...     executor.submit(pow, 2, 10).result()
    1024
    """

    def __init__(
        self,
        capacity: Capacity | None = None,
        workdir: Path | None = None,
        journal: Recorder | None = None,
        start_s: float = 0.0,
        *,
        max_workers: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        eager: bool | None = None,
        scoring: Scoring | None = None,
        backfill: bool | None = None,
        settings: Settings | None = None,
        past: Past | None = None,
        share: Share | None = None,
    ) -> None:
        """Take the machine.

        Args:
            capacity: nodes, cores and GPUs to use; all nodes are this machine. None: one node of ``max_workers`` cores.
            workdir: working directory of programs, made if need be; their output goes to its folder ``logs``. None: a
                temporary folder, and what workers print is seen.
            journal: where ``submitted``, ``launching`` and ``started`` are written before they are acted upon; who
                takes the events records those. See ``attach`` for an executor that records all by itself.
            start_s: where the clock stands; a resumed campaign goes on where it stood.
            max_workers: cores, if no capacity is given; None: as many as this process may use.
            initializer, initargs: called in each worker before its first function.
            eager: start tasks as soon as they fit, rather than inside ``wait``; None: unless there is a capacity.
            scoring: chooses nodes.
            backfill: whether tasks may overtake one that does not fit yet; None: if ``eager``.
            settings: the rest.
            past: what a journal says of former controllers.
            share: its part in a campaign of several pools, with their clock and past; None: it is alone.

        Raises:
            LaunchError: this machine has less, or another executor uses the folder.
        """
        open_closed_streams()
        like_a_pool = capacity is None
        if max_workers is not None and max_workers < 1:
            raise ValueError("max_workers must be greater than 0")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        self._settings = settings or Settings(pin=not like_a_pool, oversubscribe=like_a_pool)
        if capacity is None:
            capacity = Capacity(cores=max_workers or len(available_cores()))
        eager = like_a_pool if eager is None else eager
        super().__init__(
            capacity,
            eager=eager,
            journal=journal,
            scoring=scoring,
            backfill=eager if backfill is None else backfill,
            share=share,
        )
        self._layout = self._find_layout(capacity)
        self._clock = Clock(start_s) if share is None else share.clock
        self._temporary = tempfile.mkdtemp(prefix="rlctl-") if workdir is None else None
        self._workdir = Path(self._temporary or workdir or "").absolute()
        self._reports = Reports(self._workdir)
        self._initializer = None if initializer is None else serialization.dump((initializer, initargs, {}), None)
        self._past = past or (Past() if share is None else share.past)
        self._kept: dict[str, Placement] = {}  # of programs that nobody has asked for yet
        self._programs: dict[str, Program] = {}
        self._finished: list[str] = []  # keys of ended programs that may be acknowledged
        self._workers: dict[tuple[int, int], Worker] = {}
        self._bare = without_masks(self._find_environment())
        self._let_go = False
        self._marks = itertools.count(1)
        self._deaths = 0  # of supervisors that were of no use, one after the other
        self._supervised_since = time.monotonic()
        try:
            name, epoch = "" if share is None else share.pool, self._past.epoch
            self._supervision = Supervision(self._workdir, self._bare, epoch, self._settings.lease_s, name=name)
        except BaseException:
            self._remove_temporary()
            raise
        self._clock.skip(self._supervision.left.gone_s)
        self._keep_places()
        self._selector = selectors.DefaultSelector()
        self._woken, self._waker = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(self._waker, False)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._selector.register(self._supervision, selectors.EVENT_READ, self._hear)
        self._begin_serving()

    def now(self) -> float:
        """Seconds since the campaign began."""
        return self._clock.now()

    def attach(self, journal: Recorder) -> None:
        """From now on, write all to a journal, and go on with what is in it."""
        with self._mutex:
            super().attach(journal)
            self._keep_places()

    # What is different where tasks do not run on this machine.

    def _find_layout(self, capacity: Capacity) -> Places:
        """What the numbers of the books mean."""
        beside = 0 if self._share is None else self._share.beside
        return Layout(capacity, oversubscribe=self._settings.oversubscribe, first=beside)

    def _find_environment(self) -> dict[str, str]:
        """Of all programs and workers."""
        return clean_environment(os.environ)

    def _program(self, task: Task) -> Program:
        settings, scratch = self._settings, self._supervision.scratch
        return Program(task, self._workdir, scratch, settings.applications, self._bare)

    def _make_worker(self, node: int, mark: str, environment: Mapping[str, str]) -> Worker:
        """A worker on a node; ``mark`` stands in its environment."""
        log = workdir = None
        if self._temporary is None:
            (self._workdir / LOGS).mkdir(exist_ok=True)
            workdir, log = self._workdir, self._workdir / LOGS / "calls.out"
        scratch = self._supervision.scratch
        return Worker(environment, scratch, f"{TASK}={mark}", workdir, log, self._initializer)

    # The hooks.

    def _accept(self, spec: TaskSpec) -> None:
        if spec.function is not None:
            check_call(spec)
            return
        check_program(spec, self._settings.applications, self._bare)

    def _resume(self, task: Task) -> bool:
        """Go on with an attempt that still runs, or has ended unseen, or is known to have ended."""
        if super()._resume(task):
            return True
        attempt = self._past.attempts.get(task.uid)
        if attempt is None:
            return False
        key = attempt_key(task.uid, attempt.number)
        with self._mutex:
            left = self._supervision.left
            if left.ended.get(key, {}).get("why") == "stopped":  # at the end of the lease: it did not come to its end
                del left.ended[key]
                self._supervision.forget_exit(key)
            if task.spec.function is not None or (key not in left.running and key not in left.ended):
                return False
            task.attempt = attempt.number
            self._books.pool.give(self._kept.pop(key, ()))
            placement = placement_of(attempt, self.capacity, task.need, self._first_node)
            placed = placement is not None and self._books.adopt(task, placement, self.now(), attempt.since_s)
            if not placed:
                self._books.tasks[task.uid] = task
            elif task.future is not None:
                task.future.set_running_or_notify_cancel()
            run = self._programs[key] = self._program(task)
            if key in left.ended:
                self._started(task)
                self._conclude(key, left.ended.pop(key))
                return True
            run.pid, run.start = left.running.pop(key)
            if placed:
                self._note_start(task, run.pid, run.start)
                self._started(task)
            else:  # others have its place by now: it runs again when it has stopped
                task.stop = TaskState.PREEMPTED
                self._supervision.send("stop", key=key, grace_s=GRACE_S)
            return True

    def _keep_places(self) -> None:
        """What still runs keeps its place until it is asked for again, whatever is submitted before."""
        if not self._eager:  # nothing starts before everything has been asked for
            return
        for uid, attempt in self._past.attempts.items():
            key = attempt_key(uid, attempt.number)
            if key in self._supervision.left.running and key not in self._kept:
                placement = placement_of(attempt, self.capacity, first_node=self._first_node)
                if placement is not None and self._books.pool.occupy(placement):
                    self._kept[key] = placement

    def _taken(self) -> None:
        """What was told by the last ``wait`` is recorded by now: the supervisor may forget it."""
        left = self._supervision.left
        for key in left.running:  # nobody has asked for it again: the campaign has no use for it
            self._supervision.send("stop", key=key, grace_s=GRACE_S)
        left.running.clear()
        self._finished += left.ended
        left.ended.clear()
        for key in self._finished:
            self._supervision.forget_exit(key)
        self._finished.clear()

    def _launch(self, task: Task) -> None:
        cores = self._layout.cores(task.placement) if self._settings.pin else None
        if task.spec.function is not None:
            self._call(task, cores or [])
            return
        key = task.key
        try:
            run = self._program(task)
            request = run.prepare(self._layout.gpus(task.placement))
        except (OSError, RlctlError) as error:
            self._ended(task, Ending(failure=Failure.LAUNCH, message=str(error)))
            return
        limits = self._limits(task, task.spec.walltime_s)
        self._supervision.send("run", **{"key": key, "cores": cores, **request, **limits})
        self._programs[key] = run

    def _limits(self, task: Task, walltime_s: float | None) -> dict[str, float | None]:
        memory_mb = task.need.memory_per_rank_mb if self._settings.memory else None
        return {
            "walltime_s": walltime_s,
            "memory_mb": None if memory_mb is None else memory_mb * task.need.ranks,
            "output_mb": self._settings.output_mb,
        }

    def _call(self, task: Task, cores: list[int]) -> None:
        place = (task.placement[0].node, task.placement[0].cores & -task.placement[0].cores)
        worker = self._workers.get(place)
        if worker is not None and worker.ended:  # killed while it was idle, and not yet heard of
            self._bury(worker)
            worker = None
        try:
            if worker is None:
                worker = self._workers[place] = self._new_worker(place[0])
        except OSError as error:
            self._ended(task, Ending(failure=Failure.LAUNCH, message=f"no worker can be started: {error}"))
            return
        problem = worker.call(task, cores)
        if problem is not None:
            self._ended(task, problem)
            return
        if task.spec.walltime_s is not None:
            worker.stop_at = time.monotonic() + task.spec.walltime_s
            self._wake()
        self._started(task)

    def _new_worker(self, node: int) -> Worker:
        mark = f"{self._supervision.token}:calls.{next(self._marks)}"  # its own: others are not to be stopped with it
        environment: Mapping[str, str] = os.environ
        if self._temporary is None:
            environment = self._bare | HIDDEN
        worker = self._make_worker(node, mark, {**environment, TASK: mark})
        self._supervision.send("watch", pid=worker.pid, number=int(worker.last_word))
        self._selector.register(worker.socket, selectors.EVENT_READ, lambda: self._answered(worker))
        if worker.pidfd is not None:
            self._selector.register(worker.pidfd, selectors.EVENT_READ, lambda: self._died(worker))
        self._wake()
        return worker

    def _halt(self, task: Task, grace_s: float) -> None:
        if task.spec.function is None:
            self._supervision.send("stop", key=task.key, grace_s=grace_s)
            return
        worker = self._worker_of(task)
        if worker is not None:
            worker.stopped = worker.stopped or "stopped"
            worker.terminate(time.monotonic() + grace_s)
            self._wake()

    def _send(self, task: Task, number: int) -> None:
        if task.spec.function is None:
            self._supervision.send("signal", key=task.key, number=int(number))
        elif (worker := self._worker_of(task)) is not None:
            worker.signal(number)

    def _progress(self, task: Task) -> Mapping[str, Any] | None:
        return self._reports.newest(task.spec)

    def _suspend(self, task: Task, suspended: bool) -> None:
        self._send(task, signal.SIGSTOP if suspended else signal.SIGCONT)

    def _where(self, placement: Placement) -> Mapping[str, Any]:
        return {**super()._where(placement), "nodes": [self._first_node + part.node for part in placement]}

    # The thread.

    def _serve(self) -> None:
        """Hear what workers and supervisor say, keep walltimes of calls, until all is let go."""
        while True:
            with self._mutex:
                if self._closing and (not self._books.tasks or self._broken is not None):
                    break
                timeout_s = self._due()
            for key, _ in self._selector.select(capped(timeout_s)):
                if key.fileobj == self._woken:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self._woken, 4096)
                    continue
                with self._mutex:
                    key.data()
            with self._mutex:
                self._attend()

    def _due(self) -> float | None:
        now, due = time.monotonic(), float("inf")
        for worker in self._workers.values():
            if worker.task is not None:
                due = min(due, worker.kill_at if worker.stopped else worker.stop_at)
                if now >= worker.kill_at or worker.pidfd is None:
                    due = min(due, now + _POLL_S)
        return None if due == float("inf") else max(0.0, due - now)

    def _attend(self) -> None:
        now = time.monotonic()
        for worker in list(self._workers.values()):
            if worker.task is None or (worker.pidfd is not None and now < min(worker.kill_at, worker.stop_at)):
                continue  # its end will be heard
            if now >= worker.kill_at:
                worker.kill()
            elif worker.stopped is None and now >= worker.stop_at:
                worker.stopped = "walltime"
                worker.terminate(now + GRACE_S)
            if (worker.pidfd is None or now >= worker.kill_at) and worker.ended:  # otherwise the pidfd tells
                self._died(worker)

    def _hear(self) -> None:
        """The supervisor says something."""
        messages = self._supervision.receive()
        if messages is None:
            self._replace_supervisor()
            return
        for message in messages:
            event, key = message["event"], message.get("key", "")
            self._deaths = 0 if event in ("started", "ended") else self._deaths
            run = self._programs.get(key)
            if event == "started" and run is not None:
                self._note_start(run.task, message["pid"], message["start"])
                self._started(run.task)
            elif event == "failed" and run is not None:
                del self._programs[key]
                run.clean()
                self._ended(run.task, Ending(failure=Failure.LAUNCH, message=f"{run.command[0]}: {message['error']}"))
            elif event == "ended" and run is not None:
                self._conclude(key, message)
            elif event == "ended" and key in self._supervision.left.running:  # before it was asked for again
                del self._supervision.left.running[key]
                self._supervision.left.ended[key] = message
                self._books.pool.give(self._kept.pop(key, ()))
                self._books.touch()
        self._pump()

    def _conclude(self, key: str, message: Mapping[str, Any]) -> None:
        run = self._programs.pop(key)
        self._end(run.task, lambda: run.ending(message))
        if self._journal is None:
            self._supervision.forget_exit(key)
        elif not self._records_ends:
            self._finished.append(key)

    def _recorded(self, task: Task) -> None:
        if task.spec.function is None:
            self._supervision.forget_exit(task.key)

    def _note_start(self, task: Task, pid: int, start: int) -> None:
        run = self._programs[task.key]
        run.pid, run.start = pid, start
        if self._journal is not None and task.state is TaskState.LAUNCHING:
            data = {"uid": task.uid, "attempt": task.attempt, "pid": pid, "starttime": start, **_machine()}
            self._journal.write("started", self.now(), data)

    def _replace_supervisor(self) -> None:
        """Somebody killed it. What it ran, runs on; what it was about to start is started again."""
        self._selector.unregister(self._supervision)
        now = time.monotonic()
        self._deaths = 1 if now - self._supervised_since > LONG_S else self._deaths + 1
        self._supervised_since = now
        if self._deaths == REPLACEMENTS:
            why = self._supervision.last_words()
            self._break(ExecutorBroken(f"{self._workdir}: the supervisor of its programs dies again and again: {why}"))
            return
        running = {}
        for key, run in self._programs.items():
            walltime_s = run.task.spec.walltime_s
            left_s = None if walltime_s is None else run.task.started_s + walltime_s - self.now()
            # Whether one without a number has begun, nobody knows: its mark tells; it is LOST when all is gone.
            limits = self._limits(run.task, left_s)
            running[key] = {"pid": run.pid or -1, "start": run.start, "control": run.control, **limits}
        self._supervision.replace(running)
        self._selector.register(self._supervision, selectors.EVENT_READ, self._hear)
        for worker in self._workers.values():
            self._supervision.send("watch", pid=worker.pid, number=int(worker.last_word))
        for key, run in self._programs.items():
            if run.task.stop is not None:  # the former one may not have heard it
                self._supervision.send("stop", key=key, grace_s=GRACE_S)

    def _answered(self, worker: Worker) -> None:
        if worker.closed:  # in the same round
            return
        messages = worker.receive()
        if messages is None:
            self._died(worker)
            return
        for message in messages:
            task, worker.task, worker.stop_at = worker.task, None, float("inf")
            if task is None:
                continue
            if worker.stopped:  # it came to its end before it could be stopped; the worker dies all the same
                self._bury(worker)
            self._end(task, partial(worker_client.ending, message))
        self._pump()

    def _died(self, worker: Worker) -> None:
        """The process is gone; its task has ended when all that it started is gone too."""
        if worker.closed:
            return
        if not worker.ended:
            if worker.task is None and worker in self._workers.values():
                self._bury(worker)
            return
        if worker.task is not None and worker.kill():
            worker.kill_at = min(worker.kill_at, time.monotonic())
            return
        task, worker.task = worker.task, None
        stopped = worker.stopped
        ending = worker.death()
        self._bury(worker)
        if task is not None:
            if stopped == "stopped":
                ending = Ending(stopped=True)
            elif stopped == "lost":
                ending = Ending(failure=Failure.LOST, message="its node was lost")
            elif stopped == "walltime":
                message = f"stopped at its walltime of {task.spec.walltime_s:g} s"
                ending = Ending(failure=Failure.TIMEOUT, message=message)
            self._ended(task, ending)
            self._pump()

    def _bury(self, worker: Worker) -> None:
        for place, other in list(self._workers.items()):
            if other is worker:
                del self._workers[place]
        for handle in (worker.socket, worker.pidfd):
            if handle is not None:
                with contextlib.suppress(KeyError, ValueError):
                    self._selector.unregister(handle)
        self._supervision.send("unwatch", pid=worker.pid)
        worker.close()

    def _worker_of(self, task: Task) -> Worker | None:
        return next((worker for worker in self._workers.values() if worker.task is task), None)

    def _release_all(self) -> None:
        with self._mutex:
            if self._let_go:
                return
            self._let_go = True
            for worker in list(self._workers.values()):
                self._bury(worker)
            recorded = self._broken is None
            if recorded:
                self._taken()
            self._supervision.close(keep=not recorded)
            self._selector.close()
            os.close(self._woken)
            os.close(self._waker)
            self._remove_temporary()

    def _remove_temporary(self) -> None:
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)

    def _wake(self) -> None:
        """End the sleep of the thread."""
        if threading.current_thread() is not self._thread and not self._let_go:
            with contextlib.suppress(OSError):  # full: awake anyway
                os.write(self._waker, b"x")


def _machine() -> dict[str, str]:
    """Where and in which life of the machine a process number is valid."""
    from rlctl.executors.local.processes import boot

    host, _, boot_id = boot().partition(" ")
    return {"host": host, "boot_id": boot_id}
