"""Messages between a learner and its actors over MPI: nobody waits for a receiver, and nobody for the dead.

Every send is started and never waited for, since what is sent to a dead rank may never complete. Receiving is a probe
and a copy. A communicator in which a rank has died goes on for the others where the MPI can do that (ULFM, Bland et
al. 2013, doi:10.1177/1094342013488238; Open MPI 5 with ``--with-ft ulfm``); elsewhere the whole job ends.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from rlctl.distributed.comm.messages import EMPTY, Bytes, Kind, Message, Peer

if TYPE_CHECKING:
    from mpi4py import MPI


def of_the_dead(error: Exception) -> bool:
    """Whether an MPI call failed since a rank has died, also where an environment made it."""
    from mpi4py import MPI

    names = ("ERR_PROC_FAILED", "ERR_PROC_FAILED_PENDING", "ERR_REVOKED")
    dead = {getattr(MPI, name, None) for name in names}
    return any(isinstance(e, MPI.Exception) and e.Get_error_class() in dead for e in (error, error.__cause__))


class MpiTransport:
    """Over MPI communicators, from any thread.

    Args:
        comm: of the learner and its actors; used for nothing else.
    """

    def __init__(self, comm: MPI.Comm) -> None:
        from mpi4py import MPI

        self._mpi: Any = MPI
        self._comms: list[MPI.Comm] = [comm]
        self._pending: dict[Peer, list[tuple[MPI.Request, Bytes]]] = {}
        self._dead: set[Peer] = set()
        self._news: set[Peer] = set()
        self._status = self._mpi.Status()
        self._lock = threading.RLock()

    def send(self, peer: Peer, kind: Kind, data: Bytes = EMPTY) -> None:
        """Start to send; ``data`` must not change any more."""
        with self._lock:
            if peer in self._dead:
                return
            try:
                request = self._comms[peer[0]].Isend([data, self._mpi.BYTE], peer[1], int(kind))
            except self._mpi.Exception as error:
                self._failed(error, peer)
                return
            waiting = self._pending.setdefault(peer, [])
            waiting.append((request, data))
            self._sweep(peer, waiting)

    def poll(self) -> Iterator[Message]:
        """What has arrived; never waits."""
        for number in range(len(self._comms)):
            while (message := self._next(number)) is not None:
                yield message

    def lost(self) -> set[Peer]:
        """Peers that were found dead since the last call."""
        with self._lock:
            news, self._news = self._news, set()
            return news

    def drop(self, peer: Peer) -> None:
        """Nothing is sent to this peer any more, and what is under way is forgotten."""
        with self._lock:
            self._dead.add(peer)
            self._pending.pop(peer, None)

    def add(self, comm: MPI.Comm) -> int:
        """One more communicator; its number, for ``Peer``."""
        with self._lock:
            self._comms.append(comm)
            return len(self._comms) - 1

    def flushed(self) -> bool:
        """Whether everything that can arrive has been taken over by MPI."""
        with self._lock:
            for peer in list(self._pending):
                self._sweep(peer, self._pending.get(peer, []))
            return not any(self._pending.values())

    def _next(self, number: int) -> Message | None:
        with self._lock:
            comm, status = self._comms[number], self._status
            try:
                found = comm.Improbe(self._mpi.ANY_SOURCE, self._mpi.ANY_TAG, status)
                if found is None:
                    return None
                source, kind, data = (
                    status.source,
                    Kind(status.tag),
                    np.empty(status.Get_count(self._mpi.BYTE), np.uint8),
                )
                found.Recv([data, self._mpi.BYTE])
            except self._mpi.Exception as error:
                self._failed(error, None, number)
                return None
            return Message((number, source), kind, data)

    def _sweep(self, peer: Peer, waiting: list[tuple[MPI.Request, Bytes]]) -> None:
        try:
            # In order, mostly: a later message seldom leaves before an earlier one.
            while waiting and waiting[0][0].Test():
                waiting.pop(0)
        except self._mpi.Exception as error:
            self._failed(error, peer)

    def _failed(self, error: MPI.Exception, peer: Peer | None, number: int = 0) -> None:
        if not of_the_dead(error):
            raise error
        if peer is not None:
            self._mark(peer)
            return
        comm: Any = self._comms[number]
        if isinstance(comm, self._mpi.Intercomm):
            self._mark((number, 0))
            return
        failed = comm.Get_failed()
        ranks = self._mpi.Group.Translate_ranks(failed, list(range(failed.size)), comm.Get_group())
        comm.Ack_failed(failed.size)
        for rank in ranks:
            self._mark((number, rank))

    def _mark(self, peer: Peer) -> None:
        if peer not in self._dead:
            self._news.add(peer)
            self.drop(peer)
