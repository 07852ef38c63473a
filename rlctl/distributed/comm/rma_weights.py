"""The policy in the learner's memory, where actors read it by themselves: MPI's one-sided communication.

The learner need not answer, so an actor can look for a newer policy before every step instead of with every
acknowledgement. All ranks make the window together, so a replacement of a lost actor has none and is sent the policy.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from rlctl.distributed.comm.messages import Bytes
from rlctl.distributed.comm.wire import Weights

if TYPE_CHECKING:
    from mpi4py.MPI import Intracomm

CAPACITY = 16 << 20
"""Bytes; a larger policy is sent."""
_LENGTH = struct.Struct("<qq")


class Window:
    """A place for one message of weights in the memory of each learner; made by all ranks of ``comm`` together.

    Args:
        learner: whose memory this rank reads or, if it is its own rank, writes.
    """

    def __init__(self, comm: Intracomm, learner: int) -> None:
        from mpi4py import MPI

        self._mpi: Any = MPI
        self._learner = learner
        size = CAPACITY + _LENGTH.size if comm.rank == learner else 0
        self._window = MPI.Win.Allocate(size, 1, comm=comm)
        self._head: Bytes = np.zeros(_LENGTH.size, np.uint8)
        self._version = 0
        if size:
            self._write(0, np.zeros(0, np.uint8))
        comm.Barrier()

    def put(self, version: int, weights: Bytes) -> bool:
        """Let actors read this from now on; False: it does not fit."""
        if len(weights) > CAPACITY:
            return False
        self._write(version, weights)
        return True

    def newer(self) -> Weights | None:
        """The learner's policy, if it is newer than the last one that was read; looking costs microseconds."""
        self._read(self._head, 0)
        version, length = _LENGTH.unpack(bytes(self._head))
        if version <= self._version:
            return None
        data: Bytes = np.empty(length + _LENGTH.size, np.uint8)
        self._read(data, 0)
        found, again = _LENGTH.unpack(bytes(data[: _LENGTH.size]))
        if again != length:  # exchanged in between for one of another length, which no training does
            return None
        self._version = found
        return Weights.decode(data[_LENGTH.size :])

    def close(self) -> None:
        """Give it up; all ranks must, so nobody does where one has died."""
        self._window.Free()

    def _read(self, into: Bytes, at: int) -> None:
        self._window.Lock(self._learner, self._mpi.LOCK_SHARED)
        self._window.Get([into, self._mpi.BYTE], self._learner, [at, len(into), self._mpi.BYTE])
        self._window.Unlock(self._learner)

    def _write(self, version: int, weights: Bytes) -> None:
        whole: Bytes = np.concatenate([np.frombuffer(_LENGTH.pack(version, len(weights)), np.uint8), weights])
        self._window.Lock(self._learner, self._mpi.LOCK_EXCLUSIVE)
        self._window.Put([whole, self._mpi.BYTE], self._learner, [0, len(whole), self._mpi.BYTE])
        self._window.Unlock(self._learner)
