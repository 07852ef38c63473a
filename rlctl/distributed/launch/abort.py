"""Ending the whole job when a rank fails: the other ranks would wait for it without end."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from rlctl.core.errors import NoAnswerError, RanksLostError, RlctlError
from rlctl.distributed.launch import status_file
from rlctl.system import interrupts
from rlctl.system.crash_report import EXIT_CODE, origin
from rlctl.system.terminal import one_line
from rlctl.system.watchdog import NoAnswer, timeout_message

if TYPE_CHECKING:
    from mpi4py.MPI import Comm

USER_ERROR = 2
"""Exit code for errors that the user can correct."""

RESUMABLE = 75
"""Exit code of an unfinished training that ``--resume`` continues."""

_INTERRUPTED = 130
_PREFER_FIRST_S = 0.3
_DELIVERY_S = 0.1
_GRACE_S = 5.0
_OPENMPI_DAEMONS = ("prterun", "prted", "mpiexec", "mpirun")


@contextmanager
def aborting_job(label: str | None = None, spared: bool = False) -> Iterator[int]:
    """End the whole job at any exception in the block, after printing its traceback or, of a ``RlctlError``, its line.

    Yields the number of this rank. Of several ranks of a machine that fail, the first one prints.

    Args:
        label: of this rank, for the message.
        spared: whether the others can do without this rank: SIGTERM ends it alone, where the MPI survives that.
    """
    from mpi4py import MPI

    rank = MPI.COMM_WORLD.rank
    try:
        yield rank
    except GeneratorExit:
        raise
    except SystemExit as error:
        if origin(error).rlctl:
            raise
        abort(error, label or f"rank {rank}", first=rank == 0)  # the others would wait for this one
    except KeyboardInterrupt as error:
        if spared and survives(MPI.COMM_WORLD):
            os.kill(os.getpid(), signal.SIGKILL)  # any other end looks as if the rank were still there
        abort(error, label or f"rank {rank}", first=rank == 0)
    except BaseException as error:
        abort(error, label or f"rank {rank}", first=rank == 0)


def abort(error: BaseException, label: str, first: bool) -> NoReturn:
    """End the job: exit code 2 for errors that the user can correct, 75 for lost ranks, 130 for an interrupt, else 70.

    Args:
        error: the reason.
        label: of this rank.
        first: whether this rank prints an error that several ranks have.
    """
    interrupts.end()  # another rank may be ending the job already: launchers begin with SIGTERM
    if isinstance(error, NoAnswer):
        error = NoAnswerError(timeout_message(error))
    if isinstance(error, RlctlError):
        # Most often all ranks have the same error: then rank 0 prints it, since the rank does not matter.
        printed = not first and _is_claimed(_PREFER_FIRST_S)
        text = "" if printed else f"rlctl: {'' if first else f'{label}: '}{one_line(str(error))}\n"
        code = RESUMABLE if isinstance(error, RanksLostError) else USER_ERROR
    elif isinstance(error, KeyboardInterrupt):
        text, code = "", _INTERRUPTED
    else:
        text, code = f"rlctl: {label} ends the job:\n{''.join(traceback.format_exception(error))}", EXIT_CODE
    end(code, text)


def end(code: int, text: str = "") -> NoReturn:
    """End the job with an exit code, and print ``text`` unless another rank of this machine ends it already."""
    claim = _claim()
    if claim is not None:
        status_file.report_exit_code(code)
        sys.stdout.flush()
        os.write(2, text.encode(errors="backslashreplace"))
    time.sleep(_DELIVERY_S if claim is not None else 1.0)  # the text must be out before the launcher kills
    kill_job(code)


def kill_job(code: int) -> NoReturn:
    """End all ranks at once.

    Where ranks survive each other, Open MPI takes ``MPI_Abort`` for the death of one rank: the others continue, and so
    does its launcher. SIGTERM ends that one instead, always with exit code 1.
    """
    from mpi4py import MPI

    interrupts.end()
    parent = os.getppid()
    if survives(MPI.COMM_WORLD) and _program(parent) in _OPENMPI_DAEMONS:
        with suppress(ProcessLookupError):
            os.kill(parent, signal.SIGTERM)
        time.sleep(_GRACE_S)
    MPI.COMM_WORLD.Abort(code)
    os._exit(code)


def survives(comm: Comm) -> bool:
    """Whether the other ranks survive when one is killed, as this MPI declares.

    Open MPI from 5 on has it as an attribute of the world, ``MPI_FT`` of its mpi.h, for which mpi4py has no name: true
    under ``mpiexec --with-ft ulfm``, or with the parameter ``mpi_ft_enable``.
    """
    from mpi4py import MPI

    name, version = MPI.get_vendor()
    if name != "Open MPI" or version < (5, 0, 0):
        return False
    import ctypes

    address = comm.Get_attr(12)
    return isinstance(address, int) and address > 1 and bool(ctypes.c_int.from_address(address).value)


def _program(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def _claim() -> socket.socket | None:
    """A lock that the first of this machine's ranks gets, until it exits; None for the others."""
    if sys.platform != "linux":
        return socket.socket()
    held = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        held.bind(_name())
    except OSError:
        held.close()
        return None
    return held


def _is_claimed(patience_s: float) -> bool:
    """Whether another rank of this machine ends the job, or begins to within ``patience_s``."""
    if sys.platform != "linux":
        return False
    end = time.monotonic() + patience_s
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as asking:
        while time.monotonic() < end:
            if asking.connect_ex(_name()) == 0:
                return True
            time.sleep(_DELIVERY_S / 5)
    return False


def _name() -> str:
    return f"\0rlctl-{os.getuid()}-{os.getppid()}"
