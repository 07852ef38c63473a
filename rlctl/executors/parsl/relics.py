"""What programs leave in the working folder while they run and when they have ended: for who comes later, or waits."""

from __future__ import annotations

import contextlib
import json
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlctl.executors.local.processes import boot, start_time
from rlctl.executors.local.supervisor import EXITS, GRACE_S, exit_file
from rlctl.executors.local.supervisor_client import clear
from rlctl.executors.parsl.control_file import FOLDER, ORDERS
from rlctl.executors.parsl.worker_agent import LEASE, RUNNING

_SLACK_S = 4.0


class Relics:
    """Notes of programs that may run, and files that tell how they ended.

    Attributes:
        patience_s: how long the end of a program on a host that answers can take.
    """

    def __init__(self, workdir: Path) -> None:
        self._folder = workdir / FOLDER
        self._exits = workdir / EXITS
        self.patience_s = GRACE_S + _SLACK_S
        (self._folder / RUNNING).mkdir(parents=True, exist_ok=True)

    def ended(self, key: str) -> Mapping[str, Any] | None:
        """How an attempt ended, as its supervisor has said; None: nobody has seen its end."""
        with contextlib.suppress(OSError, ValueError):
            ended: Mapping[str, Any] = json.loads((self._exits / exit_file(key)).read_bytes())
            return ended
        return None

    def may_run(self, key: str) -> bool:
        """Whether it was about to begin, and nobody has seen its end."""
        name = exit_file(key)
        return (self._folder / RUNNING / name).exists() and not (self._exits / name).exists()

    def forget(self, key: str) -> None:
        """Its end is recorded."""
        for folder in (self._exits, self._folder / RUNNING):
            (folder / exit_file(key)).unlink(missing_ok=True)

    def wait(self, patience_s: float | None = None) -> None:
        """Until nothing can be running any more, or nobody can be asked."""
        end = time.monotonic() + (self.patience_s if patience_s is None else patience_s)
        while any(not (self._exits / note.name).exists() for note in self._notes()) and time.monotonic() < end:
            time.sleep(0.05)

    def wait_for_workers(self) -> None:
        """Until those that were told that nothing is to run any more have let go of what they keep."""
        end = time.monotonic() + self.patience_s
        while any(_held(lease) for lease in self._folder.glob(f"*{LEASE}")) and time.monotonic() < end:
            time.sleep(0.02)
        for lease in self._folder.glob(f"*{LEASE}"):
            lease.unlink(missing_ok=True)

    def clear(self, lease_s: float) -> float:
        """Wait for the end of what a former controller's workers run, who have been told by now.

        Args:
            lease_s: a host that cannot be asked keeps it.

        Returns:
            Seconds for which programs went on without a controller.
        """
        here, host = boot(), platform.node()
        for note in self._notes():
            with contextlib.suppress(OSError, ValueError):
                began = json.loads(note.read_bytes())["boot"]
                if began != here and began.partition(" ")[0] == host:  # an earlier life of this machine
                    note.unlink()
        notes = self._notes()
        if notes:
            away = any(_boot(note).partition(" ")[0] != host for note in notes)
            self.wait(max(lease_s, self.patience_s) if away else self.patience_s)
        for lease in self._folder.glob(f"*{LEASE}"):
            clear(lease)  # on this host: what its mark still finds
            lease.unlink(missing_ok=True)
        for note in self._notes():
            note.unlink(missing_ok=True)
        for session in self._folder.glob("session-*"):
            session.unlink(missing_ok=True)
        gone_s = 0.0
        for path in self._exits.glob("*.json"):
            with contextlib.suppress(OSError, ValueError):
                gone_s = max(gone_s, float(json.loads(path.read_bytes()).get("gone_s", 0.0)))
        return gone_s

    def tidy(self) -> None:
        """At the end: folders that are empty."""
        for folder in (self._folder / RUNNING, self._exits):
            with contextlib.suppress(OSError):
                folder.rmdir()
        for half in self._folder.glob(f".{ORDERS}.*"):
            half.unlink(missing_ok=True)

    def _notes(self) -> list[Path]:
        return list((self._folder / RUNNING).glob("*.json"))


def _held(lease: Path) -> bool:
    """Whether the worker that a lease is called after may be alive."""
    host, pid, _ = lease.name.rsplit("-", 2)
    return host != platform.node() or start_time(int(pid)) != 0


def _boot(note: Path) -> str:
    with contextlib.suppress(OSError, ValueError):
        return str(json.loads(note.read_bytes())["boot"])
    return ""
