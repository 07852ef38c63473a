"""Makes standard input and output safe: closed, full, a pipe without a reader, an old character set."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import threading
from typing import Any

log = logging.getLogger(__name__)


def open_closed_streams() -> None:
    """Open ``/dev/null`` for each of the three standard streams that is closed, as in services.

    Otherwise the next file that is opened, a journal or a connection, would get its number: everything printed would go
    there, and a process that is started would take it for its own input or output.
    """
    while (handle := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(handle, True)
    os.close(handle)


def prepare() -> None:
    """Make printing safe: closed streams drop what is printed, unencodable characters are escaped."""
    open_closed_streams()
    errors = sys.stderr
    if isinstance(errors, io.TextIOWrapper) and errors is sys.__stderr__:
        raw: Any = _LossyErrors(errors.fileno(), "w", closefd=False)  # unbuffered, as by python -u
        sys.stderr = io.TextIOWrapper(raw, encoding=errors.encoding, line_buffering=True, write_through=True)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 -- it stays open as long as the process
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    threading.excepthook = _log_thread_error


class _LossyErrors(io.FileIO):
    """Standard error that drops what cannot be written, to a full disk or a closed pipe, rather than end a run."""

    def write(self, data: Any) -> int:
        """Write all of it, or drop it."""
        with contextlib.suppress(OSError):
            return super().write(data)
        return len(data)


def flush() -> None:
    """Flush standard output while an error can still be reported."""
    sys.stdout.flush()


def has_reader() -> bool:
    """Whether standard output can be flushed; not so once a pipe has lost its reader."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        return False
    return True


def drop_output() -> None:
    """Discard what cannot be printed any more, also at the end of Python."""
    if has_reader():
        return
    null = os.open(os.devnull, os.O_WRONLY)
    with contextlib.suppress(OSError, ValueError):  # standard output is no file
        os.dup2(null, sys.stdout.fileno())
    os.close(null)


def one_line(text: str) -> str:
    r"""A message in one line, whatever the names in it contain.

    >>> print(one_line("no such\n  file: a\x1bb"))
    no such file: a\x1bb
    """
    line = " ".join(text.split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def _log_thread_error(arguments: threading.ExceptHookArgs) -> None:
    """Log a thread's exception instead of printing it: it is raised again where its result is awaited."""
    error = (arguments.exc_type, arguments.exc_value or arguments.exc_type(), arguments.exc_traceback)
    log.debug("in thread %s", arguments.thread, exc_info=error)
