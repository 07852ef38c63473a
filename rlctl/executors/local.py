"""The local executor: tasks as real processes on the cores and GPUs of this machine.

Programs run each in a session of their own, functions in warm workers. A task holds its cores from its start until no
process of its session is alive. If the controller dies, see ``rlctl.executors.reaper`` for what becomes of its tasks.
Memory is not limited.
"""

from __future__ import annotations

import contextlib
import heapq
import math
import os
import platform
import selectors
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlctl.errors import LaunchError
from rlctl.executors.base import Capacity
from rlctl.executors.mpi import mpiexec_command
from rlctl.executors.program import Ending, Program
from rlctl.executors.reaper import Lease, send_signal, session_processes, start_time
from rlctl.executors.slots import Placement, Slots, machine_slots
from rlctl.executors.worker import Call, Worker
from rlctl.task import Event, Failure, TaskId, TaskResult, TaskSpec, TaskState

if TYPE_CHECKING:
    from rlctl.driver import Recorder

GRACE_S = 2.0
"""Seconds between SIGTERM and SIGKILL at a walltime, at shutdown, and for what a program leaves in its session."""

_POLL_S = 0.02
_Queued = tuple[float, int, TaskSpec, int]  # (-priority, order of submission, task, attempt)


@dataclass(slots=True)
class _Running:
    spec: TaskSpec
    attempt: int
    order: int
    placement: Placement
    run: Program | Call
    started_s: float
    stop_at: float | None = None  # walltime; None: the clock has not begun
    kill_at: float = math.inf  # SIGTERM was sent, SIGKILL follows then
    stopped: TaskState | Failure | None = None  # why it was stopped
    ended: bool = False  # its first process, or its function


