"""Waiting asleep: an MPI call that blocks keeps a core busy, and ranks that wait share their cores with simulations.

A wait looks again after 50 us, and then each time after an eighth of what it has waited already, up to a limit. So it
notices at most an eighth too late: were it much more, two ranks that answer each other would each wait for the other's
delay, and both delays would grow. Collectives are begun, and then waited for in the same way.
"""

from __future__ import annotations

import itertools
import pickle
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from mpi4py.MPI import Comm, Op, Request

FIRST_S = 50e-6
LIMIT_S = 5e-3
_SHARE = 1 / 8
_RANKS_AT_LIMIT = 16
_LONGEST_S = 0.1


def limit_s(ranks: int) -> float:
    """The longest nap where so many ranks share a machine: from 16 on, all looks together stay as many per second.

    >>> limit_s(4), limit_s(64)
    (0.005, 0.02)
    """
    return min(LIMIT_S * max(1.0, ranks / _RANKS_AT_LIMIT), _LONGEST_S)


class Backoff:
    """Naps that grow: one for each look that found nothing.

    Args:
        limit_s: the longest nap.
        sleep: in the time that is waited in; None: real time.
    """

    def __init__(self, limit_s: float = LIMIT_S, sleep: Callable[[float], None] | None = None) -> None:
        self.limit_s = limit_s
        self._waited_s = 0.0
        self._sleep = sleep

    def nap(self) -> None:
        """Sleep for a share of what was waited already."""
        nap_s = min(max(FIRST_S, _SHARE * self._waited_s), self.limit_s)
        (self._sleep or time.sleep)(nap_s)
        self._waited_s += nap_s

    def reset(self) -> None:
        """Something was found: the next nap is short again."""
        self._waited_s = 0.0


def wait(request: Request, limit_s: float = LIMIT_S, until_s: float | None = None) -> bool:
    """Sleep until a request is done.

    Args:
        limit_s: the longest nap.
        until_s: give up after so many seconds; the request stays open. None: never.

    Returns:
        whether it is done.

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


class Asleep:
    """The collectives of a communicator, for ranks that may wait long for the others.

    Args:
        comm: all its ranks call the same, in the same order.
        limit_s: the longest nap.
    """

    def __init__(self, comm: Comm, limit_s: float = LIMIT_S) -> None:
        self.comm, self.limit_s = comm, limit_s

    def barrier(self) -> None:
        """Until all ranks are here."""
        wait(self.comm.Ibarrier(), self.limit_s)

    def bcast(self, array: np.ndarray[Any, Any], root: int = 0) -> None:
        """Fill everyone's array with the root's; contiguous, of one shape and type."""
        wait(self.comm.Ibcast(array, root), self.limit_s)

    def allreduce(self, array: np.ndarray[Any, Any], op: Op | None = None) -> None:
        """Replace everyone's array by the sum (or ``op``) over all ranks."""
        given = array.copy()
        started = self.comm.Iallreduce(given, array) if op is None else self.comm.Iallreduce(given, array, op)
        wait(started, self.limit_s)

    def bcast_object(self, thing: Any = None, root: int = 0) -> Any:
        """The root's object, pickled."""
        text = np.frombuffer(pickle.dumps(thing), np.uint8).copy() if self.comm.rank == root else np.zeros(0, np.uint8)
        size = np.array([len(text)], np.int64)
        self.bcast(size, root)
        if self.comm.rank != root:
            text = np.zeros(int(size[0]), np.uint8)
        self.bcast(text, root)
        return thing if self.comm.rank == root else pickle.loads(text.tobytes())

    def gather(self, thing: Any, root: int = 0) -> list[Any] | None:
        """Everyone's object, pickled, in order of rank, at the root; None elsewhere. For small ones."""
        text = np.frombuffer(pickle.dumps(thing), np.uint8).copy()
        here = self.comm.rank == root
        sizes = np.zeros(self.comm.size if here else 0, np.int64)
        wait(self.comm.Igather(np.array([len(text)], np.int64), sizes if here else None, root), self.limit_s)
        everything = np.zeros(int(sizes.sum()), np.uint8)
        starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        target = [everything, sizes.tolist(), starts[:-1].tolist(), _bytes()] if here else None
        wait(self.comm.Igatherv(text, target, root), self.limit_s)
        if not here:
            return None
        return [pickle.loads(everything[a:b].tobytes()) for a, b in itertools.pairwise(starts)]


def _bytes() -> Any:
    from mpi4py import MPI

    return MPI.BYTE
