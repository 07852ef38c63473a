"""The film over MPI ranks, or in one process: a slab-decomposed transform for the time step of ``field``.

In Fourier space a rank holds some kx with all ky, as [ky, kx]; in real space some lines y with all x. The transform
along y is local in the one, the transform along x in the other, and an Alltoallv takes the blocks across. What a rank
sends of the one and receives into it are whole rows, so only the other side is packed. Slabs may be uneven, and empty
ones are allowed. The caller that makes the communicator imports mpi4py.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from rlctl_envs.block_copolymer.field import Spectrum, advance, cube_rows
from rlctl_envs.block_copolymer.material import Material


def share(length: int, ranks: int) -> list[int]:
    """``ranks + 1`` bounds of slabs as even as can be.

    >>> share(10, 4)
    [0, 3, 6, 8, 10]
    """
    base, extra = divmod(length, ranks)
    return [rank * base + min(rank, extra) for rank in range(ranks + 1)]


class Slab:
    """One rank's part of a film on a ``grid`` x ``grid`` grid.

    Args:
        comm: an mpi4py communicator; all calls are collective over it. None: this process holds the whole film.
        grid: even.
    """

    def __init__(self, comm: Any | None, grid: int) -> None:
        self.comm, self.grid = comm, grid
        if comm is None:
            self.kx0, self.kx1 = 0, grid // 2 + 1
            return
        self._columns = share(grid // 2 + 1, comm.size)
        rows = share(grid, comm.size)
        self.kx0, self.kx1 = self._columns[comm.rank], self._columns[comm.rank + 1]
        lines = rows[comm.rank + 1] - rows[comm.rank]
        # Rank r exchanges with me: my columns of its lines, for my lines of its columns. In complex numbers:
        self._theirs = _blocks([(self.kx1 - self.kx0) * (b - a) for a, b in pairwise(rows)])
        self._mine = _blocks([lines * (b - a) for a, b in pairwise(self._columns)])
        self._lines = np.empty((lines, grid // 2 + 1), dtype=np.complex128)
        self._packed = np.empty(self._lines.size, dtype=np.complex128)
        # The blocks of ``_packed``, each beside its columns of ``_lines``.
        self._pairs = [
            (self._packed[at : at + size].reshape(lines, b - a), self._lines[:, a:b])
            for size, at, (a, b) in zip(*self._mine, pairwise(self._columns), strict=True)
        ]

    def scatter(self, c_hat: Spectrum) -> Spectrum:
        """This rank's part [G, kx1 - kx0] of a half spectrum that every rank holds."""
        return np.ascontiguousarray(c_hat[:, self.kx0 : self.kx1])

    def gather(self, part: Spectrum) -> Spectrum:
        """The half spectrum [G, G/2 + 1], on every rank."""
        if self.comm is None:
            return part
        whole = np.empty((self.grid // 2 + 1, self.grid), dtype=np.complex128)
        counts = _blocks([(b - a) * self.grid for a, b in pairwise(self._columns)])
        self.comm.Allgatherv(np.ascontiguousarray(part.T), [whole, counts, _complex()])
        return np.ascontiguousarray(whole.T)

    def advance(
        self,
        part: Spectrum,
        material: Material,
        temperature: float,
        steps: int,
        rng: np.random.Generator | None,
        noise: bool = True,
    ) -> Spectrum:
        """As :func:`field.advance`, for this rank's part."""
        return advance(part, material, temperature, steps, rng, noise, kx0=self.kx0, cube=self._cube)

    def _cube(self, columns: Spectrum) -> None:
        """From [y, kx] with this rank's kx to the same of the cube of the field."""
        if self.comm is None:
            cube_rows(columns)
            return
        kind = _complex()
        self.comm.Alltoallv([columns, self._theirs, kind], [self._packed, self._mine, kind])
        for block, lines in self._pairs:
            lines[:] = block
        if self._lines.size:
            cube_rows(self._lines)
        for block, lines in self._pairs:
            block[:] = lines
        self.comm.Alltoallv([self._packed, self._mine, kind], [columns, self._theirs, kind])


def _blocks(sizes: list[int]) -> tuple[list[int], list[int]]:
    """(sizes, where each begins) of blocks that follow one another."""
    return sizes, [sum(sizes[:i]) for i in range(len(sizes))]


def _complex() -> Any:
    from mpi4py import MPI

    return MPI.C_DOUBLE_COMPLEX
