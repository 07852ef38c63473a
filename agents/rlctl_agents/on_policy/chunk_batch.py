"""Chunks of different lengths as one batch: flat for the network, in columns for sums along time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlctl.distributed.comm.chunk import Chunk, flat_transitions

Float32 = NDArray[np.float32]


class ChunkBatch:
    """Transitions of chunks, environment by environment and in order of time.

    Attributes:
        transitions: [N], structured as ``TransitionSpec.dtype``.
        observations, actions: [N, width] and [N, n_action].
        starts: [N], whether an episode begins there.
        seams: [N], whether the transition does not follow the one before it.
        last_observations: [columns, width], after the last step of each column.
        cut_observations: [K, width], the last ones of truncated episodes; their column and time are in ``cut_at``.
    """

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        self.chunks = chunks
        self.lengths = np.repeat(*np.array([chunk.transitions.shape for chunk in chunks]).T)
        self.columns, self.longest = len(self.lengths), int(self.lengths.max())
        self._valid = np.arange(self.longest) < self.lengths[:, None]
        self.transitions: NDArray[np.void] = flat_transitions(chunks)
        self.observations: Float32 = np.ascontiguousarray(self.transitions["observation"])
        self.actions: Float32 = np.ascontiguousarray(self.transitions["action"])
        self.last_observations: Float32 = np.concatenate([chunk.last_observations for chunk in chunks])
        done = self.columned(self.transitions["terminated"] | self.transitions["truncated"], False)
        self.goes_on = (~done).T
        self.goes_on[self.lengths - 1, np.arange(self.columns)] = False
        self.goes_on &= self._valid.T
        starts = np.zeros_like(done)
        starts[:, 1:] = done[:, :-1]
        self.starts: NDArray[np.bool_] = starts[self._valid]
        seams = np.zeros_like(done)
        seams[:, 0] = True
        self.seams: NDArray[np.bool_] = seams[self._valid]
        first, where, cut = 0, [], []
        for chunk in chunks:
            for step, end in chunk.episode_ends:
                if not chunk.transitions["terminated"][step, end.environment]:
                    where.append((first + end.environment, step))
                    cut.append(end.observation)
            first += chunk.transitions.shape[1]
        self.cut_at = np.array(where, np.int64).reshape(-1, 2)
        self.cut_observations: Float32 = np.array(cut, np.float32).reshape(-1, self.observations.shape[1])

    def __len__(self) -> int:
        return len(self.transitions)

    def columned(self, flat: NDArray[Any], padding: Any = 0.0) -> NDArray[Any]:
        """From [N] to [columns, longest]."""
        padded = np.full((self.columns, self.longest), padding, flat.dtype)
        padded[self._valid] = flat
        return padded

    def flattened(self, columned: NDArray[Any]) -> NDArray[Any]:
        """From [columns, longest] to [N]."""
        return columned[self._valid]

    def split(self, values: Float32) -> tuple[Float32, Float32, Float32]:
        """Split values of observations, last and cut observations, which lie one after the other."""
        ends = (len(self), len(self) + self.columns)
        return values[: ends[0]], values[ends[0] : ends[1]], values[ends[1] :]
