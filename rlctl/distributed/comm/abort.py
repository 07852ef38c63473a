"""A rank that fails takes the job with it at once: the others would wait for it for ever."""

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

MENDABLE = 2
"""Exit code of what the user can mend."""

GO_ON = 75
"""Exit code where training is not over, and goes on with ``--resume``."""

_INTERRUPTED = 130
_PREFER_FIRST_S = 0.3
_DELIVERY_S = 0.1
_GRACE_S = 5.0
_OPENMPI_DAEMONS = ("prterun", "prted", "mpiexec", "mpirun")


@contextmanager
def ends_together(label: str | None = None, spared: bool = False) -> Iterator[int]:
    """Any exception in here ends the whole job, once its traceback, or the one line of a ``RlctlError``, is written.

    The context is the number of this rank.

    What goes wrong on many ranks of a machine is written by the first of them only.

    Args:
        label: who this rank is, for the message.
        spared: the others can do without this rank: SIGTERM ends it alone, where the MPI survives that.
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
    """End the job: exit code 2 for what the user can mend, 75 where ranks were lost, 130 for an interrupt, else 70.

    Args:
        error: why.
        label: of this rank.
        first: of several ranks with an error that the user can mend, this one is to tell of it.
    """
    interrupts.end()  # another rank may be ending the job already: launchers begin with SIGTERM
    if isinstance(error, NoAnswer):
        error = NoAnswerError(timeout_message(error))
    if isinstance(error, RlctlError):
        # Wrong for all alike, most often: then rank 0 is to say it, as it is of no interest where.
        told = not first and _is_told(_PREFER_FIRST_S)
        text = "" if told else f"rlctl: {'' if first else f'{label}: '}{one_line(str(error))}\n"
        code = GO_ON if isinstance(error, RanksLostError) else MENDABLE
    elif isinstance(error, KeyboardInterrupt):
        text, code = "", _INTERRUPTED
    else:
        text, code = f"rlctl: {label} ends the job:\n{''.join(traceback.format_exception(error))}", EXIT_CODE
    end(code, text)


def end(code: int, text: str = "") -> NoReturn:
    """End the job with an exit code; ``text`` is written unless another rank of this machine has ended it already."""
    claim = _claim()
    if claim is not None:
        status_file.tell_code(code)
        sys.stdout.flush()
        os.write(2, text.encode(errors="backslashreplace"))
    time.sleep(_DELIVERY_S if claim is not None else 1.0)  # what was written must be out before the launcher kills
    kill_job(code)


def kill_job(code: int) -> NoReturn:
    """End all ranks at once.

    Where ranks survive each other, Open MPI takes ``MPI_Abort`` for the death of one rank: the others go on, and so
    does its launcher. That is told to end instead, which gives exit code 1, whatever is asked for.
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
    """Whether this MPI lets the others go on when a rank is killed, by its own word.

    Open MPI from 5 on keeps the answer as an attribute of the world, ``MPI_FT`` of its mpi.h, which mpi4py has no name
    for: true under ``mpiexec --with-ft ulfm``, or with the parameter ``mpi_ft_enable``.
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
    """The first of the ranks of this machine, which are children of one launcher, gets it; it ends with the process."""
    if sys.platform != "linux":
        return socket.socket()
    held = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        held.bind(_name())
    except OSError:
        held.close()
        return None
    return held


def _is_told(patience_s: float) -> bool:
    """Whether another rank of this machine ends the job, or does so within a while."""
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
