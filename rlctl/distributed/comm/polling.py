"""Waits that sleep: an MPI call that blocks keeps a core busy, and waiting ranks share their cores with simulations.

A wait looks again after 50 us, and then each time after an eighth of what it has waited already, up to a limit. So it
notices at most an eighth too late: were it much more, two ranks that answer each other would each wait for the other's
delay, and both delays would grow. Collectives are begun, and then waited for in the same way.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from rlctl.distributed.comm.codec import Bytes, decode, encode

if TYPE_CHECKING:
    from mpi4py.MPI import Comm, Request

FIRST_S = 50e-6
LIMIT_S = 5e-3
_SHARE = 1 / 8
_RANKS_AT_LIMIT = 16
_LONGEST_S = 0.1


def limit_s(ranks: int) -> float:
    """The longest nap for so many ranks on a machine: from 16 on, the number of looks per second stays constant.

    >>> limit_s(4), limit_s(64)
    (0.005, 0.02)
    """
    return min(LIMIT_S * max(1.0, ranks / _RANKS_AT_LIMIT), _LONGEST_S)


class Backoff:
    """Growing naps of up to ``limit_s``, one after each look that found nothing."""

    def __init__(self, limit_s: float = LIMIT_S, sleep: Callable[[float], None] | None = None) -> None:
        self.limit_s = limit_s
        self._waited_s = 0.0
        self._sleep = sleep

    def nap(self) -> None:
        """Sleep for a share of the time waited so far."""
        nap_s = min(max(FIRST_S, _SHARE * self._waited_s), self.limit_s)
        (self._sleep or time.sleep)(nap_s)
        self._waited_s += nap_s

    def reset(self) -> None:
        """Make the next nap short again, after something was found."""
        self._waited_s = 0.0


def wait(request: Request, limit_s: float = LIMIT_S, until_s: float | None = None) -> bool:
    """Sleep until a request is done; whether it is.

    Args:
        until_s: give up after so many seconds; the request stays open. None: never.

    Raises:
        mpi4py.MPI.Exception: it has failed; where the MPI survives a dead rank, also because the peer is dead.
    """
    backoff = Backoff(limit_s)
    end = None if until_s is None else time.monotonic() + until_s
    while not request.Test():
        if end is not None and time.monotonic() >= end:
            return False
        backoff.nap()
    return True


def receive(comm: Comm, source: int, tag: int, limit_s: float = LIMIT_S, until_s: float | None = None) -> Bytes | None:
    """Sleep until a message arrives, and return it.

    Args:
        until_s: give up after so many seconds, and return None. None: never.

    Raises:
        mpi4py.MPI.Exception: as ``wait``.
    """
    from mpi4py import MPI

    status, backoff = MPI.Status(), Backoff(limit_s)
    end = None if until_s is None else time.monotonic() + until_s
    while (message := comm.Improbe(source, tag, status)) is None:
        if end is not None and time.monotonic() >= end:
            return None
        backoff.nap()
    data: Bytes = np.empty(status.Get_count(MPI.BYTE), np.uint8)
    message.Recv([data, MPI.BYTE])
    return data


class RankGroup:
    """Collectives over the ranks of a communicator, which sleep while they wait for each other.

    All ranks call the same, in the same order.
    """

    def __init__(self, comm: Comm, limit_s: float = LIMIT_S) -> None:
        self.size, self.rank = comm.size, comm.rank
        self._comm, self._limit_s = comm, limit_s

    def barrier(self) -> None:
        """Wait until all ranks are here."""
        wait(self._comm.Ibarrier(), self._limit_s)

    def sum(self, array: np.ndarray[Any, Any]) -> None:
        """Replace the array by the sum over all ranks."""
        given = array.copy()  # MPI reads it until the end
        wait(self._comm.Iallreduce(given, array), self._limit_s)

    def max(self, array: np.ndarray[Any, Any]) -> None:
        """Replace the array by the elementwise maximum over all ranks."""
        from mpi4py import MPI

        given = array.copy()
        wait(self._comm.Iallreduce(given, array, MPI.MAX), self._limit_s)

    def total(self, count: int) -> int:
        """The sum of a count over all ranks."""
        array = np.array([count], np.int64)
        self.sum(array)
        return int(array[0])

    def gather(self, note: Any) -> list[Any] | None:
        """The notes of all ranks, which are pickled, on the first one; None elsewhere."""
        from mpi4py import MPI

        data, first = encode(note), self.rank == 0
        size = np.array([len(data)], np.int64)
        sizes = np.zeros(self.size if first else 0, np.int64)
        wait(self._comm.Igather(size, sizes if first else None, 0), self._limit_s)
        everything = np.zeros(int(sizes.sum()), np.uint8)
        starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        target = [everything, sizes.tolist(), starts[:-1].tolist(), MPI.BYTE] if first else None
        wait(self._comm.Igatherv(data, target, 0), self._limit_s)
        return [decode(everything[a:b]) for a, b in itertools.pairwise(starts)] if first else None
