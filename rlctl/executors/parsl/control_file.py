"""Files by which a controller controls its workers: what all attempts share, and what changes while they run.

They need no port and work wherever the run folder is seen. The controller replaces the control file as a whole; it
contains a number that rises while the controller lives, and the requests to running attempts: to stop, or a signal. A
worker that finds the token of another controller in it, or the same number for the length of the lease, stops what it
runs.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the watchdog of a block needs none
    from rlctl.executors.parsl.options import ParslOptions

BEAT_S = 1.0
CONTROL = "control.json"


@dataclass(frozen=True, slots=True)
class Session:
    """What all attempts of one controller have in common; workers read it from a file.

    Attributes:
        workdir: working folder of programs and workers.
        folder: of the backend, within it.
        poll_s: how often a busy worker reads the control file.
        ours: whether the managers were started for this controller, and end with it.
        masters: whether each worker is the master of a block of several hosts.
        paths: module search path of functions.
        initializer: first message to each warm worker.
    """

    token: str
    workdir: Path
    folder: Path
    poll_s: float
    ours: bool
    masters: bool
    paths: Sequence[str]
    initializer: bytes | None
    options: ParslOptions


def session_file(folder: Path, token: str) -> Path:
    """Where a controller leaves its ``Session``."""
    return folder / f"session-{token}"


class ControlWriter:
    """The controller's end; may be used from several threads."""

    def __init__(self, folder: Path, token: str) -> None:
        """Become the controller, which ``token`` names."""
        self._path = folder / CONTROL
        self._lock = threading.Lock()
        self._beat_at = 0.0
        self._unwritten = False
        self._data: dict[str, Any] = {"session": token, "beat": 0, "closed": False, "requests": {}}
        self._write()

    def request(self, key: str, verb: str, value: float) -> None:
        """Ask something of an attempt: ``"stop"`` within a grace period in seconds, or ``"signal"`` by number."""
        with self._lock:
            self._data["requests"].setdefault(key, []).append((verb, value))
            self._try_to_write()

    def forget(self, key: str) -> None:
        """Drop the requests to an attempt that has ended."""
        with self._lock:
            self._data["requests"].pop(key, None)

    def beat(self, at_once: bool = False) -> None:
        """Show once per second that the controller lives; write what could not be written before."""
        with self._lock:
            now = time.monotonic()
            if now >= self._beat_at + BEAT_S or self._unwritten or at_once:
                self._beat_at = now
                self._data["beat"] += 1
                self._try_to_write()

    def close(self) -> None:
        """Have all workers stop what they run."""
        with self._lock:
            self._data["closed"] = True
            self._try_to_write()

    def remove_partial(self) -> None:
        """Remove files that killed controllers had not finished."""
        for partial in self._path.parent.glob(f".{CONTROL}.*"):
            partial.unlink(missing_ok=True)

    def _try_to_write(self) -> None:
        self._unwritten = True
        with contextlib.suppress(OSError):  # a full disk: with the next beat
            if self._is_ours():
                self._write()
            self._unwritten = False

    def _is_ours(self) -> bool:
        """Whether no other controller has taken over while this one was suspended."""
        try:
            return bool(json.loads(self._path.read_bytes())["session"] == self._data["session"])
        except (FileNotFoundError, ValueError, KeyError):
            return True

    def _write(self) -> None:
        new = self._path.with_name(f".{CONTROL}.{self._data['session']}")
        new.write_text(json.dumps(self._data))
        os.replace(new, self._path)


class ControlReader:
    """A worker's end.

    Attributes:
        over: why nothing may run here any more: "closed", "superseded" or "lease"; None: the controller lives.
    """

    def __init__(self, folder: Path, token: str, lease_s: float) -> None:
        self._path = folder / CONTROL
        self._token = token
        self._lease_s = lease_s
        self._beat = -1
        self._beat_at = time.monotonic()
        self._requests: dict[str, list[list[Any]]] = {}
        self.over: str | None = None

    @property
    def silent_s(self) -> float:
        """Seconds since the controller last showed that it lives."""
        return time.monotonic() - self._beat_at

    def read(self) -> None:
        """Read the file again."""
        data: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError):  # opened each time: NFS caches an open file
            data = json.loads(self._path.read_bytes())
        if data and data["session"] != self._token:
            self.over = "superseded"
        elif data.get("closed"):
            self.over = "closed"
        elif data and data["beat"] != self._beat:
            self._beat, self._beat_at = data["beat"], time.monotonic()
            self.over = None  # it was suspended
        elif self.silent_s > self._lease_s:
            self.over = "lease"
        if self.over is None and data:
            self._requests = data["requests"]

    def requests(self, key: str, done: int) -> list[list[Any]]:
        """Requests to an attempt, without the first ``done``."""
        return self._requests.get(key, [])[done:]
