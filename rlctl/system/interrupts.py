"""Ctrl-C, and the end of a batch job, which is an interrupt like Ctrl-C: everything is cleaned up on the way out."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import NoReturn


class Interrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM came.

    Not ``KeyboardInterrupt`` itself: where that strikes in text that is being executed, as when a data class is made,
    Python remembers it, and ends the process by SIGINT later, whatever the program's own exit code is.
    """


def begin() -> None:
    """From now on both signals raise ``Interrupted``; a SIGINT that is ignored, as in the background, stays so."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _interrupt)
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, _interrupt)


def end() -> None:
    """What is left is Python's own end, and an exception there would be shown with a traceback."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise Interrupted
