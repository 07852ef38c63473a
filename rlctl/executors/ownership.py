"""Lock of a run folder: one controller at a time, also across hosts on file systems without working file locks.

The lock file beside the journal names its owner: process, host, epoch, and a heartbeat number that the owner raises
every ``BEAT_S``. On the owner's host a successor looks up the process, and the file is locked as well. From another
host the owner counts as dead only after its heartbeat has stood still for ``LEASE_S``. The successor raises the epoch;
an owner that finds another epoch than its own, because it was asleep for so long, stops writing (fencing).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import re
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

import psutil

from rlctl.core.errors import JournalError
from rlctl.executors.local.processes import boot, start_time

LOCK = "lock"
"""Name of the lock file, beside the journal."""

BEAT_S = 5.0
LEASE_S = 20.0
_EXEC_S = 5.0
_RELEASED = -1
_WIDTH = 400  # written in place at a fixed length, so that no reader sees half of it

_NETWORKED = re.compile("nfs|lustre|gpfs|beegfs|cifs|smb|ceph|gluster|pvfs|orangefs|panfs|wekafs")
"""Beginnings of the names of file systems that several hosts may share."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Contents of the lock file."""

    pid: int
    host: str
    start: int
    boot: str
    epoch: int
    beat: int

    @property
    def name(self) -> str:
        """Process and host, for messages."""
        return f"{self.pid} on {self.host}"

    def here(self) -> bool:
        """Whether it is, or was, a process of this host."""
        return self.host == platform.node()

    def alive(self) -> bool:
        """Whether a process of this host still lives."""
        return self.boot == boot() and self.start != 0 and start_time(self.pid) == self.start


def read_owner(folder: Path) -> Owner | None:
    """The last owner; None: there was none."""
    try:
        return Owner(**json.loads((folder / LOCK).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def networked(folder: Path) -> bool:
    """Whether the folder's file system may be shared between hosts, so that locks and shared memory are unreliable."""
    best, kind = "", ""
    for partition in psutil.disk_partitions(all=True):
        inside = folder.resolve().is_relative_to(partition.mountpoint)
        if inside and len(partition.mountpoint) >= len(best):
            best, kind = partition.mountpoint, partition.fstype
    return _NETWORKED.match(kind.removeprefix("fuse.")) is not None


class Ownership:
    """This process's lock on a run folder."""

    def __init__(self, folder: Path, shared: bool = False, lease_s: float = LEASE_S) -> None:
        """Become the owner.

        Args:
            folder: of the run.
            shared: other hosts may see the folder, so that a file lock proves nothing.
            lease_s: how long the heartbeat of an owner on another host must have stood still.

        Raises:
            JournalError: another controller owns the run, or the folder is not writable.
        """
        self._folder = folder
        self._shared = shared
        try:
            self._file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise JournalError(f"{folder}: cannot be written ({error}): choose another run folder") from error
        try:
            locked = self._lock()
            epoch = self._await_end(read_owner(folder), locked and not shared, lease_s)
            self._owner = Owner(os.getpid(), platform.node(), start_time(os.getpid()), boot(), epoch, 0)
            self._write()
        except BaseException:
            os.close(self._file)
            raise
        self._due = time.monotonic() + BEAT_S

    def keep(self) -> None:
        """Raise the heartbeat if it is due; check that this process is still the owner.

        Raises:
            JournalError: another controller has taken over.
        """
        now = time.monotonic()
        if not self._shared or now < self._due:
            return
        self._due = now + BEAT_S
        if not self._mine():
            raise JournalError(f"{self._folder}: another controller has taken over this run: this one stops")
        self._owner = Owner(**{**asdict(self._owner), "beat": self._owner.beat + 1})
        with contextlib.suppress(OSError):  # a full disk: retried at the next beat
            self._write()

    def close(self) -> None:
        """Release the run, so that a successor need not wait; the file stays."""
        self._owner = Owner(**{**asdict(self._owner), "beat": _RELEASED})
        with contextlib.suppress(OSError, JournalError):
            if self._mine():
                self._write()
        os.close(self._file)

    def _mine(self) -> bool:
        now, us = read_owner(self._folder), self._owner
        return now is None or (now.epoch, now.pid, now.host) == (us.epoch, us.pid, us.host)

    def _lock(self) -> bool:
        end = time.monotonic() + _EXEC_S
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                owner = read_owner(self._folder)
                gone = owner is not None and owner.here() and (owner.beat == _RELEASED or not owner.alive())
                if not gone or time.monotonic() > end:
                    self._refuse(owner.name if owner else "unknown")
                time.sleep(0.01)  # a child that it was about to exec still holds its files
            except OSError:
                return False  # a file system without locks: the contents of the file decide

    def _await_end(self, owner: Owner | None, locked: bool, lease_s: float) -> int:
        """The next epoch, once the former owner is certainly dead."""
        if owner is None:
            return 1
        if locked or owner.beat == _RELEASED:
            return owner.epoch + 1
        if owner.here():
            if owner.alive():
                self._refuse(owner.name)
            return owner.epoch + 1
        end = time.monotonic() + lease_s
        while time.monotonic() < end:
            time.sleep(min(0.5, lease_s / 10))
            now = read_owner(self._folder)
            if now is not None and now != owner:
                self._refuse(now.name)
        return owner.epoch + 1

    def _refuse(self, holder: str) -> NoReturn:
        raise JournalError(f"{self._folder}: another controller is steering this run (process {holder}): stop it first")

    def _write(self) -> None:
        os.pwrite(self._file, json.dumps(asdict(self._owner)).ljust(_WIDTH).encode() + b"\n", 0)
