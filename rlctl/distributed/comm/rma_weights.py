"""The policy in the learner's memory, which actors read without its help: MPI one-sided communication.

An actor looks for a newer policy between steps instead of waiting for the next acknowledgement. All ranks make the
window together, so a replacement of a lost actor has none and is sent the policy.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from rlctl.distributed.comm.codec import EMPTY, Bytes, PolicyWeights, decode

if TYPE_CHECKING:
    from mpi4py.MPI import Intracomm

CAPACITY = 16 << 20
"""Bytes; a larger policy is sent."""
_HEAD = struct.Struct("<qq")


class WeightsWindow:
    """Room for one ``PolicyWeights`` message in the memory of each learner; collective over ``comm``.

    This rank reads in the memory of ``learner`` or, if it is its own rank, writes there.
    """

    def __init__(self, comm: Intracomm, learner: int) -> None:
        from mpi4py import MPI

        self._mpi: Any = MPI
        self._learner = learner
        size = CAPACITY + _HEAD.size if comm.rank == learner else 0
        self._window = MPI.Win.Allocate(size, 1, comm=comm)
        self._seen: Bytes = np.zeros(_HEAD.size, np.uint8)
        self._version = 0
        if size:
            self._write(0, EMPTY)
        comm.Barrier()

    def put(self, version: int, weights: Bytes) -> bool:
        """Publish a message to the actors; False if it does not fit."""
        if len(weights) > CAPACITY:
            return False
        self._write(version, weights)
        return True

    def newer(self) -> PolicyWeights | None:
        """The learner's policy if it is newer than the last one read; looking costs microseconds."""
        self._read(self._seen, 0)
        version, length = _HEAD.unpack(bytes(self._seen))
        if version <= self._version:
            return None
        data: Bytes = np.empty(length + _HEAD.size, np.uint8)
        self._read(data, 0)
        found, again = _HEAD.unpack(bytes(data[: _HEAD.size]))
        if again != length:  # replaced in between by one of another length: it is read the next time
            return None
        self._version = found
        weights: PolicyWeights = decode(data[_HEAD.size :])
        return weights

    def _read(self, into: Bytes, at: int) -> None:
        self._window.Lock(self._learner, self._mpi.LOCK_SHARED)
        self._window.Get([into, self._mpi.BYTE], self._learner, [at, len(into), self._mpi.BYTE])
        self._window.Unlock(self._learner)

    def _write(self, version: int, weights: Bytes) -> None:
        whole: Bytes = np.concatenate([np.frombuffer(_HEAD.pack(version, len(weights)), np.uint8), weights])
        self._window.Lock(self._learner, self._mpi.LOCK_EXCLUSIVE)
        self._window.Put([whole, self._mpi.BYTE], self._learner, [0, len(whole), self._mpi.BYTE])
        self._window.Unlock(self._learner)
