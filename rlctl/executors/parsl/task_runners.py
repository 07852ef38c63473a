"""Run one call or one program at a time in a worker of Parsl, and obey requests to stop or signal it meanwhile."""

from __future__ import annotations

import json
import os
import platform
import select
import selectors
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rlctl.core.errors import LaunchError, RlctlError
from rlctl.core.task import Failure
from rlctl.executors.application import ProgramEnvironments
from rlctl.executors.backend import Attempt, AttemptOutcome
from rlctl.executors.functions import serialization, worker
from rlctl.executors.functions.warm_workers import WarmWorkers
from rlctl.executors.functions.worker_client import Worker
from rlctl.executors.local.pid_file import TASK
from rlctl.executors.local.process_task import LOGS, ProcessTask
from rlctl.executors.local.processes import GRACE_S, reap, start_time
from rlctl.executors.local.supervisor_client import SupervisorClient
from rlctl.executors.node_share import NodeShare
from rlctl.executors.parsl.attempt_files import AttemptFiles, was_killed
from rlctl.executors.parsl.block_program import BlockProgram
from rlctl.executors.parsl.control_file import Session
from rlctl.system.devices import HIDDEN, visible_devices, without_masks
from rlctl.system.mpi import clean_environment

NewRequests = Callable[[], list[tuple[str, Any]]]
"""Returns requests to the running attempt that were not returned before: ``("stop", grace_s)``, ``("signal", n)``."""

STOPPED, ENDED = b"S", b"X"
"""Answers besides those of ``rlctl.executors.functions.worker``: stopped on request; how a program ended, in JSON."""

_AFTERMATH_S = 0.5
"""A batch system that ends a job kills tasks and workers; if the worker lives on, only the task was meant."""


_PLACE = (NodeShare(node=0, ranks=1, cores=1),)


class CallRunner:
    """Runs calls in one warm worker, started on demand."""

    def __init__(self, session: Session) -> None:
        self._workdir, self._session = session.workdir, session
        self._selector = selectors.DefaultSelector()
        self._workers = WarmWorkers(
            self._selector,
            self._start,
            self._report,
            watch=lambda worker, begins: None,
            read=lambda answer: AttemptOutcome(value=answer),
        )
        self._outcome: AttemptOutcome | None = None

    def run(self, attempt: Attempt, new_requests: NewRequests) -> bytes:
        """Call a function; returns the worker's answer, or how it failed."""
        self._outcome, signalled = None, False
        try:
            self._workers.call(attempt._replace(allocation=_PLACE), [])
        except LaunchError as error:
            return failure(Failure.LAUNCH, str(error))
        while self._outcome is None:
            due_s = self._workers.due_s()
            poll_s = self._session.poll_s
            for ready, _ in self._selector.select(poll_s if due_s is None else min(due_s, poll_s)):
                ready.data()
            self._workers.look()
            for verb, value in new_requests():
                if verb == "signal":
                    signalled = True
                    self._workers.signal(attempt.key, value)
                else:
                    self._workers.stop(attempt.key, value)
        if self._outcome.stopped:
            return STOPPED
        if self._outcome.failure is None:
            answer: bytes = self._outcome.value
            return answer
        if self._outcome.failure is Failure.SIGNAL and not signalled:
            time.sleep(_AFTERMATH_S)
        return failure(self._outcome.failure, self._outcome.message)

    def close(self) -> None:
        """End the worker."""
        self._workers.close()

    def _report(self, attempt: Attempt, read: Callable[[], AttemptOutcome]) -> None:
        self._outcome = read()

    def _start(self, node: int, number: int) -> Worker:
        (self._workdir / LOGS).mkdir(parents=True, exist_ok=True)
        mark = f"{self._session.token}:calls.{platform.node()}.{os.getpid()}.{number}"
        return _ForwardingWorker(
            {**_environment(), **HIDDEN, TASK: mark},
            None,
            f"{TASK}={mark}",
            self._workdir,
            self._workdir / LOGS / "calls.out",
            self._session.initializer,
            self._session.paths,
        )


class _ForwardingWorker(Worker):
    """A worker that gets its calls as the controller has pickled them."""

    def call(self, attempt: Attempt, cores: list[int]) -> None:
        """Hand over a call."""
        message: Any = attempt.call
        self.hand_over(attempt, serialization.frame(message))


