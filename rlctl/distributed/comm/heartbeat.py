"""A thread that keeps a rank's leases while its main thread computes: it sends beats and receives those of others."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress

BEATS = 4
"""Beats per lease."""


class Heartbeat:
    """Calls ``beat`` four times per lease, and at least once per second, until it raises; a context manager."""

    def __init__(self, beat: Callable[[], None], lease_s: float) -> None:
        self._beat = beat
        self._interval_s = min(lease_s / BEATS, 1.0)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._thread.join(timeout=10.0)

    def _run(self) -> None:
        with suppress(BaseException):
            while not self._over.wait(self._interval_s):
                self._beat()
