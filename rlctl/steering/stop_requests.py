"""Stop requests by signals, which the control loop obeys between two steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rlctl.system.interrupts import Interrupted, requested_by_signals
from rlctl.system.watchdog import interruptible


@contextmanager
def stop_requests() -> Iterator[Callable[[], None]]:
    """Turn SIGINT and SIGTERM into a stop request, for which the yielded function raises KeyboardInterrupt.

    An exception between the start of a process and its record would lose the process, and so would a second Ctrl-C
    during the shutdown.
    """
    requests: list[int] = []

    def note(number: int) -> None:
        requests.append(number)
        if interruptible():  # user code that hangs would keep the loop from checking
            raise Interrupted

    def check() -> None:
        if requests:
            raise KeyboardInterrupt

    with requested_by_signals(note):
        yield check
