"""The files by which supervisors and controllers find each other. Nothing but the standard library is imported here.

The *pid file* of a working folder is locked by its supervisor as long as it lives. It tells where the supervisor is and
what runs, for a controller that finds it dead. *Exit files* tell how attempts ended that were not acknowledged.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

from rlctl.executors.local.processes import GRACE_S, boot, reap, start_time
from rlctl.executors.naming import file_name, scratch_folder, spare

TASK = "RLCTL_TASK"
"""Variable in the environment of every program: token of its supervisor, and key."""

LOCK, EXITS = ".lease", "exits"
"""Names of the pid file, and of the folder of exit files."""


def of_pool(file: str, pool: str) -> str:
    """Name of a pool's own file, where several pools work in one folder.

    >>> of_pool(".lease", "gpus"), of_pool(".lease", "")
    ('.lease-gpus', '.lease')
    """
    return f"{file}-{pool}" if pool else file


@dataclass(frozen=True, slots=True)
class PidFile:
    """What the last supervisor has written since this machine was booted.

    Attributes:
        processes: start times of first processes of programs, by their numbers.
        lease_ends_s: on the monotonic clock, if there is no controller.
    """

    token: str
    processes: dict[int, int] = field(default_factory=dict)
    lease_ends_s: float | None = None

    @classmethod
    def read(cls, path: Path) -> PidFile | None:
        """The file; None: there is none, or it is of an earlier boot or another machine."""
        try:
            first, *lines = path.read_text().splitlines() or [""]
        except OSError:
            return None
        token, _, booted = first.partition(" ")
        if re.fullmatch("[0-9a-f]{32}", token) is None or booted != boot():
            return None
        held = [line[1:].split() for line in lines if re.fullmatch(r"\+\d+ \d+", line)]
        ends = [float(line[1:]) for line in lines if re.fullmatch(r"-\d+\.\d+", line)]
        return cls(token, {int(pid): int(start) for pid, start in held}, ends[0] if ends else None)

    def write(self, handle: int) -> None:
        """Write it in place, since the file is the lock; a full disk is ignored."""
        lines = [f"{self.token} {boot()}\n"]
        lines += [] if self.lease_ends_s is None else [f"-{self.lease_ends_s:.3f}\n"]
        lines += [f"+{pid} {start}\n" for pid, start in self.processes.items()]
        text = "".join(lines).encode()
        with contextlib.suppress(OSError):
            os.pwrite(handle, text, 0)
            os.ftruncate(handle, len(text))

    def alive(self) -> list[int]:
        """Those of the processes that are alive; the start time tells whether a number was reused."""
        return [pid for pid, start in self.processes.items() if start and start_time(pid) == start]


def try_lock(path: Path) -> int | None:
    """Lock the pid file; None: a supervisor holds it."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return lock
    except OSError:
        os.close(lock)
        return None


def unattended(workdir: Path) -> tuple[int, float]:
    """How many programs go on without a controller on this machine, and for how many seconds more all of them do."""
    programs, ends = 0, []
    for path in sorted(workdir.glob(f"{LOCK}*")):  # one, or one of each pool
        found = PidFile.read(path)
        if found is not None and found.lease_ends_s is not None and (alive := found.alive()):
            programs += len(alive)
            ends.append(found.lease_ends_s)
    return programs, max(min(ends, default=0.0) - time.monotonic(), 0.0)


def clear(path: Path) -> None:
    """Stop what a supervisor that was killed has left on this machine, and remove its scratch folder."""
    found = PidFile.read(path)
    if found is not None:
        reap(found.alive(), mark(found.token), GRACE_S)  # the mark finds what has other numbers by now
        remove_folders(scratch_folder(found.token))


def mark(token: str, key: str | None = None) -> bytes:
    """What the processes of a supervisor, or of one attempt, have in their environments."""
    return f"{TASK}={token}:".encode() if key is None else f"{TASK}={token}:{key}\0".encode()


def remove_folders(scratch: Path) -> None:
    """Remove a scratch folder, and its spare on disk."""
    for folder in {scratch, spare(scratch)}:
        shutil.rmtree(folder, ignore_errors=True)


def exit_file(key: str) -> str:
    """Name of the file that tells how an attempt ended."""
    return f"{file_name(key)}.json"


def remove_incomplete(folder: Path) -> None:
    """Remove a folder of exit files if nothing is in it but what a supervisor was writing when it was killed."""
    for half in folder.glob(".*.new"):
        half.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


def write_through(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole, on the device, or not at all."""
    new = path.with_name(f".{path.name}.new")
    with open(new, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
