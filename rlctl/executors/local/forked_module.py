"""Runs a module of Python in a copy of this process, which has imported it already, instead of a new interpreter.

``python -P -m MODULE ARGUMENT ...`` takes some 50 ms of CPU time until MODULE begins, most of it to start and import;
the copy takes 2 ms. The supervisor starts the wrappers of programs so: it is small, and has one thread only.

Nothing but the standard library is imported here, and the module.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import NoReturn

_STARTS = [sys.executable, "-P", "-m"]
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGCHLD)


def is_module(command: Sequence[str]) -> bool:
    """Whether a command runs a module with this interpreter, with nothing but what is installed on its path.

    >>> is_module([sys.executable, "-P", "-m", "json.tool", "a.json"]), is_module(["python", "a.py"])
    (True, False)
    """
    return list(command[:3]) == _STARTS and len(command) > 3


def fork_module(
    command: Sequence[str], environment: Mapping[str, str], outputs: Sequence[str], cores: Sequence[int] | None
) -> int:
    """Call ``main(arguments)`` of the module in a copy of this process, which ends with the exit code that it returns.

    The copy has a session of its own, this environment, these cores, and no open file but its outputs. In ``/proc`` it
    keeps the command line and the environment of this process.

    Args:
        command: ``python -P -m MODULE ARGUMENT ...``; see ``is_module``.
        outputs: files of its standard output and its standard error.

    Returns:
        Its process number.

    Raises:
        OSError: it cannot be started.
    """
    module = importlib.import_module(command[3])
    ready, failed = os.pipe()
    try:
        pid = os.fork()
        if pid == 0:
            _become(module, command[4:], environment, outputs, cores, failed)
    finally:
        os.close(failed)  # the copy never comes here
    with os.fdopen(ready, "rb") as pipe:
        error = pipe.read()  # ends when the copy has its session: from then on it can be signalled
    if error:
        os.waitpid(pid, 0)
        raise OSError(error.decode())
    return pid


def _become(
    module: ModuleType,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    outputs: Sequence[str],
    cores: Sequence[int] | None,
    failed: int,
) -> NoReturn:
    code = 1
    try:
        gc.freeze()  # else a collection would copy all memory that is shared
        try:
            _detach(environment, outputs, cores, failed)
        except OSError as error:
            os.write(failed, str(error).encode())
            os._exit(code)
        os.close(failed)
        code = module.main(arguments)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _close_others(kept: int) -> None:
    """Close all files but these of its own; of a billion possible numbers, only those that are open are tried."""
    try:
        handles = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:
        os.closerange(3, kept)
        os.closerange(kept + 1, os.sysconf("SC_OPEN_MAX"))
        return
    for handle in handles:
        if handle > 2 and handle != kept:
            with contextlib.suppress(OSError):
                os.close(handle)


def _detach(environment: Mapping[str, str], outputs: Sequence[str], cores: Sequence[int] | None, kept: int) -> None:
    os.setsid()
    signal.set_wakeup_fd(-1)
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if cores is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    written = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    streams = [(os.devnull, os.O_RDONLY), *((path, written) for path in outputs)]
    for stream, (path, flags) in enumerate(streams):
        opened = os.open(path, flags, 0o644)
        os.dup2(opened, stream)
        os.close(opened)
    _close_others(kept)
    sys.stdout, sys.stderr = (os.fdopen(stream, "w", closefd=False) for stream in (1, 2))
    os.environ.clear()
    os.environ.update(environment)
