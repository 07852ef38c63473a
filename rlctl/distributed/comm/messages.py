"""Messages between a learner and its actors, whatever carries them."""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
EMPTY: Bytes = np.zeros(0, np.uint8)


class Kind(IntEnum):
    """Of a message; its MPI tag.

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


class Message:
    """One that has arrived.

    Attributes:
        peer: who sent it.
        kind: what it is.
        data: its bytes, the receiver's to keep.
    """

    __slots__ = ("data", "kind", "peer")

    def __init__(self, peer: Peer, kind: Kind, data: Bytes) -> None:
        self.peer, self.kind, self.data = peer, kind, data


Peer = tuple[int, int]
"""A communicator of a transport, by number, and a rank in it."""


class Transport(Protocol):
    """One end of the connections between a learner and its actors."""

    def send(self, peer: Peer, kind: Kind, data: Bytes = EMPTY) -> None:
        """Start to send; ``data`` must not change any more."""

    def poll(self) -> Iterator[Message]:
        """What has arrived; never waits."""

    def lost(self) -> set[Peer]:
        """Peers that were found dead since the last call."""
