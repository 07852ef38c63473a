"""Programs under a supervisor: started, adopted, stopped, signalled; what they report, and how they end."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rlctl.core.errors import LaunchError
from rlctl.core.task import Failure, TaskId, TaskSpec
from rlctl.executors.backend import Attempt, AttemptOutcome, BackendEvent, Exited, ProgressReported, Recovered, Started
from rlctl.executors.functions.large_results import read_object
from rlctl.executors.functions.warm_workers import Report
from rlctl.executors.local.options import LocalOptions
from rlctl.executors.local.process_task import ProcessTask
from rlctl.executors.local.processes import GRACE_S, boot
from rlctl.executors.local.supervisor_client import SupervisorClient

REPLACEMENTS = 5
"""Supervisors that die so often, one after the other, before they are of use are not replaced any more."""

LONG_S = 60.0
"""A supervisor that lives so long is of use, though it may have had nothing to report."""

_PROGRESS_BYTES = 1 << 16
"""How much of the end of a progress file is read at a time."""


class Programs:
    """See the module; every method needs the lock of its owner.

    Attributes:
        running: programs that were started or adopted and have not exited, by key.
        reporting: those of them that have a file for their progress.

    Args:
        emit: takes events other than ends, which ``report`` takes.
    """

    def __init__(
        self,
        client: SupervisorClient,
        workdir: Path,
        emit: Callable[[BackendEvent], None],
        report: Report,
        options: LocalOptions,
    ) -> None:
        self.client = client
        self.running: dict[str, ProcessTask] = {}
        self.reporting: dict[str, ProcessTask] = {}
        self._workdir = workdir
        self._emit, self._report = emit, report
        self._options = options
        self._files = ProgressFiles(workdir)
        self._deaths = 0  # of supervisors that were of no use, one after the other
        self._supervised_since = time.monotonic()

    @property
    def recovered(self) -> Recovered:
        """What a former controller has left."""
        left = self.client.left
        return Recovered(set(left.running), set(left.ended), left.gone_s)

    def start(self, program: ProcessTask, request: Mapping[str, Any], cores: Sequence[int] | None) -> None:
        """Start a program that has been prepared."""
        limits = program.limits(self._options.enforce_memory, self._options.output_mb)
        self.client.send("run", **{"key": program.attempt.key, "cores": cores, **request, **limits})
        self._add(program)

    def adopt(self, attempt: Attempt, make: Callable[[], ProcessTask]) -> bool:
        """Go on with an attempt that still runs, or has ended unseen; False: nothing is known of it."""
        key, left = attempt.key, self.client.left
        if left.ended.get(key, {}).get("why") == "stopped":  # at the end of the lease: it did not come to its end
            del left.ended[key]
            self.client.forget_exit(key)
        if key not in left.running and key not in left.ended:
            return False
        program = make()
        if key in left.ended:
            self._emit(Started(key))
            self._report(attempt, partial(program.outcome, left.ended.pop(key)))
        else:
            self._add(program)
            self._started(program, *left.running.pop(key))
        return True

    def attempts(self) -> list[tuple[Attempt, bool]]:
        """Programs that run, and whether they are being stopped by request."""
        return [(program.attempt, program.stopping) for program in self.running.values()]

    def stop(self, key: str, grace_s: float, lost: bool = False) -> None:
        """Stop a program, also one that a former controller has left; ``lost``: see ``LocalBackend.stop``."""
        if (program := self.running.get(key)) is not None:
            program.lost = program.lost or lost
            program.stopping = program.stopping or not lost
        self.client.send("stop", key=key, grace_s=grace_s)

    def signal(self, key: str, number: int) -> None:
        """Send a signal to all processes of a program."""
        if key in self.running:
            self.running[key].signalled = True
        self.client.send("signal", key=key, number=number)

    def acknowledge(self, key: str) -> None:
        """Forget the end of a program."""
        self.client.left.ended.pop(key, None)
        self.client.forget_exit(key)

    def progress(self) -> list[ProgressReported]:
        """What running programs have reported of themselves since the last call."""
        found = ((key, self._files.newest(program.attempt.spec)) for key, program in self.reporting.items())
        return [ProgressReported(key, data) for key, data in found if data is not None]

    def receive(self) -> bool:
        """Take in what the supervisor says; False: it has died."""
        messages = self.client.receive()
        for message in messages or ():
            event, key = message["event"], message.get("key", "")
            self._deaths = 0 if event in ("started", "ended") else self._deaths
            program = self.running.get(key)
            if event == "started" and program is not None:
                self._started(program, message["pid"], message["start"])
            elif event == "failed" and program is not None:
                self._remove(key)
                program.clean()
                text = f"{program.command[0]}: {message['error']}"
                self._emit(Exited(key, AttemptOutcome(failure=Failure.LAUNCH, message=text)))
            elif event == "ended" and program is not None:
                self._remove(key)
                self._report(program.attempt, partial(program.outcome, message))
            elif event == "ended" and key in self.client.left.running:  # not asked for again yet
                del self.client.left.running[key]
                self.client.left.ended[key] = message
                self._emit(Exited(key, None))
        return messages is not None

    def replace_supervisor(self) -> None:
        """Start another supervisor, which adopts what runs; raises LaunchError if they die again and again."""
        now = time.monotonic()
        self._deaths = 1 if now - self._supervised_since > LONG_S else self._deaths + 1
        self._supervised_since = now
        if self._deaths == REPLACEMENTS:
            why = self.client.cause_of_death()
            raise LaunchError(f"{self._workdir}: the supervisor of its programs dies again and again: {why}")
        running = {}
        for key, program in self.running.items():
            limits = program.limits(self._options.enforce_memory, self._options.output_mb)
            if limits["walltime_s"] is not None:
                limits["walltime_s"] += program.began - now
            # Whether one without a number has begun is not known: its mark tells; it is LOST when all is gone.
            running[key] = {"pid": program.pid or -1, "start": program.start, "control": program.control, **limits}
        self.client.replace(running)
        for key, program in self.running.items():
            if program.stopping or program.lost:  # the former one may not have received it
                self.client.send("stop", key=key, grace_s=GRACE_S)

    def _started(self, program: ProcessTask, pid: int, start: int) -> None:
        program.pid, program.start = pid, start
        program.began = time.monotonic() - program.attempt.ran_s
        host, _, boot_id = boot().partition(" ")
        details = {"pid": pid, "starttime": start, "host": host, "boot_id": boot_id}
        self._emit(Started(program.attempt.key, details))

    def _add(self, program: ProcessTask) -> None:
        self.running[program.attempt.key] = program
        if program.attempt.spec.progress_file is not None:
            self.reporting[program.attempt.key] = program

    def _remove(self, key: str) -> None:
        del self.running[key]
        self.reporting.pop(key, None)


class ProgressFiles:
    """Reads the newest report of each task from the file that its program appends lines of JSON to."""

    def __init__(self, workdir: Path) -> None:
        self._workdir = workdir
        self._ends: dict[TaskId, int] = {}

    def newest(self, spec: TaskSpec) -> Mapping[str, Any] | None:
        """The last whole line, if there is one that was not given before and is a JSON object."""
        if spec.progress_file is None:
            return None
        path = self._workdir / spec.progress_file
        try:
            about = os.stat(path)
            size, before = about.st_size, self._ends.get(spec.uid, 0)
            if size == before or not stat.S_ISREG(about.st_mode):  # a pipe would hold up everything
                return None
            with open(path, "rb") as file:
                file.seek(max(0, size - _PROGRESS_BYTES))
                lines = file.read(_PROGRESS_BYTES).split(b"\n")
        except OSError:  # not there yet, or out of sight for a moment
            return None
        end, whole = size - len(lines[-1]), lines[:-1]  # what follows the last end of a line is still being written
        if not whole or end == before:
            return None
        self._ends[spec.uid] = end
        try:
            return read_object(whole[-1])
        except ValueError:
            return None
