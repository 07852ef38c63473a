"""What the simulation programs of this package share: arguments, MPI, exit codes, and files that are written whole.

It knows nothing of rlctl and does not import NumPy, so that a program can set NumPy's threads, and starts fast.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn


class InputError(Exception):
    """A wrong argument or file; the program ends with exit code 2 and this line."""


class ArgumentParser(argparse.ArgumentParser):
    """Raises ``InputError`` for wrong arguments."""

    def error(self, message: str) -> NoReturn:
        """Raise, with a hint."""
        raise InputError(f"{message}; see --help")


def run_program(
    name: str,
    parse: Callable[[Sequence[str] | None], argparse.Namespace],
    run: Callable[[argparse.Namespace, Any], int],
    argv: Sequence[str] | None,
) -> int:
    """Run a program; returns its exit code: that of ``run``, 1 if a file cannot be written, 2 for wrong input.

    Args:
        run: takes the options and the communicator (see ``communicator``). All ranks raise the same ``InputError``;
            after any other exception of one rank the others are aborted, since they wait for it.
    """
    # A rank is one core; must be said before NumPy starts its threads.
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, "1")
    comm, rank = None, _rank()
    try:
        options = parse(argv)
        comm = communicator()
        return run(options, comm)
    except (InputError, OSError) as error:
        if rank == 0:
            print(f"{name}: {error}", file=sys.stderr)
        if comm is not None and isinstance(error, OSError):
            comm.Abort(1)
        return 2 if isinstance(error, InputError) else 1
    except BaseException:
        if comm is not None:
            import traceback

            traceback.print_exc()
            comm.Abort(1)
        raise


def write_whole(path: Path, data: bytes, durable: bool = False) -> None:
    """Write a file so that there is always the old one or the new one, whole.

    Args:
        durable: it survives a crash of the machine, too.
    """
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _rank() -> int:
    """This process among the ranks, as far as its launcher says so."""
    for name in ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK"):
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return 0


def communicator() -> Any:
    """All ranks, or None for a single process, which then starts without MPI."""
    sizes = [os.environ[name] for name in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE") if name in os.environ]
    # A launcher that speaks PMIx alone says the rank but not the size: ask MPI.
    if all(size == "1" for size in sizes) and (sizes or "PMIX_RANK" not in os.environ):
        return None
    from mpi4py import MPI

    return MPI.COMM_WORLD if MPI.COMM_WORLD.size > 1 else None
