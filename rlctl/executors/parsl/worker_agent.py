"""The far end: what runs inside a worker of Parsl, once for each task, and what stays there between tasks.

A worker of Parsl never runs a user's function itself. It keeps a warm worker of ours for calls and a supervisor for
programs, as the local executor does, so that what runs can be stopped without losing the worker, and ends with it.
While a task runs, the file of orders and the life of Parsl's manager are looked at many times a second; between tasks
a thread does so, and clears away what nobody needs any more.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pickle
import platform
import select
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlctl.core.errors import LaunchError, RlctlError
from rlctl.core.task import Failure, Resources, TaskId, TaskSpec
from rlctl.executors.application import Application
from rlctl.executors.devices import HIDDEN, visible_devices, without_masks
from rlctl.executors.functions import serialization, worker
from rlctl.executors.functions.worker_client import Worker
from rlctl.executors.local.process_task import LOGS, Program, check_program
from rlctl.executors.local.processes import boot, children_of, reap, send_signal, start_time
from rlctl.executors.local.supervisor import EXITS, GRACE_S, TASK, exit_file
from rlctl.executors.local.supervisor_client import Supervision
from rlctl.executors.mpi import clean_environment
from rlctl.executors.parsl.control_file import FOLDER, Hearing
from rlctl.executors.parsl.ranks import BlockProgram
from rlctl.executors.scheduler import Task

log = logging.getLogger(__name__)

STOPPED, ENDED = b"S", b"X"
"""Answers besides those of ``rlctl.executors.functions.worker``: stopped as asked for; how a program ended, in JSON."""

RUNNING = "running"
"""Folder with a note for each program that is about to run, or runs."""

LEASE = ".lease"
"""End of the name of a supervisor's file: ``HOST-PID-TOKEN.lease``, of the worker that has it."""

_IDLE_S = 0.5
_AFTERMATH_S = 0.5
"""When a batch system ends a job, it ends tasks and workers; a worker that is alive after so long was not meant."""

_KILLED = {-signal.SIGTERM, -signal.SIGKILL, 128 + signal.SIGTERM, 128 + signal.SIGKILL}


@dataclass(frozen=True, slots=True)
class Session:
    """What all tasks of one controller have in common; workers read it from a file.

    Attributes:
        lease_s: how long tasks go on when the controller is silent.
        poll_s: how often a busy worker looks for orders.
        ours: whether the managers were started for this controller, so that they end with it.
        masters: whether each worker is the master of a block of several hosts.
        paths: where functions are found.
        initializer: message for each warm worker to begin with.
    """

    token: str
    lease_s: float
    poll_s: float
    ours: bool
    masters: bool
    paths: Sequence[str]
    initializer: bytes | None
    applications: Mapping[str, Application]


@dataclass(frozen=True, slots=True)
class Call:
    """A function to call: the message for a warm worker."""

    key: str
    message: bytes
    walltime_s: float | None = None


@dataclass(frozen=True, slots=True)
class Exec:
    """A program to run.

    Attributes:
        gpus: numbers of devices of the node.
        limits: ``walltime_s``, ``memory_mb`` and ``output_mb``, as the supervisor keeps them.
    """

    key: str
    spec: TaskSpec
    need: Resources
    attempt: int
    gpus: Sequence[int] = ()
    limits: Mapping[str, float | None] = field(default_factory=dict)


_here: list[Station] = []  # of this process: the one of the last controller that sent a task


def perform(buffer: bytes) -> bytes:
    """Run one task; what Parsl calls in its worker.

    Args:
        buffer: working folder, token of the controller, and a ``Call`` or an ``Exec``, pickled.
    """
    workdir, token, request = pickle.loads(buffer)
    station = _here[0] if _here else None
    if station is None or station.session.token != token:
        if station is not None:
            with station.busy:
                station.close()
        try:
            session = pickle.loads((workdir / FOLDER / f"session-{token}").read_bytes())
        except OSError as error:
            where = f"{platform.node()} does not see the run folder ({error})"
            return _failure(Failure.LAUNCH, f"{where}: put it on a file system that all workers share")
        station = Station(workdir, session)
        _here[:] = [station]
    with station.busy:
        if station.closed:  # its thread came first
            return STOPPED
        return station.call(request) if isinstance(request, Call) else station.run(request)


