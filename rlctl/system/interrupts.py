"""Turns SIGINT and SIGTERM (Ctrl-C, the end of a batch job) into an exception, so that commands clean up."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn


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
def requested_by_signals(
    request: Callable[[int], None],
    numbers: Collection[int] = (signal.SIGINT, signal.SIGTERM),
    once: bool = False,
) -> Iterator[None]:
    """Call ``request`` on signals, instead of an exception at any point; in the main thread only.

    Args:
        once: after the first signal, all act as they did before.
    """
    before: dict[int, Any] = {}

    def restore() -> None:
        while before:
            signal.signal(*before.popitem())

    def handle(number: int, frame: FrameType | None) -> None:
        signal.signal(number, handle)  # the watchdog lets a second signal kill where this is not reached
        if once:
            restore()
        request(number)

    if threading.current_thread() is threading.main_thread():
        for number in numbers:
            before[number] = signal.signal(number, handle)
    try:
        yield
    finally:
        restore()


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise Interrupted
