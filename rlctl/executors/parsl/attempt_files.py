"""Files about attempts of programs in the working folder: notes of those that may run, exit files of those that ended.

Workers write them; the controller reads them where a worker cannot answer any more, and when it follows another one.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlctl.executors.local.pid_file import EXITS, clear, exit_file
from rlctl.executors.local.processes import GRACE_S, boot, start_time

PATIENCE_S = GRACE_S + 4.0
"""How long a program on a host that responds can take to end."""

_RUNNING = "running"
_LEASE = ".lease"
"""End of the name of a worker's supervisor file, ``HOST-PID-TOKEN.lease``."""

_KILLED = {-signal.SIGTERM, -signal.SIGKILL, 128 + signal.SIGTERM, 128 + signal.SIGKILL}


class AttemptFiles:
    """Reads and writes these files; ``folder`` is that of the backend."""

    def __init__(self, workdir: Path, folder: Path) -> None:
        self._folder = folder
        self._running = self._folder / _RUNNING
        self._exits = workdir / EXITS

    # For workers.

    def lease(self, token: str) -> Path:
        """The lock file of this worker's supervisor."""
        return self._folder / f"{platform.node()}-{os.getpid()}-{token}{_LEASE}"

    def begin(self, key: str) -> None:
        """Note that a program may be running from now on."""
        (self._running / exit_file(key)).write_text(json.dumps({"key": key, "boot": boot()}))

    def end(self, key: str, ended: Mapping[str, Any] | None = None) -> None:
        """Remove the note; ``ended`` goes into an exit file first, for the controller."""
        if ended is not None:
            path = self._exits / exit_file(key)
            with contextlib.suppress(OSError):  # a full disk: then it may run again
                path.parent.mkdir(exist_ok=True)
                new = path.with_name(f".{path.name}.new")
                new.write_text(json.dumps(ended))
                os.replace(new, path)
        (self._running / exit_file(key)).unlink(missing_ok=True)

    # For the controller.

    def ended(self, key: str) -> Mapping[str, Any] | None:
        """How a program ended, as its supervisor reported; None: it has no exit file."""
        with contextlib.suppress(OSError, ValueError):
            ended: Mapping[str, Any] = json.loads((self._exits / exit_file(key)).read_bytes())
            return ended
        return None

    def may_run(self, key: str) -> bool:
        """Whether a program was about to start and has no exit file."""
        name = exit_file(key)
        return (self._running / name).exists() and not (self._exits / name).exists()

    def forget(self, key: str) -> None:
        """Remove the files of an attempt."""
        for folder in (self._exits, self._running):
            (folder / exit_file(key)).unlink(missing_ok=True)

    def wait_for_programs(self, patience_s: float = PATIENCE_S) -> None:
        """Wait until every noted program has an exit file."""
        end = time.monotonic() + patience_s
        while any(not (self._exits / note.name).exists() for note in self._notes()) and time.monotonic() < end:
            time.sleep(0.05)

    def wait_for_workers(self) -> None:
        """Wait until all workers have ended their supervisors, after ``ControlWriter.close``."""
        end = time.monotonic() + PATIENCE_S
        while any(_may_live(lease) for lease in self._folder.glob(f"*{_LEASE}")) and time.monotonic() < end:
            time.sleep(0.02)
        for lease in self._folder.glob(f"*{_LEASE}"):
            lease.unlink(missing_ok=True)

    def take_over(self, lease_s: float) -> float:
        """Wait for the end of what a former controller's workers run; they have read the control file of this one.

        A worker on another host may have to keep the former controller's lease. Returns the seconds for which programs
        ran without a controller.
        """
        self._running.mkdir(parents=True, exist_ok=True)
        here, host = boot(), platform.node()
        for note in self._notes():
            began = _boot(note)
            if began != here and began.partition(" ")[0] == host:  # this machine has rebooted since
                note.unlink()
        notes = self._notes()
        if notes:
            remote = any(_boot(note).partition(" ")[0] != host for note in notes)
            self.wait_for_programs(max(lease_s, PATIENCE_S) if remote else PATIENCE_S)
        for lease in self._folder.glob(f"*{_LEASE}"):
            clear(lease)  # processes of this host that a killed supervisor has left
            lease.unlink(missing_ok=True)
        for left in [*self._notes(), *self._folder.glob("session-*")]:
            left.unlink(missing_ok=True)
        gone_s = 0.0
        for path in self._exits.glob("*.json"):
            with contextlib.suppress(OSError, ValueError):
                gone_s = max(gone_s, float(json.loads(path.read_bytes()).get("gone_s", 0.0)))
        return gone_s

    def remove_empty(self) -> None:
        """Remove folders that are empty."""
        for folder in (self._running, self._exits):
            with contextlib.suppress(OSError):
                folder.rmdir()

    def _notes(self) -> list[Path]:
        return list(self._running.glob("*.json"))


def was_killed(ended: Mapping[str, Any]) -> bool:
    """Whether a program got SIGTERM or SIGKILL from outside: as a rule, from a batch system."""
    return ended["why"] is None and ended["code"] in _KILLED


def _may_live(lease: Path) -> bool:
    host, pid, _ = lease.name.rsplit("-", 2)
    return host != platform.node() or start_time(int(pid)) != 0


def _boot(note: Path) -> str:
    with contextlib.suppress(OSError, ValueError):
        return str(json.loads(note.read_bytes())["boot"])
    return ""