class LocalExecutor:
    """An executor on this machine; see ``rlctl.executors.base.Executor`` for the contract.

    Not safe to use from several threads. All times inside are those of the monotonic clock.
    """

    deterministic = False

    def __init__(
        self, capacity: Capacity, workdir: Path, journal: Recorder | None = None, start_s: float = 0.0
    ) -> None:
        """Take the machine.

        Args:
            capacity: cores and GPUs to use; all nodes are this machine.
            workdir: working directory of the tasks, made if need be; their output goes to its folder ``logs``.
            journal: where ``submitted``, ``launching`` and ``started`` are written before they are acted upon.
            start_s: where the clock stands; a resumed campaign goes on where it stood.

        Raises:
            LaunchError: this machine has less, or another executor uses the folder.
        """
        self.capacity = capacity
        self._origin = time.monotonic() - start_s
        self._workdir = workdir.absolute()
        self._journal = journal
        cores, gpus = machine_slots(capacity)
        self._slots = Slots(cores, gpus)
        self._whole = (cores, gpus)
        self._queue: list[_Queued] = []
        self._running: dict[TaskId, _Running] = {}
        self._known: set[TaskId] = set()
        self._events: list[Event] = []
        self._order = 0
        self._workers: dict[int, Worker] = {}
        self._closed = False
        self._lease = Lease(self._workdir)
        self._selector = selectors.DefaultSelector()
        self._woken, self._waker = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(self._waker, False)
        self._selector.register(self._woken, selectors.EVENT_READ)

    def now(self) -> float:
        """Seconds since the campaign began."""
        return time.monotonic() - self._origin

    def submit_task(self, spec: TaskSpec, attempt: int = 1) -> None:
        """Queue a task. A uid that is already known is ignored.

        Raises:
            LaunchError: it can never run here.
        """
        if spec.uid in self._known:
            return
        self._check(spec)
        self._record("submitted", {"uid": spec.uid, "attempt": attempt, "parameters": dict(spec.parameters)})
        self._known.add(spec.uid)
        self._order += 1
        heapq.heappush(self._queue, (-spec.priority, self._order, spec, attempt))

    def cancel(self, uid: TaskId, grace_s: float = 5.0) -> None:
        """Stop a task: SIGTERM, after ``grace_s`` SIGKILL to all its processes. Ended and unknown ones are ignored."""
        task = self._running.get(uid)
        if task is not None:
            if task.stopped is None and not task.ended and not task.run.ended():
                self._stop(task, TaskState.CANCELED, grace_s)
            return
        for entry in self._queue:
            if entry[2].uid == uid:
                self._queue.remove(entry)
                heapq.heapify(self._queue)
                now = self.now()
                self._finish(entry[2], entry[3], TaskState.CANCELED, now, now)
                return

    def wait(self, timeout_s: float | None = None) -> list[Event]:
        """Start what fits, then sleep until the next events and return them in order of time."""
        end = math.inf if timeout_s is None else time.monotonic() + timeout_s
        self._lease.renew()
        self._start()
        while not self._events and self._running:
            now = time.monotonic()
            due = min(end, *(self._due(task, now) for task in self._running.values()))
            self._selector.select(None if due == math.inf else max(0.0, due - now))
            with contextlib.suppress(BlockingIOError):
                os.read(self._woken, 4096)
            for task in list(self._running.values()):
                self._attend(task)
            if time.monotonic() >= end:
                break
        events, self._events = self._events, []
        return events

    def shutdown(self) -> None:
        """Stop everything that still runs, confirm it, release what is held; may be called twice."""
        if self._closed:
            return
        self._closed = True
        self._queue.clear()
        for task in self._running.values():
            if task.kill_at == math.inf and not task.run.ended():
                self._stop(task, TaskState.CANCELED, GRACE_S)
        while self._running:
            for task in list(self._running.values()):
                self._attend(task)
            time.sleep(_POLL_S if self._running else 0.0)
        self._queue.clear()  # a retry may have come back
        for worker in self._workers.values():
            worker.close()
        self._workers.clear()
        self._lease.close()
        self._selector.close()
        os.close(self._woken)
        os.close(self._waker)

    def _check(self, spec: TaskSpec) -> None:
        self.capacity.check(spec)
        need = spec.resources
        if Slots(*self._whole).take(need) is None:
            raise LaunchError(f"task {spec.uid}: {need.ranks} ranks of {need.gpus_per_rank:g} GPUs never fit here")
        if spec.function is not None and (need.ranks > 1 or need.gpus_per_rank > 0.0):
            raise LaunchError(f"task {spec.uid}: a function runs on one rank without GPUs: make it a program instead")
        if need.ranks > 1:
            mpiexec_command(need.ranks)  # find out now, not when it starts

    def _start(self) -> None:
        while self._queue and not self._closed:
            _, order, spec, attempt = self._queue[0]
            placement = self._slots.take(spec.resources)
            if placement is None:
                return
            heapq.heappop(self._queue)
            self._launch(spec, attempt, order, placement)

    def _launch(self, spec: TaskSpec, attempt: int, order: int, placement: Placement) -> None:
        identity = {"uid": spec.uid, "attempt": attempt}
        self._record("launching", {**identity, "cores": list(placement.cores), "gpus": dict(placement.gpus)})
        run: Program | Call
        started_s = self.now()
        try:
            if spec.function is not None:
                run = Call(spec, placement.cores, self._worker(placement.cores[0]))
            else:
                run = Program(spec, attempt, placement, self._workdir, self._lease)
        except (OSError, LaunchError) as error:
            self._slots.give(placement)
            self._conclude(spec, attempt, order, started_s, Ending(failure=Failure.LAUNCH, message=str(error)))
            return
        task = _Running(spec, attempt, order, placement, run, started_s)
        self._running[spec.uid] = task
        if isinstance(run, Program):
            began = start_time(run.sid)
            self._lease.hold(run.sid, began)
            if run.pidfd is not None:
                self._selector.register(run.pidfd, selectors.EVENT_READ)
            if self._journal is not None:
                self._record("started", {**identity, "pid": run.sid, "starttime": began, **_machine()})
        self._begin_clock(task)
        self._events.append(Event(started_s, spec.uid, TaskState.RUNNING, attempt))

    def _worker(self, core: int) -> Worker:
        worker = self._workers.get(core)
        if worker is not None and not worker.alive:
            self._selector.unregister(worker.reader)
            worker.close()
            worker = None
        if worker is None:
            worker = self._workers[core] = Worker(self._workdir, self._lease, self._wake)
            self._selector.register(worker.reader, selectors.EVENT_READ)
        return worker

    def _begin_clock(self, task: _Running) -> None:
        if task.stop_at is None and task.run.sid is not None:
            walltime_s = task.spec.walltime_s
            task.stop_at = math.inf if walltime_s is None else time.monotonic() + walltime_s

    def _due(self, task: _Running, now: float) -> float:
        """When a task must be looked at, whatever else happens."""
        if task.ended or now >= task.kill_at or (isinstance(task.run, Program) and task.run.pidfd is None):
            return now + _POLL_S
        if task.stop_at is None:
            return now + 0.1  # the worker may fail to start
        return task.kill_at if task.stopped is not None else task.stop_at

    def _attend(self, task: _Running) -> None:
        """Look at a running task: has it ended, is it too late, is it dead."""
        run = task.run
        if not task.ended and run.ended():
            task.ended = True
            if run.pidfd is not None:
                self._selector.unregister(run.pidfd)
        self._begin_clock(task)
        now = time.monotonic()
        if not task.ended:
            if task.stopped is None and task.stop_at is not None and now >= task.stop_at:
                self._stop(task, Failure.TIMEOUT, GRACE_S)
            elif now >= task.kill_at and run.sid is not None:
                send_signal(session_processes(run.sid), signal.SIGKILL)
            return
        if remains := run.remains():
            if task.kill_at == math.inf:  # it ended by itself and left something behind
                task.kill_at = now + GRACE_S
                send_signal(remains, signal.SIGTERM)
            elif now >= task.kill_at:
                send_signal(remains, signal.SIGKILL)
            return
        if task.stopped is None:
            ending = run.ending()
        elif task.stopped is Failure.TIMEOUT:
            ending = Ending(failure=Failure.TIMEOUT, message=f"stopped at its walltime of {task.spec.walltime_s:g} s")
        else:
            ending = None
        run.close()
        if isinstance(run, Program):
            self._lease.release(run.sid)
        del self._running[task.spec.uid]
        self._slots.give(task.placement)
        self._conclude(task.spec, task.attempt, task.order, task.started_s, ending)

    def _stop(self, task: _Running, why: TaskState | Failure, grace_s: float) -> None:
        task.stopped = task.stopped or why
        task.kill_at = time.monotonic() + grace_s
        if task.run.sid is not None:
            send_signal(session_processes(task.run.sid), signal.SIGTERM)
        elif isinstance(task.run, Call):
            task.run.drop()
            self._wake()

    def _conclude(self, spec: TaskSpec, attempt: int, order: int, started_s: float, ending: Ending | None) -> None:
        """An attempt is over: the task is DONE, CANCELED (no ending), queued again, or FAILED."""
        now = self.now()
        if ending is None:
            self._finish(spec, attempt, TaskState.CANCELED, started_s, now)
        elif ending.failure is None:
            self._finish(spec, attempt, TaskState.DONE, started_s, now, ending)
        elif attempt <= spec.retries:
            heapq.heappush(self._queue, (-spec.priority, order, spec, attempt + 1))
            self._events.append(Event(now, spec.uid, TaskState.QUEUED, attempt + 1))
        else:
            self._finish(spec, attempt, TaskState.FAILED, started_s, now, ending)

    def _finish(
        self,
        spec: TaskSpec,
        attempt: int,
        state: TaskState,
        started_s: float,
        ended_s: float,
        ending: Ending | None = None,
    ) -> None:
        end = ending or Ending()
        cores = spec.resources.cores
        result = TaskResult(spec.uid, state, attempt, end.values, end.failure, end.message, started_s, ended_s, cores)
        self._events.append(Event(ended_s, spec.uid, state, attempt, result))

    def _wake(self) -> None:
        """Called from Pebble's threads: end the sleep in ``wait``."""
        with contextlib.suppress(OSError):  # full: awake anyway; closed: nobody sleeps
            os.write(self._waker, b"x")

    def _record(self, kind: str, data: Mapping[str, Any]) -> None:
        if self._journal is not None:
            self._journal.append(kind, self.now(), data)


def _machine() -> dict[str, str]:
    """Where and in which life of the machine a process number is valid."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return {"host": platform.node(), "boot_id": boot.read_text().strip() if boot.exists() else ""}
