"""Standard input and output as they come: closed, full, a pipe without a reader, of an old character set."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import threading
from typing import Any

from rlctl.executors.local.processes import open_closed_streams

log = logging.getLogger(__name__)


def prepare() -> None:
    """Make printing safe: what is closed swallows what it is told, and no character is too strange to be printed."""
    open_closed_streams()
    errors = sys.stderr
    if isinstance(errors, io.TextIOWrapper) and errors is sys.__stderr__:
        raw: Any = _Forgiving(errors.fileno(), "w", closefd=False)  # nothing is kept back, as by python -u
        sys.stderr = io.TextIOWrapper(raw, encoding=errors.encoding, line_buffering=True, write_through=True)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 -- it stays open as long as the process
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    threading.excepthook = _in_thread


class _Forgiving(io.FileIO):
    """Standard error: what cannot be written there, to a full disk or a closed pipe, is not worth the end of a run."""

    def write(self, data: Any) -> int:
        """All of it, or nothing."""
        with contextlib.suppress(OSError):
            return super().write(data)
        return len(data)


def flush() -> None:
    """Have everything printed while there is still somebody to complain to.

    Raises:
        OSError: it cannot be.
    """
    sys.stdout.flush()


def has_reader() -> bool:
    """Whether what was printed so far has gone out; not so once a pipe has lost its reader."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        return False
    return True


def drop_output() -> None:
    """Nobody reads any more: what is still to be printed goes nowhere, also at the end of Python."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(null, sys.stdout.fileno())
        except (OSError, ValueError):  # standard output is no file
            pass
        finally:
            os.close(null)


def one_line(text: str) -> str:
    r"""A message in one line, whatever is in the names in it.

    >>> print(one_line("no such\n  file: a\x1bb"))
    no such file: a\x1bb
    """
    line = " ".join(text.split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def _in_thread(arguments: threading.ExceptHookArgs) -> None:
    """A thread's exception is raised again where its work is waited for; here it would only be shown twice."""
    error = (arguments.exc_type, arguments.exc_value or arguments.exc_type(), arguments.exc_traceback)
    log.debug("in thread %s", arguments.thread, exc_info=error)