class Station:
    """What one worker of Parsl keeps for one controller.

    Attributes:
        busy: held while a task runs, or while all is let go.
        closed: whether all was let go.
    """

    def __init__(self, workdir: Path, session: Session) -> None:
        self.session = session
        self.busy = threading.Lock()
        self.closed = False
        self._workdir = workdir
        self._folder = workdir / FOLDER
        self._hearing = Hearing(self._folder, session.token, session.lease_s)
        self._bare = without_masks(clean_environment(os.environ))
        self._worker: Worker | None = None
        self._supervision: Supervision | None = None
        self._served = 0
        manager = os.getppid()
        self._manager = manager
        # Managers start a server process of their own, which nobody ends when they are killed.
        self._kin = {pid: start_time(pid) for pid in children_of(manager) if pid != os.getpid() and not _tracks(pid)}
        self._kin[manager] = start_time(manager)
        threading.Thread(target=self._attend, name="rlctl-station", daemon=True).start()

    # A call.

    def call(self, request: Call) -> bytes:
        """Have the warm worker call a function; its answer, or how it failed."""
        warm = self._worker
        if warm is not None and warm.ended:  # killed while it was idle
            self._let_worker_go()
            warm = None
        try:
            if warm is None:
                warm = self._worker = self._new_worker()
        except OSError as error:
            return _failure(Failure.LAUNCH, f"no worker can be started: {error}")
        warm.stopped, warm.kill_at = None, float("inf")
        warm.stop_at = float("inf") if request.walltime_s is None else time.monotonic() + request.walltime_s
        warm.hand_over(_CALL, serialization.frame(request.message))
        obey, signalled = self._obeyed(request.key), False
        look_at = time.monotonic() + self.session.poll_s
        poll = select.poll()
        poll.register(warm.socket, select.POLLIN)
        if warm.pidfd is not None:
            poll.register(warm.pidfd, select.POLLIN)
        while True:
            now = time.monotonic()
            due = min(look_at, warm.kill_at if warm.stopped else warm.stop_at)
            poll.poll(max(0.0, (due - now) * 1e3) if now < warm.kill_at else 20)
            answers = warm.receive()
            if answers is None and not warm.ended:  # its end is near
                time.sleep(0.001)
            if answers:
                if warm.stopped:  # it came to its end before it could be stopped; the worker dies all the same
                    self._let_worker_go()
                warm.task = None
                return answers[0]
            if warm.ended and not warm.kill():
                return self._dead(warm, request, signalled)
            now = time.monotonic()
            if now >= warm.kill_at:
                warm.kill()
            elif warm.stopped is None and now >= warm.stop_at:
                warm.stopped = "walltime"
                warm.terminate(now + GRACE_S)
            if now >= look_at:
                look_at = now + self.session.poll_s
                for order, number in obey():
                    if order == "signal":
                        signalled = True
                        warm.signal(number)
                    elif warm.stopped is None:
                        warm.stopped = "stopped"
                        warm.terminate(now + number)

    def _new_worker(self) -> Worker:
        (self._workdir / LOGS).mkdir(parents=True, exist_ok=True)
        self._served += 1
        mark = f"{self.session.token}:calls.{platform.node()}.{os.getpid()}.{self._served}"
        return Worker(
            {**self._bare, **HIDDEN, TASK: mark},
            None,
            f"{TASK}={mark}",
            self._workdir,
            self._workdir / LOGS / "calls.out",
            self.session.initializer,
            self.session.paths,
        )

    def _dead(self, warm: Worker, request: Call, signalled: bool) -> bytes:
        warm.task = None
        stopped, ending = warm.stopped, warm.death()
        self._let_worker_go()
        if stopped == "stopped":
            return STOPPED
        if stopped == "walltime":
            return _failure(Failure.TIMEOUT, f"stopped at its walltime of {request.walltime_s:g} s")
        if ending.failure is Failure.SIGNAL and not signalled:
            time.sleep(_AFTERMATH_S)
        assert ending.failure is not None
        return _failure(ending.failure, ending.message)

    def _let_worker_go(self) -> None:
        if self._worker is not None:
            self._worker.task = None
            self._worker.close()
            self._worker = None

    # A program.

    def run(self, request: Exec) -> bytes:
        """Have the supervisor run a program; how it ended."""
        key, obey = request.key, self._obeyed(request.key)
        self._hearing.look()
        if self._hearing.over:  # the controller has gone since it sent this, or comes back just now
            time.sleep(self.session.poll_s)
            return STOPPED
        task = Task(TaskId(request.spec.uid), request.spec, request.need, 0.0, 0, request.attempt)
        try:
            supervision = self._supervision = self._supervision or self._supervise()
            check_program(request.spec, self.session.applications, self._bare)
            kind = BlockProgram if self.session.masters else Program
            program = kind(task, self._workdir, supervision.scratch, self.session.applications, self._bare)
            asked = program.prepare(devices(request.gpus))
            note = self._note(key)
        except (OSError, RlctlError) as error:
            return _failure(Failure.LAUNCH, str(error))
        supervision.send("run", key=key, cores=None, **asked, **request.limits)
        ended, signalled = None, False
        while ended is None:
            select.select([supervision], [], [], self.session.poll_s)
            messages = supervision.receive()
            if messages is None:
                ended = self._unseen(key, program)
                break
            for message in messages:
                if message["event"] == "started":
                    program.pid, program.start = message["pid"], message["start"]
                elif message["event"] == "failed":
                    program.clean()
                    note.unlink(missing_ok=True)
                    return _failure(Failure.LAUNCH, f"{program.command[0]}: {message['error']}")
                elif message["event"] == "ended" and message["key"] == key:
                    ended = message
            for order, number in obey():
                if order == "signal":
                    signalled = True
                    supervision.send("signal", key=key, number=number)
                else:
                    supervision.send("stop", key=key, grace_s=number)
        program.clean()
        self._keep(key, ended)
        note.unlink(missing_ok=True)
        if was_killed(ended) and not signalled:
            time.sleep(_AFTERMATH_S)
        return ENDED + json.dumps(ended).encode()

    def _supervise(self) -> Supervision:
        name = f"{platform.node()}-{os.getpid()}-{self.session.token}{LEASE}"
        return Supervision(self._workdir, self._bare, note=self._folder / name)

    def _note(self, key: str) -> Path:
        """Tell whoever looks into the folder that a program may be running."""
        path = self._folder / RUNNING / exit_file(key)
        path.write_text(json.dumps({"key": key, "boot": boot(), "session": self.session.token}))
        return path

    def _keep(self, key: str, ended: Mapping[str, Any]) -> None:
        """Write how it ended into a file; the controller may have gone, and removes the file if it has not."""
        silent_s = self._hearing.silent_s
        gone_s = silent_s if silent_s > min(10.0, self.session.lease_s) else 0.0
        path = self._workdir / EXITS / exit_file(key)
        with contextlib.suppress(OSError):  # a full disk: then it may be run again
            path.parent.mkdir(exist_ok=True)
            new = path.with_name(f".{path.name}.new")
            new.write_text(json.dumps({**ended, "gone_s": gone_s}))
            os.replace(new, path)
        if self._supervision is not None:
            self._supervision.leave_exit(key)

    def _unseen(self, key: str, program: Program) -> dict[str, Any]:
        """The supervisor was killed: another one is started for the next program, and what this one left is stopped."""
        assert self._supervision is not None
        mark = f"{TASK}={self._supervision.token}:{key}\0".encode()
        ours = program.pid > 0 and start_time(program.pid) == program.start
        reap([program.pid] if ours else [], mark, GRACE_S)
        self._supervision.close()
        self._supervision = None
        return {"event": "ended", "key": key, "code": None, "why": None, "usage": {}}

    # Orders.

    def _obeyed(self, key: str) -> Callable[[], list[tuple[str, Any]]]:
        """What to do next about an attempt: orders that have not been given before, at most one of the last kind."""
        obeyed = 0
        ending = False
        looked_at = 0.0

        def obey() -> list[tuple[str, Any]]:
            nonlocal obeyed, ending, looked_at
            now = time.monotonic()
            if now < looked_at + self.session.poll_s:
                return []
            looked_at = now
            self._hearing.look()
            orders = self._hearing.orders(key, obeyed)
            obeyed += len(orders)
            found = [(str(order[0]), order[1]) for order in orders]
            if os.getppid() != self._manager:
                self._leave()
            if self._hearing.over and not ending:
                ending = True
                found.append(("stop", GRACE_S))
            return found

        return obey

    def _attend(self) -> None:
        """Between tasks: let go of what is not needed, leave when the controller or the manager has gone."""
        while not self.closed:
            time.sleep(max(_IDLE_S, self.session.poll_s))
            if not self.busy.acquire(blocking=False):
                continue
            try:
                if self.closed:
                    return
                self._hearing.look()
                if os.getppid() != self._manager:
                    self._leave()
                if self._hearing.over:
                    self.close()
                    if self.session.ours and self._hearing.over != "closed":
                        self._leave()
            except Exception:  # a worker that no longer looks whether its controller lives would stay for ever
                log.exception("%s: between two tasks", self._workdir)
            finally:
                self.busy.release()

    def close(self) -> None:
        """Let go of all; whoever calls it holds ``busy``."""
        if self.closed:
            return
        self.closed = True
        self._let_worker_go()
        if self._supervision is not None:
            self._supervision.close(keep=True)
            self._supervision = None

    def _leave(self) -> None:
        """End this worker, and its manager with all that it has started."""
        self.close()
        send_signal([pid for pid, start in self._kin.items() if start and start_time(pid) == start], signal.SIGKILL)
        os._exit(1)


