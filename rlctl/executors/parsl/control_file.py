"""What a controller tells the workers while they are busy: a file in the run folder, read again and again.

It needs no port and works wherever the run folder is seen. The controller replaces it whole; it holds a number that
rises while the controller lives, and what is asked of attempts that run: to stop, or a signal. A worker that finds
another controller's name in it, or the same number for as long as the lease lasts, stops what it runs.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

FOLDER = "parsl"
"""Folder in the working folder for all that this executor needs there."""

BEAT_S = 1.0
ORDERS = "orders.json"


class Orders:
    """The controller's end; may be used from several threads."""

    def __init__(self, folder: Path, token: str) -> None:
        """Become the controller.

        Args:
            token: name of this controller.

        Raises:
            OSError: the file cannot be written.
        """
        self._path = folder / ORDERS
        self._lock = threading.Lock()
        self._beat_at = 0.0
        self._unwritten = False
        self._said: dict[str, Any] = {"session": token, "beat": 0, "closed": False, "orders": {}}
        self._write()

    def give(self, key: str, *order: Any) -> None:
        """Ask something of an attempt: ``"stop", grace_s`` or ``"signal", number``."""
        with self._lock:
            given = self._said["orders"].setdefault(key, [])
            given.append(order)
            self._try()

    def forget(self, key: str) -> None:
        """The attempt has ended."""
        with self._lock:
            self._said["orders"].pop(key, None)

    def beat(self, at_once: bool = False) -> None:
        """Show, now and then, that the controller lives; write what could not be written before."""
        with self._lock:
            now = time.monotonic()
            if now >= self._beat_at + BEAT_S or self._unwritten or at_once:
                self._beat_at = now
                self._said["beat"] += 1
                self._try()

    def close(self) -> None:
        """Nothing is to run any more."""
        with self._lock:
            self._said["closed"] = True
            self._try()

    def _try(self) -> None:
        self._unwritten = True
        with contextlib.suppress(OSError):  # a full disk: with the next beat
            if self._ours():
                self._write()
            self._unwritten = False

    def _ours(self) -> bool:
        """Whether no other controller has taken over, while this one was asleep."""
        try:
            return bool(json.loads(self._path.read_bytes())["session"] == self._said["session"])
        except (FileNotFoundError, ValueError, KeyError):
            return True

    def _write(self) -> None:
        new = self._path.with_name(f".{ORDERS}.{self._said['session']}")
        new.write_text(json.dumps(self._said))
        os.replace(new, self._path)


class Hearing:
    """A worker's end.

    Attributes:
        over: why nothing is to run here any more: "closed", "superseded" or "lease"; None: go on.
    """

    def __init__(self, folder: Path, token: str, lease_s: float) -> None:
        self._path = folder / ORDERS
        self._token = token
        self._lease_s = lease_s
        self._beat = -1
        self._beat_at = time.monotonic()
        self._orders: dict[str, list[list[Any]]] = {}
        self.over: str | None = None

    @property
    def silent_s(self) -> float:
        """How long nothing has been heard of the controller."""
        return time.monotonic() - self._beat_at

    def look(self) -> None:
        """Read the file again."""
        said: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError):  # opened each time: what NFS says of an open file is fresh
            said = json.loads(self._path.read_bytes())
        if said and said["session"] != self._token:
            self.over = "superseded"
        elif said.get("closed"):
            self.over = "closed"
        elif said and said["beat"] != self._beat:
            self._beat, self._beat_at = said["beat"], time.monotonic()
            self.over = None  # it was away
        elif self.silent_s > self._lease_s:
            self.over = "lease"
        if self.over is None and said:
            self._orders = said["orders"]

    def orders(self, key: str, obeyed: int) -> list[list[Any]]:
        """What has been asked of an attempt after so many orders."""
        return self._orders.get(key, [])[obeyed:]
