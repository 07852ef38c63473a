"""A thread that keeps a rank's leases while its main thread computes: it says "alive", and hears whether others are."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

BEATS = 4
"""In the time of a lease."""


class Attendant:
    """Calls ``attend`` about every quarter of a lease, and oftener than once in five seconds; a context manager.

    Args:
        attend: called from the thread; an exception from it ends the thread, and is kept in ``error``.
        lease_s: of the lease.
    """

    def __init__(self, attend: Callable[[], None], lease_s: float) -> None:
        self._attend = attend
        self._interval_s = min(lease_s / BEATS, 1.0)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="attendant", daemon=True)
        self.error: BaseException | None = None

    def __enter__(self) -> Attendant:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._thread.join(timeout=10.0)

    def _run(self) -> None:
        while not self._over.wait(self._interval_s):
            try:
                self._attend()
            except BaseException as error:
                self.error = error
                return


class Lease:
    """Of somebody who says from time to time that he is alive.

    >>> lease = Lease(10.0, clock=lambda: 0.0)
    >>> lease.expired(9.0), lease.expired(11.0)
    (False, True)
    """

    def __init__(self, lease_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.lease_s = lease_s
        self._heard_s = clock()

    def heard(self, now_s: float) -> None:
        """He has said something."""
        self._heard_s = now_s

    def silent_s(self, now_s: float) -> float:
        """For how long he has said nothing."""
        return now_s - self._heard_s

    def expired(self, now_s: float) -> bool:
        """Whether he counts as gone."""
        return self.silent_s(now_s) > self.lease_s
