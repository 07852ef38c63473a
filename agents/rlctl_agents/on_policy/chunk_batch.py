"""Chunks of different lengths as one batch: in a row for the network, in columns for what is summed along time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlctl.distributed.comm.chunk import Chunk

Float32 = NDArray[np.float32]


class ChunkBatch:
    """Transitions of chunks, environment by environment and in order of time; flat arrays begin with [N].

    Attributes:
        rows, actions: [N, row] and [N, n_action].
        log_probs, rewards, durations, terminated, truncated: [N]; see ``rlctl.distributed.comm.chunk.Chunk``.
        starts: [N], whether an episode begins there.
        seams: [N], whether there begins what does not follow the transition before it.
        goes_on: [longest, columns], whether the next row is the next step of the same episode.
        last_rows: [columns, row], what is seen after the last step of each column.
        cut_rows: [K, row], the last rows of episodes that were truncated, and ``cut_at`` where: column and time.
    """

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        self.chunks = chunks
        self.lengths = np.array([len(chunk.rows) for chunk in chunks for _ in range(chunk.rows.shape[1])])
        self.columns, self.longest = len(self.lengths), int(self.lengths.max())
        self._valid = np.arange(self.longest) < self.lengths[:, None]
        self.rows: Float32 = _flat([chunk.rows for chunk in chunks])
        self.actions: Float32 = _flat([chunk.actions for chunk in chunks])
        self.log_probs: Float32 = _flat([chunk.log_probs for chunk in chunks])
        self.rewards: Float32 = _flat([chunk.rewards for chunk in chunks])
        self.durations: Float32 = _flat([chunk.durations for chunk in chunks])
        self.terminated: NDArray[np.bool_] = _flat([chunk.terminated for chunk in chunks])
        self.truncated: NDArray[np.bool_] = _flat([chunk.truncated for chunk in chunks])
        self.last_rows: Float32 = np.concatenate([chunk.last_rows for chunk in chunks])
        done = self.columned(self.terminated | self.truncated, False)
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
            for step, ended in chunk.ended:
                if not chunk.terminated[step, ended.environment]:
                    where.append((first + ended.environment, step))
                    cut.append(ended.row)
            first += chunk.rows.shape[1]
        self.cut_at = np.array(where, np.int64).reshape(-1, 2)
        self.cut_rows: Float32 = np.array(cut, np.float32).reshape(-1, self.rows.shape[1])

    def __len__(self) -> int:
        return len(self.rows)

    def columned(self, flat: NDArray[Any], padding: Any = 0.0) -> NDArray[Any]:
        """From [N] to [columns, longest]."""
        padded = np.full((self.columns, self.longest), padding, flat.dtype)
        padded[self._valid] = flat
        return padded

    def flattened(self, columned: NDArray[Any]) -> NDArray[Any]:
        """From [columns, longest] to [N]."""
        return columned[self._valid]

    def split(self, values: Float32, log_probs: Float32) -> tuple[Float32, Float32, Float32, Float32]:
        """Values of rows, last rows and cut rows, in this order, taken apart; log-probabilities come second."""
        ends = (len(self), len(self) + self.columns)
        return values[: ends[0]], log_probs, values[ends[0] : ends[1]], values[ends[1] :]


def _flat(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate([part.swapaxes(0, 1).reshape(-1, *part.shape[2:]) for part in parts])
