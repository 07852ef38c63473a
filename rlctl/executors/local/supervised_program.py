"""A program of a supervisor: its processes, how they are signalled and stopped, and its limits.

Nothing but the standard library is imported here.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlctl.executors.local.processes import (
    GRACE_S,
    ask_to_end,
    children,
    family,
    resident_mb,
    send_signal,
    signal_name,
    start_time,
)

LAUNCHER_S = 15.0
"""How long a launcher may take to end its program on other machines until it is killed itself."""

AGAIN_S = 0.5
"""It gets SIGTERM so often: the signal is lost at times while it starts."""

_FOREVER = float("inf")
_AFFINITY = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None


@dataclass(slots=True)
class SupervisedProgram:
    """A program that was started and has not been acknowledged as ended.

    Attributes:
        began: start time of its first process.
        mark: what its processes have in their environment.
        stop_at: when its walltime is over, on the monotonic clock, as ``kill_at``.
        control: command that signals it where it runs on other machines; names of signals follow.
        why: it was stopped so: "stopped", "walltime", "memory", "output".
        settling: whether its first process has ended.
        pidfd: of a first process that is no child.
        ended: the message about its end, when nothing of it is alive.
        kept: whether there may be an exit file.
    """

    key: str
    pid: int
    began: int
    mark: bytes
    outputs: tuple[str, ...] = ()
    stop_at: float = _FOREVER
    memory_mb: float | None = None
    output_mb: float | None = None
    control: list[str] | None = None
    why: str | None = None
    kill_at: float = _FOREVER
    settling: bool = False
    code: int | None = None
    usage: dict[str, float] = field(default_factory=dict)
    pidfd: int | None = None
    ended: dict[str, Any] | None = None
    kept: bool = False
    _terminated_at: float = _FOREVER  # when its launcher first got SIGTERM
    _again_at: float = 0.0

    def known(self) -> dict[str, Any]:
        """What a new controller learns of it."""
        return {"key": self.key, "pid": self.pid, "start": self.began, "ended": self.ended}

    def limit(
        self,
        walltime_s: float | None = None,
        memory_mb: float | None = None,
        output_mb: float | None = None,
        control: list[str] | None = None,
    ) -> None:
        """Set what it may use from now on, and how it is signalled."""
        self.memory_mb, self.output_mb, self.control = memory_mb, output_mb, control
        if walltime_s is not None:
            self.stop_at = time.monotonic() + walltime_s

    def settle(self, first_processes: Collection[int]) -> bool:
        """Stop what its first process has left; returns whether nothing is left."""
        self.settling = True
        alive = self._members(first_processes)
        now = time.monotonic()
        if alive and self.kill_at == _FOREVER:
            self.kill_at = now + GRACE_S
            ask_to_end(alive)
        elif alive and now >= self.kill_at:
            send_signal(alive, signal.SIGKILL)
        if alive:
            return False
        self.ended = {"event": "ended", "key": self.key, "code": self.code, "why": self.why, "usage": self.usage}
        return True

    def stop(self, why: str, grace_s: float) -> None:
        """Tell it to end; ``kill`` follows when the grace is over."""
        self.why = self.why or why
        self.kill_at = time.monotonic() + grace_s
        self.signal(signal.SIGTERM, signal.SIGCONT)  # a suspended one could not react

    def signal(self, *numbers: int) -> None:
        """Signal all its processes, on other machines too."""
        if self.control is None:
            members = self._members(())
            for number in numbers:
                if number == signal.SIGTERM:
                    ask_to_end(members)
                else:
                    send_signal(members, number)
            return
        named = [(signal_name(number).removeprefix("SIG"), number) for number in numbers]
        names = [name if name.isalnum() else str(number) for name, number in named]
        with contextlib.suppress(OSError):
            os.posix_spawn(self.control[0], [*self.control, *names], os.environ)

    def kill(self) -> None:
        """End what did not end after SIGTERM; launchers end their programs when they get SIGTERM."""
        now = time.monotonic()
        self._terminated_at = min(self._terminated_at, now)
        if self.control is None or now > self._terminated_at + LAUNCHER_S + 1.0:
            send_signal(self._family(), signal.SIGKILL)
        elif now > self._again_at and start_time(self.pid) == self.began:
            late = (
                now > self._terminated_at + LAUNCHER_S
            )  # its own death ends its program too, that of all of it would not
            send_signal([self.pid], signal.SIGKILL if late else signal.SIGTERM)
            self._again_at = now + AGAIN_S

    def check_limits(self) -> None:
        """Stop it if it uses more memory, or has written more, than it may."""
        if self.memory_mb is not None and resident_mb(self._members(())) > self.memory_mb:
            self.stop("memory", 0.0)
        elif self.output_mb is not None:
            for path in self.outputs:
                with contextlib.suppress(OSError):
                    if os.stat(path).st_size > self.output_mb * 2**20:
                        self.stop("output", 0.0)
                        os.truncate(path, int(self.output_mb * 2**20))

    def _members(self, first_processes: Collection[int]) -> list[int]:
        """Its living processes; quick where its first one has ended, and there is no child but those of programs."""
        if self.settling and self.code is not None:
            mine = children()
            if mine is not None and not set(mine) - set(first_processes):
                return []
        return self._family()

    def _family(self) -> list[int]:
        """All its living processes; its number may have been reused, its mark was not."""
        ours = self.pid > 0 and start_time(self.pid) in (self.began, 0)
        return family([self.pid] if ours else [], self.mark)


def spawn(
    command: list[str], environment: Mapping[str, str], outputs: Sequence[str], cores: Sequence[int] | None
) -> int:
    """Start a program in a session of its own, on these cores only; returns its process number.

    Raises:
        OSError, ValueError: it cannot be started.
    """
    create = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    files = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, outputs[0], create, 0o644),
        (os.POSIX_SPAWN_OPEN, 2, outputs[1], create, 0o644),
    ]
    pinned = cores is not None and _AFFINITY is not None
    try:
        if cores is not None and pinned:
            os.sched_setaffinity(0, cores)  # a child inherits it, so it never runs elsewhere
        return os.posix_spawn(
            command[0],
            command,
            environment,
            file_actions=files,
            setsid=True,
            setsigmask=[],
            setsigdef=[signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGCHLD],
        )
    finally:
        if _AFFINITY is not None and pinned:
            os.sched_setaffinity(0, _AFFINITY)