class ProgramRunner:
    """Runs programs under one supervisor, started on demand."""

    def __init__(self, session: Session) -> None:
        self._workdir, self._session = session.workdir, session
        self._files = AttemptFiles(session.workdir, session.folder)
        self._environments = ProgramEnvironments(_environment(), session.options.applications)
        self._supervisor: SupervisorClient | None = None

    def run(self, attempt: Attempt, new_requests: NewRequests, silent_s: Callable[[], float]) -> bytes:
        """Run a program; returns how it ended. ``silent_s`` is how long the controller has been silent."""
        key = attempt.key
        try:
            if self._supervisor is None:
                lease = self._files.lease(self._session.token)
                self._supervisor = SupervisorClient(self._workdir, self._environments.bare, pid_file=lease)
            supervisor = self._supervisor
            self._environments.check(attempt.spec)
            kind = BlockProgram if self._session.masters else ProcessTask
            program = kind(attempt, self._workdir, supervisor.scratch, self._environments)
            gpus = [device for share in attempt.allocation for device, _ in share.gpus]
            command = program.prepare(gpu_variables(gpus))
            self._files.begin(key)
        except (OSError, RlctlError) as error:
            return failure(Failure.LAUNCH, str(error))
        options = self._session.options
        limits = program.limits(options.enforce_memory, options.output_mb)
        supervisor.send("run", key=key, cores=None, **command, **limits)
        ended, signalled = None, False
        while ended is None:
            select.select([supervisor], [], [], self._session.poll_s)
            messages = supervisor.receive()
            if messages is None:
                ended = self._supervisor_died(key, program)
                break
            for message in messages:
                if message["event"] == "started":
                    program.pid, program.start = message["pid"], message["start"]
                elif message["event"] == "failed":
                    program.clean()
                    self._files.end(key)
                    return failure(Failure.LAUNCH, f"{program.command[0]}: {message['error']}")
                elif message["event"] == "ended" and message["key"] == key:
                    ended = message
            for verb, value in new_requests():
                if verb == "signal":
                    signalled = True
                    supervisor.send("signal", key=key, number=value)
                else:
                    supervisor.send("stop", key=key, grace_s=value)
        program.clean()
        gone_s = silent_s()
        self._files.end(key, {**ended, "gone_s": gone_s if gone_s > min(10.0, options.lease_s) else 0.0})
        if self._supervisor is not None:
            self._supervisor.leave_exit(key)
        if was_killed(ended) and not signalled:
            time.sleep(_AFTERMATH_S)
        return ENDED + json.dumps(ended).encode()

    def close(self) -> None:
        """End the supervisor."""
        if self._supervisor is not None:
            self._supervisor.close(keep=True)
            self._supervisor = None

    def _supervisor_died(self, key: str, program: ProcessTask) -> Mapping[str, Any]:
        """Stop what it left; the next program gets another one."""
        assert self._supervisor is not None
        mark = f"{TASK}={self._supervisor.token}:{key}\0".encode()
        known = program.pid > 0 and start_time(program.pid) == program.start
        reap([program.pid] if known else [], mark, GRACE_S)
        self.close()
        return {"event": "ended", "key": key, "code": None, "why": None, "usage": {}}


def failure(kind: Failure, message: str) -> bytes:
    """The answer of an attempt that failed."""
    return worker.FAILURE + json.dumps([kind.value, message]).encode()


def gpu_variables(numbers: Sequence[int]) -> dict[str, str]:
    """Environment variables that show a program its GPUs, out of those that the worker may use."""
    gpus = visible_devices(os.environ)
    if gpus.names is not None and len(numbers) > len(gpus.names):
        raise LaunchError(
            f"{len(numbers)} GPUs are asked for, {gpus.source} allows this worker of Parsl {len(gpus.names)}: "
            "see available_accelerators of its configuration"
        )
    if gpus.names is not None and any(number >= len(gpus.names) for number in numbers):
        numbers = range(len(numbers))  # the worker has its own, fewer than the node
    return gpus.variables_for(numbers)


def _environment() -> dict[str, str]:
    """Of programs and workers, without masks of GPUs."""
    return without_masks(clean_environment(os.environ))
