"""Run one call or one program at a time in a worker of Parsl, and obey requests to stop or signal it meanwhile."""

from __future__ import annotations

import json
import os
import platform
import select
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlctl.core.errors import LaunchError, RlctlError
from rlctl.core.task import Failure
from rlctl.executors.backend import Attempt
from rlctl.executors.devices import HIDDEN, visible_devices, without_masks
from rlctl.executors.functions import serialization
from rlctl.executors.functions.worker_client import Worker
from rlctl.executors.local.pid_file import TASK
from rlctl.executors.local.process_task import LOGS, ProcessTask, check_program
from rlctl.executors.local.processes import GRACE_S, reap, start_time
from rlctl.executors.local.supervisor_client import SupervisorClient
from rlctl.executors.mpi import clean_environment
from rlctl.executors.parsl.attempt_files import AttemptFiles, was_killed
from rlctl.executors.parsl.block_program import BlockProgram
from rlctl.executors.parsl.worker_messages import ENDED, STOPPED, Session, failure

NewRequests = Callable[[], list[tuple[str, Any]]]
"""Returns requests to the running attempt that were not returned before: ``("stop", grace_s)``, ``("signal", n)``."""

_AFTERMATH_S = 0.5
"""A batch system that ends a job kills tasks and workers; if the worker lives on, only the task was meant."""


class CallRunner:
    """Runs calls in one warm worker, started on demand."""

    def __init__(self, workdir: Path, session: Session) -> None:
        self._workdir, self._session = workdir, session
        self._worker: Worker | None = None
        self._started = 0

    def run(self, attempt: Attempt, message: bytes, new_requests: NewRequests) -> bytes:
        """Call a function; returns the worker's answer, or how it failed."""
        if self._worker is not None and self._worker.ended:  # killed while it was idle
            self.close()
        try:
            warm = self._worker = self._worker or self._start()
        except OSError as error:
            return failure(Failure.LAUNCH, f"no worker can be started: {error}")
        warm.stopped, warm.kill_at = None, float("inf")
        walltime_s = attempt.spec.walltime_s
        warm.stop_at = float("inf") if walltime_s is None else time.monotonic() + walltime_s
        warm.hand_over(attempt, serialization.frame(message))
        signalled = False
        look_at = time.monotonic() + self._session.poll_s
        poll = select.poll()
        poll.register(warm.socket, select.POLLIN)
        if warm.pidfd is not None:
            poll.register(warm.pidfd, select.POLLIN)
        while True:
            now = time.monotonic()
            due = min(look_at, warm.kill_at if warm.stopped else warm.stop_at)
            poll.poll(max(0.0, (due - now) * 1e3) if now < warm.kill_at else 20)
            answers = warm.receive()
            if answers is None and not warm.ended:  # about to exit
                time.sleep(0.001)
            if answers:
                if warm.stopped:  # it finished before it could be stopped; the worker dies all the same
                    self.close()
                warm.attempt = None
                return answers[0]
            if warm.ended and not warm.kill():
                return self._death(warm, attempt, signalled)
            now = time.monotonic()
            if now >= warm.kill_at:
                warm.kill()
            elif warm.stopped is None and now >= warm.stop_at:
                warm.stopped = "walltime"
                warm.terminate(now + GRACE_S)
            if now >= look_at:
                look_at = now + self._session.poll_s
                for verb, value in new_requests():
                    if verb == "signal":
                        signalled = True
                        warm.signal(value)
                    elif warm.stopped is None:
                        warm.stopped = "stopped"
                        warm.terminate(now + value)

    def close(self) -> None:
        """End the worker."""
        if self._worker is not None:
            self._worker.attempt = None
            self._worker.close()
            self._worker = None

    def _start(self) -> Worker:
        (self._workdir / LOGS).mkdir(parents=True, exist_ok=True)
        self._started += 1
        mark = f"{self._session.token}:calls.{platform.node()}.{os.getpid()}.{self._started}"
        return Worker(
            {**_environment(), **HIDDEN, TASK: mark},
            None,
            f"{TASK}={mark}",
            self._workdir,
            self._workdir / LOGS / "calls.out",
            self._session.initializer,
            self._session.paths,
        )

    def _death(self, warm: Worker, attempt: Attempt, signalled: bool) -> bytes:
        stopped, outcome = warm.stopped, warm.death()
        self.close()
        if stopped == "stopped":
            return STOPPED
        if stopped == "walltime":
            return failure(Failure.TIMEOUT, f"stopped at its walltime of {attempt.spec.walltime_s:g} s")
        if outcome.failure is Failure.SIGNAL and not signalled:
            time.sleep(_AFTERMATH_S)
        assert outcome.failure is not None
        return failure(outcome.failure, outcome.message)


class ProgramRunner:
    """Runs programs under one supervisor, started on demand."""

    def __init__(self, workdir: Path, session: Session) -> None:
        self._workdir, self._session = workdir, session
        self._files = AttemptFiles(workdir)
        self._bare = _environment()
        self._supervisor: SupervisorClient | None = None

    def run(self, attempt: Attempt, new_requests: NewRequests, silent_s: Callable[[], float]) -> bytes:
        """Run a program; returns how it ended.

        Args:
            silent_s: how long the controller has been silent, for the exit file.
        """
        key, spec, applications = attempt.key, attempt.spec, self._session.options.applications
        try:
            if self._supervisor is None:
                lease = self._files.lease(self._session.token)
                self._supervisor = SupervisorClient(self._workdir, self._bare, pid_file=lease)
            supervisor = self._supervisor
            check_program(spec, applications, self._bare)
            kind = BlockProgram if self._session.masters else ProcessTask
            program = kind(attempt, self._workdir, supervisor.scratch, applications, self._bare)
            gpus = [device for share in attempt.allocation for device, _ in share.gpus]
            command = program.prepare(gpu_variables(gpus))
            self._files.begin(key)
        except (OSError, RlctlError) as error:
            return failure(Failure.LAUNCH, str(error))
        supervisor.send("run", key=key, cores=None, **command, **self._limits(attempt))
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
        self._files.end(key, {**ended, "gone_s": gone_s if gone_s > min(10.0, self._session.options.lease_s) else 0.0})
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

    def _limits(self, attempt: Attempt) -> dict[str, float | None]:
        options, need = self._session.options, attempt.need
        memory_mb = need.memory_per_rank_mb if options.enforce_memory else None
        return {
            "walltime_s": attempt.spec.walltime_s,
            "memory_mb": None if memory_mb is None else memory_mb * need.ranks,
            "output_mb": options.output_mb,
        }

    def _supervisor_died(self, key: str, program: ProcessTask) -> Mapping[str, Any]:
        """Stop what it left; the next program gets another one."""
        assert self._supervisor is not None
        mark = f"{TASK}={self._supervisor.token}:{key}\0".encode()
        known = program.pid > 0 and start_time(program.pid) == program.start
        reap([program.pid] if known else [], mark, GRACE_S)
        self.close()
        return {"event": "ended", "key": key, "code": None, "why": None, "usage": {}}


def gpu_variables(numbers: Sequence[int]) -> dict[str, str]:
    """Environment variables that show a program its GPUs, out of those that the worker may use.

    Raises:
        LaunchError: the worker has fewer.
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


def _environment() -> dict[str, str]:
    """Of programs and workers, without masks of GPUs."""
    return without_masks(clean_environment(os.environ))
