"""Turns SIGINT and SIGTERM (Ctrl-C, the end of a batch job) into an exception, so that commands clean up."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


class Interrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM arrived.

    Not ``KeyboardInterrupt`` itself: raised in code that Python executes from text, as when a data class is made,
    that makes Python end the process by SIGINT later, whatever exit code the program chooses.
    """


def begin() -> None:
    """Raise ``Interrupted`` on both signals from now on; a SIGINT that is ignored, as in the background, stays so."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _interrupt)
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, _interrupt)


def end() -> None:
    """Restore the default actions for the shutdown of Python, where an exception would print a traceback."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


@contextmanager
def requested_by_signals(request: Callable[[int], None]) -> Iterator[None]:
    """Call ``request`` on SIGINT and SIGTERM, instead of an exception at any point; in the main thread only."""

    def handle(number: int, frame: FrameType | None) -> None:
        signal.signal(number, handle)  # the watchdog lets a second signal kill where this is not reached
        request(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise Interrupted
