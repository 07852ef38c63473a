"""Who may write a run: one controller at a time, also where several hosts see the folder and file locks do not work.

The file beside the journal names its owner: process, host, epoch, and a number that the owner raises every ``BEAT_S``.
On one host the process itself is looked up, and the file is locked besides. The owner of another host is believed to
be dead only when the number has stood still for ``LEASE_S``; whoever takes over raises the epoch. An owner that finds
another epoch than its own in the file, because it was asleep for so long, writes nothing any more (fencing).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

import psutil

from rlctl.core.errors import JournalError
from rlctl.executors.local.processes import boot, start_time

LOCK = "lock"
"""Name of the file, beside the journal."""

BEAT_S = 5.0
LEASE_S = 20.0
_EXEC_S = 5.0
_RELEASED = -1
_WIDTH = 400  # the file is written in place, always as long, so that no reader sees half of it

_NETWORKED = (
    "nfs",
    "lustre",
    "gpfs",
    "beegfs",
    "cifs",
    "smb",
    "ceph",
    "gluster",
    "pvfs",
    "orangefs",
    "panfs",
    "wekafs",
)
"""Beginnings of the names of file systems that other hosts may see."""


@dataclass(frozen=True, slots=True)
class Owner:
    """What the file says."""

    pid: int
    host: str
    start: int
    boot: str
    epoch: int
    beat: int

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.pid} on {self.host}"

    def here(self) -> bool:
        """Whether it is, or was, a process of this host."""
        return self.host == platform.node()

    def alive(self) -> bool:
        """Whether that process lives; only for one of this host."""
        return self.boot == boot() and self.start != 0 and start_time(self.pid) == self.start


def read_owner(folder: Path) -> Owner | None:
    """The last owner; None if there never was one."""
    try:
        return Owner(**json.loads((folder / LOCK).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def networked(folder: Path) -> bool:
    """Whether a folder is on a file system that other hosts may see, where locks and shared memory are not reliable."""
    best, kind = "", ""
    for partition in psutil.disk_partitions(all=True):
        inside = folder.resolve().is_relative_to(partition.mountpoint)
        if inside and len(partition.mountpoint) >= len(best):
            best, kind = partition.mountpoint, partition.fstype
    return kind.removeprefix("fuse.").startswith(_NETWORKED)


class Ownership:
    """Of the run in a folder, by this process."""

    def __init__(self, folder: Path, shared: bool = False, lease_s: float = LEASE_S) -> None:
        """Become the owner.

        Args:
            shared: other hosts may see the folder, so that a lock proves nothing.
            lease_s: how long the number of an owner on another host must have stood still.

        Raises:
            JournalError: another controller is, or the folder cannot be written.
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
        """Show, now and then, that we are alive; find out whether we still are the owner.

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
        with contextlib.suppress(OSError):  # a full disk: the next time
            self._write()

    def close(self) -> None:
        """Let it go; the name stays, and the next one need not wait."""
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
                time.sleep(0.01)  # a process that it was about to start still has its files
            except OSError:
                return False  # this file system has no locks: the file itself has to do

    def _await_end(self, owner: Owner | None, locked: bool, lease_s: float) -> int:
        """The next epoch, once the former owner is certain to have gone."""
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
