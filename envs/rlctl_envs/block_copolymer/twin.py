"""The twin: what segments of films do, computed for many films at once instead of being run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlctl.core.simulation import DurationModel, Launch, Simulated, TaskModel
from rlctl.core.task import Failure
from rlctl_envs.block_copolymer import field as solver
from rlctl_envs.block_copolymer.kernel import advance
from rlctl_envs.block_copolymer.lanes import GRID, HALF, LANES
from rlctl_envs.block_copolymer.material import DT, STABILISER, Material
from rlctl_envs.block_copolymer.options import AnnealingOptions

Floats = NDArray[np.float32]

_KY, _KX = solver.wavenumbers(GRID)
_K2 = (_KX[:, None] ** 2 + _KY[None, :] ** 2).astype(np.float32)[:, :, None]  # [kx, ky, 1]
_KICKED = (np.arange(HALF)[:, None] < solver.KEPT) & (np.arange(GRID)[None, :] != solver.KEPT)
# Standard deviation of the real part of a mode of 32 x 32 unit normals; see ``kernel.advance`` for kx = 0.
_SPREAD = (_KICKED * np.where(np.arange(HALF) == 0, np.sqrt(2.0), 1.0)[:, None] / (np.sqrt(2.0) * GRID))[:, :, None]
_SPREAD = _SPREAD.astype(np.float32)

BLOW_UP = 10.0
"""A field beyond this is taken as diverged, as the program does."""


class FilmTwin:
    """Segments of one campaign's films: the hidden material, and the restart files as arrays in memory.

    Args:
        seed: of the instance.
        repetition: 0: chance is what the segments' own seeds make of it; otherwise it is drawn anew.
    """

    def __init__(self, options: AnnealingOptions, material: Material, seed: int, repetition: int = 0) -> None:
        self.options = options
        self.material = material
        program = options.program
        self.durations = DurationModel(
            program.start_up_s,
            program.scatter,
            program.straggler_probability,
            failure_probability=program.failure_probability,
        )
        self.repetition = repetition
        own = self.drawn(seed)
        self.rng, self.wavenumber_rng = (np.random.default_rng(np.random.SeedSequence([own, i])) for i in (1, 2))
        self.files: dict[str, Floats] = {}
        self.noise = True

    def outcomes(self, launches: Sequence[Launch]) -> list[Simulated]:
        """What these segments do."""
        return compute([(self, launch) for launch in launches])

    def write_files(self, folder: Path) -> None:
        """Write the restart files that there would be, for pictures."""
        for name, film in self.files.items():
            np.savez(folder / name, field=film)

    def drawn(self, seed: int) -> int:
        """The seed that takes the place of another in this repetition."""
        return solver.mixed(seed, self.repetition) if self.repetition else seed

    def read(self, parameters: Any) -> Floats:
        """The field that a segment starts from, [32, 32]."""
        name = parameters["restart_in"]
        if name is not None:
            return self.files[name]
        start = solver.generators(self.drawn(parameters["seed"]))[2]
        return solver.to_field(solver.initial(self.material, GRID, start)).astype(np.float32)


def factors(materials: Sequence[Material], temperatures: Sequence[float]) -> tuple[Floats, Floats, Floats]:
    """(gain, pull, kick), each [kx, ky, film], as ``kernel.advance`` takes them."""
    columns = np.array(
        [
            (DT * m.mobility(t), m.tau(t) + STABILISER, m.gamma, 2.0 * m.noise * t)
            for m, t in zip(materials, temperatures, strict=True)
        ],
        np.float32,
    ).T
    pace, depth, gamma, heat = columns
    pull = pace * _K2
    below = 1.0 + pull * (_K2 + np.float32(STABILISER)) + pace * gamma * (_K2 > 0.0)
    np.reciprocal(below, out=below)
    gain = (1.0 + pull * depth) * below
    kick = np.sqrt(heat * pull) * below * _SPREAD
    pull *= below
    return gain, pull, kick


def advance_films(
    fields: Floats,
    materials: Sequence[Material],
    temperatures: Sequence[float],
    steps: Sequence[int],
    seeds: Sequence[int],
    noise: bool = True,
) -> Floats:
    """The fields [film, 32, 32] of many materials, each after its own steps at its own temperature."""
    count = len(materials)
    # Films of like length share a block, so that few rest.
    order = np.argsort(np.asarray(steps), kind="stable")
    blocks = -(-count // LANES)
    padded = np.resize(order, blocks * LANES)
    gain, pull, kick = factors([materials[i] for i in padded.tolist()], [temperatures[i] for i in padded.tolist()])
    if not noise:
        kick[:] = 0.0

    def in_blocks(array: Any) -> Any:
        """[n, m, film] to [block, n * m * lane]."""
        n, m, _ = array.shape
        return np.ascontiguousarray(array.reshape(n, m, blocks, LANES).transpose(2, 0, 1, 3)).reshape(blocks, -1)

    work = in_blocks(fields[padded].transpose(1, 2, 0))
    length = np.asarray(steps, np.int64)[padded]
    length[count:] = 0
    words = (np.asarray(seeds, np.int64)[padded] & 0xFFFFFFFF).astype(np.uint32).reshape(blocks, LANES)
    advance(work, in_blocks(gain), in_blocks(pull), in_blocks(kick), length.reshape(blocks, LANES), words)
    films = work.reshape(blocks, GRID, GRID, LANES).transpose(0, 3, 1, 2).reshape(-1, GRID, GRID)[:count]
    out = np.empty_like(fields)
    out[order] = films
    return out


def compute(launches: Sequence[tuple[TaskModel, Launch]]) -> list[Simulated]:
    """What segments of many campaigns do, advanced together."""
    twins: list[FilmTwin] = [twin for twin, _ in launches if isinstance(twin, FilmTwin)]
    wanted = [launch.spec.parameters for _, launch in launches]
    before = np.stack([twin.read(p) for twin, p in zip(twins, wanted, strict=True)])
    materials = [twin.material for twin in twins]
    after = advance_films(
        before,
        materials,
        [p["temperature"] for p in wanted],
        [p["steps"] for p in wanted],
        [twin.drawn(p["seed"]) for twin, p in zip(twins, wanted, strict=True)],
        twins[0].noise,
    )
    options = twins[0].options
    spectrum = np.fft.rfft2(after, norm="forward")
    seen = solver.features(spectrum.real**2 + spectrum.imag**2)
    # Launch by launch, so that it does not matter which launches were computed together.
    normals = np.empty((len(twins), solver.READINGS))
    times = []
    for i, (twin, (_, launch)) in enumerate(zip(twins, launches, strict=True)):
        # The error of the wavenumber came last; from elsewhere, it left all else that happens in an instance as it was.
        normals[i] = (*twin.rng.standard_normal(solver.READINGS - 1), twin.wavenumber_rng.standard_normal())
        ranks = launch.spec.resources.ranks
        work = launch.spec.parameters["steps"] * twin.options.program.step_s[ranks]
        times.append(twin.durations.draw(ranks, work, twin.rng))
    contrast = np.array([m.contrast for m in materials])
    shown = solver.readings(seen, contrast, normals, options.q_good, options.amplitude_good)
    peak = np.abs(after).max(axis=(1, 2))
    columns = [shown[name].tolist() for name in ("q", "amplitude", "bands", "wavenumber", "good")]
    simulated = []
    for i, (twin, p) in enumerate(zip(twins, wanted, strict=True)):
        seconds, dies = times[i]
        if not peak[i] < BLOW_UP:
            simulated.append(Simulated(seconds, failure=Failure.DIVERGED, message="the field diverged"))
        elif dies:
            simulated.append(Simulated(seconds, failure=Failure.EXIT, message="the program died"))
        else:
            twin.files[p["restart_out"]] = after[i]
            q, amplitude, bands, wavenumber, good = (column[i] for column in columns)
            values = {"q": q, "amplitude": amplitude, "bands": bands, "wavenumber": wavenumber, "good": good}
            simulated.append(Simulated(seconds, values))
    return simulated
