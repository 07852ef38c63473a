"""What the programs compute: each kernel does its share of the work in units, one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

KernelState = NDArray[np.float64] | None
"""What a kernel needs to go on later, on the first rank; None: nothing."""


class Alone:
    """A part that every rank computes for itself.

    Args:
        unit: does one unit, in about a millisecond or two.
        serial: part of the units that the first rank does while the others wait.
    """

    def __init__(self, unit: Callable[[], None], serial: float, comm: Any) -> None:
        self._unit, self._serial = unit, serial
        self._rank = int(comm.rank) if comm is not None else 0
        self._ranks = int(comm.size) if comm is not None else 1
        self._owed = 0.0

    def run(self, units: float) -> None:
        """The rank's share, and the first one's serial part."""
        self._owed += units * ((1.0 - self._serial) / self._ranks + (self._serial if self._rank == 0 else 0.0))
        while self._owed >= 1.0:
            self._unit()
            self._owed -= 1.0

    def gather(self) -> KernelState:
        """Nothing."""
        return None


def compute() -> Callable[[], None]:
    """Products of matrices that fit into a cache."""
    random = np.random.default_rng(0)
    a, b = random.random((192, 192)), random.random((192, 192))
    out = np.empty_like(a)

    def unit() -> None:
        np.matmul(a, b, out=out)

    return unit


def memory(megabytes: float) -> Callable[[], None]:
    """Streams over arrays that do not fit into any cache (the triad of McCalpin's STREAM)."""
    count = max(1 << 16, int(megabytes * 2**20 / 24))
    a, b, c = np.zeros(count), np.ones(count), np.ones(count)
    part, at = 1 << 16, 0

    def unit() -> None:
        nonlocal at
        piece = slice(at, at + part)
        np.multiply(c[piece], 3.0, out=a[piece])
        a[piece] += b[piece]
        at = at + part if at + 2 * part <= count else 0

    return unit


class Exchanging(Alone):
    """A five-point stencil on a slab of a square for each rank, with its neighbours' rows and a sum over all."""

    GRID = 512

    def __init__(self, serial: float, comm: Any) -> None:
        super().__init__(self._step, serial, comm)
        self._comm = comm
        self._field = np.random.default_rng(0).random((64, self.GRID))
        self._wide = np.zeros((66, self.GRID))

    def run(self, units: float) -> None:
        """The share, then the exchange: it costs the more, the more ranks there are."""
        super().run(units)
        if self._comm is not None:
            self._exchange()

    def _exchange(self) -> None:
        comm, field = self._comm, self._field
        up, down = (comm.rank - 1) % comm.size, (comm.rank + 1) % comm.size
        for _ in range(8):
            comm.Sendrecv(field[0].copy(), dest=up, recvbuf=self._wide[-1], source=down)
            comm.Sendrecv(field[-1].copy(), dest=down, recvbuf=self._wide[0], source=up)
            total = np.empty_like(field)
            comm.Allreduce(field, total)

    def _step(self) -> None:
        wide = self._wide
        wide[1:-1] = self._field
        self._field[:, 1:-1] = 0.25 * (wide[:-2, 1:-1] + wide[2:, 1:-1] + wide[1:-1, :-2] + wide[1:-1, 2:])


class FilmKernel:
    """A block-copolymer film; a unit is a time step. See ``rlctl_envs.block_copolymer``."""

    GRID = 128

    def __init__(self, seed: int, comm: Any, start: KernelState) -> None:
        from rlctl_envs.block_copolymer import field as film
        from rlctl_envs.block_copolymer.material import Material
        from rlctl_envs.block_copolymer.slab import Slab

        self._comm, self._slab = comm, Slab(comm, self.GRID)
        self._material = Material.draw(seed)
        self._noise, _, initial = film.generators(seed)
        c_hat = film.initial(self._material, self.GRID, initial) if start is None else film.to_spectrum(start)
        self._owed = 0.0
        self._part = self._slab.scatter(c_hat)

    def run(self, units: float) -> None:
        """So many time steps at the highest temperature, where no solution blows up."""
        self._owed += units
        steps = int(self._owed)
        if steps:
            self._owed -= steps
            self._part = self._slab.advance(self._part, self._material, 2.0, steps, self._noise)

    def gather(self) -> KernelState:
        """The field."""
        from rlctl_envs.block_copolymer.field import to_field

        c_hat = self._slab.gather(self._part)
        return to_field(c_hat) if self._comm is None or self._comm.rank == 0 else None


Kernel = Alone | FilmKernel
"""Work that can be stopped between two units: ``run`` does units of all ranks together, ``gather`` gives the state."""


def kernel(kind: str, serial: float, memory_mb: float, seed: int, comm: Any, start: KernelState) -> Kernel:
    """The kernel of a kind of tasks; it starts from what ``gather`` gave."""
    ranks = comm.size if comm is not None else 1
    if kind == "compute":
        return Alone(compute(), serial, comm)
    if kind == "memory":
        return Alone(memory(max(memory_mb, 64.0) / ranks), serial, comm)
    if kind == "communication":
        return Exchanging(serial, comm)
    if kind == "film":
        return FilmKernel(seed, comm, start)
    raise ValueError(f"{kind!r} is no kind of program")


KINDS = ("compute", "communication", "memory", "film")
"""What ``kernel`` knows; ``paced`` programs compute nothing."""


def units_per_second(kinds: Mapping[str, float] | tuple[str, ...] = KINDS, seconds: float = 0.2) -> dict[str, float]:
    """How many units of each kind one core does in a second of its time here, measured."""
    rates = {}
    for kind in kinds:
        if kind not in KINDS:
            continue
        work = kernel(kind, 0.0, 64.0, 0, None, None)
        work.run(2.0)
        done, began_s = 0, time.process_time()
        while time.process_time() - began_s < seconds:
            work.run(8.0)
            done += 8
        rates[kind] = done / (time.process_time() - began_s)
    return rates
