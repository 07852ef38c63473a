"""Messages between a learner and its actors over MPI, without waiting for receivers or for dead ranks.

Sends are started and never waited for, since what is sent to a dead rank may never complete. Receiving is a probe and
a copy. Where a rank has died, a communicator still serves the others if the MPI can do that (ULFM, Bland et al. 2013,
doi:10.1177/1094342013488238; Open MPI 5 with ``--with-ft ulfm``); elsewhere the whole job ends.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from rlctl.distributed.comm.codec import EMPTY, Bytes

if TYPE_CHECKING:
    from mpi4py import MPI

Peer = tuple[int, int]
"""A communicator of a transport, by number, and a rank in it."""


class MessageKind(IntEnum):
    """Kind of a message; its MPI tag.

    HELLO, CHUNK and BYE go from actors to learners, WELCOME, WEIGHTS, ACK and STOP the other way, BEAT both.
    """

    BEAT = 100
    HELLO = 101
    CHUNK = 102
    BYE = 103
    WELCOME = 104
    WEIGHTS = 105
    ACK = 106
    STOP = 107


class Message(NamedTuple):
    """A message that has arrived; ``data`` belongs to the receiver."""

    peer: Peer
    kind: MessageKind
    data: Bytes


class Transport(Protocol):
    """One end of the connections between a learner and its actors."""

    def send(self, peer: Peer, kind: MessageKind, data: Bytes = EMPTY) -> None:
        """Start to send; ``data`` must not change any more."""

    def poll(self) -> Iterator[Message]:
        """What has arrived; never waits."""

    def lost(self) -> set[Peer]:
        """Peers that were found dead since the last call."""


def rank_died(error: Exception) -> bool:
    """Whether an MPI call failed because a rank has died, also where an environment made the call."""
    from mpi4py import MPI

    names = ("ERR_PROC_FAILED", "ERR_PROC_FAILED_PENDING", "ERR_REVOKED")
    dead = {getattr(MPI, name, None) for name in names}
    return any(isinstance(e, MPI.Exception) and e.Get_error_class() in dead for e in (error, error.__cause__))


_UNSENT: list[dict[Peer, list[tuple[MPI.Request, Bytes]]]] = []
"""What the transports of this process have sent: a receiver may read it until MPI is finalized."""


class MpiTransport:
    """A ``Transport`` over MPI communicators, for any thread.

    Args:
        comm: of the learner and its actors, for this alone.
    """

    def __init__(self, comm: MPI.Comm) -> None:
        from mpi4py import MPI

        self._mpi: Any = MPI
        self._comms: list[MPI.Comm] = [comm]
        self._pending: dict[Peer, list[tuple[MPI.Request, Bytes]]] = {}
        _UNSENT.append(self._pending)
        self._dead: set[Peer] = set()
        self._new_losses: set[Peer] = set()
        self._status = self._mpi.Status()
        self._lock = threading.RLock()

    def send(self, peer: Peer, kind: MessageKind, data: Bytes = EMPTY) -> None:
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
            found, self._new_losses = self._new_losses, set()
            return found

    def add(self, comm: MPI.Comm) -> int:
        """Add a communicator; its number, for ``Peer``."""
        with self._lock:
            self._comms.append(comm)
            return len(self._comms) - 1

    def _next(self, number: int) -> Message | None:
        with self._lock:
            comm, status = self._comms[number], self._status
            try:
                found = comm.Improbe(self._mpi.ANY_SOURCE, self._mpi.ANY_TAG, status)
                if found is None:
                    return None
                source, kind = status.source, MessageKind(status.tag)
                data = np.empty(status.Get_count(self._mpi.BYTE), np.uint8)
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
        if not rank_died(error):
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
        with self._lock:
            if peer not in self._dead:
                self._new_losses.add(peer)
                self._dead.add(peer)
                self._pending.pop(peer, None)