_CALL = Task(TaskId("call"), TaskSpec(TaskId("call"), function=":"), Resources(), 0.0, 0)


def devices(numbers: Sequence[int]) -> dict[str, str]:
    """Variables that show a program its GPUs, of those that the worker may use.

    Raises:
        LaunchError: these are fewer.
    """
    gpus = visible_devices(os.environ)
    if gpus.names is not None and len(numbers) > len(gpus.names):
        raise LaunchError(
            f"{len(numbers)} GPUs are asked for, {gpus.source} allows this worker of Parsl {len(gpus.names)}: "
            "see available_accelerators of its configuration"
        )
    if gpus.names is not None and any(number >= len(gpus.names) for number in numbers):
        numbers = range(len(numbers))  # the worker has its own, fewer than the node
    return gpus.variables_for(numbers)


def was_killed(ended: Mapping[str, Any]) -> bool:
    """Whether a program got SIGTERM or SIGKILL of somebody unknown: a batch system, as a rule."""
    return ended["why"] is None and ended["code"] in _KILLED


def _tracks(pid: int) -> bool:
    """Whether it is the process that unlinks semaphores when all others have ended, as it does by itself."""
    with contextlib.suppress(OSError):
        return b"resource_tracker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def _failure(kind: Failure, message: str) -> bytes:
    return worker.FAILURE + json.dumps([kind.value, message]).encode()
