"""The film's solver: time stepping in Fourier space, and what a measurement sees of the film.

A field on a grid of G x G points is held as ``c_hat``, its ``rfft2`` with norm "forward": complex128 [G, G/2 + 1],
first axis ky, second kx >= 0, wavenumbers 2 pi n / BOX. In this norm a mode has the same value on every grid.
The columns kx = 0 and kx = G/2 hold each mode and its conjugate; see ``keep_real``.
NumPy's transforms, not SciPy's: writing into arrays of ours they are as fast, and a program starts 0.2 s sooner.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlctl_envs.block_copolymer.material import BOX, COARSE, DT, STABILISER, Material

Array = NDArray[np.float64]
Spectrum = NDArray[np.complex128]

Q_GOOD = 0.8
A_GOOD = 0.35
BAND_EDGES = (0.2, 0.45, 0.6, 0.75, 0.95, 1.3)
READINGS = 8
"""Numbers that a measurement shows, each with an error of its own."""
KEPT = COARSE // 2
"""Modes with |nx|, |ny| < KEPT are kept of the coarse grid; its Nyquist modes, which have no sign, are not."""


def wavenumbers(grid: int) -> tuple[Array, Array]:
    """(ky [G], kx [G/2 + 1]) of a half spectrum."""
    unit = 2.0 * np.pi / BOX
    return unit * np.fft.fftfreq(grid, 1.0 / grid).astype(np.float64), unit * np.arange(grid // 2 + 1, dtype=np.float64)


def to_spectrum(field: Array) -> Spectrum:
    """[G, G] field to its half spectrum."""
    return np.asarray(np.fft.rfft2(field, norm="forward"), dtype=np.complex128)


def to_field(c_hat: Spectrum) -> Array:
    """Half spectrum to the [G, G] field."""
    grid = c_hat.shape[0]
    return np.asarray(np.fft.irfft2(c_hat, s=(grid, grid), norm="forward"), dtype=np.float64)


def mirrored(c_hat: Spectrum, kx0: int = 0) -> Spectrum:
    """The columns kx = 0 and kx = G/2, as far as they are among the columns from ``kx0`` on, [G, 0 to 2]: a view."""
    half = c_hat.shape[0] // 2
    return c_hat[:, -kx0 % half :: half]


def keep_real(columns: Spectrum) -> None:
    """Take from the columns ``mirrored`` what belongs to no real field: make c(-ky) exactly the conjugate of c(ky).

    The way to the field drops that part, so that the cube does not answer it, while the linear terms let it grow.
    Once for every time step: in a deep well rounding errors grow by half in each.
    """
    after = columns[1:]
    after += after[::-1].conj()
    after *= 0.5
    columns[0].imag = 0.0


def embed(c_hat: Spectrum, grid: int) -> Spectrum:
    """The same field on another grid, of which only the modes |n| < ``KEPT`` are taken."""
    out = np.zeros((grid, grid // 2 + 1), dtype=np.complex128)
    out[:KEPT, :KEPT] = c_hat[:KEPT, :KEPT]
    out[1 - KEPT :, :KEPT] = c_hat[1 - KEPT :, :KEPT]
    return out


def white(rng: np.random.Generator) -> Spectrum:
    """Half spectrum of independent unit normals on the coarse grid, the Nyquist modes still in."""
    return to_spectrum(rng.standard_normal((COARSE, COARSE)))


def initial(material: Material, grid: int, rng: np.random.Generator) -> Spectrum:
    """A fresh film: uniform but for noise of 0.02, the same on every grid."""
    c_hat = embed(0.02 * white(rng), grid)
    c_hat[0, 0] = material.mean
    return c_hat


def factors(ky: Array, kx: Array, material: Material, temperature: float, dt: float = DT) -> tuple[Array, Array, Array]:
    """(gain, pull, kick): in one step c' = gain c - pull FFT(c^3) + kick w, each factor [ky, kx].

    The linear terms are taken implicitly, the double well explicitly, with the stabiliser S lap(c' - c) (Eyre 1998).
    The mode k = 0 stays: gain 1, pull 0, kick 0.
    """
    k2 = ky[:, None] ** 2 + kx[None, :] ** 2
    pace = dt * material.mobility(temperature)
    below = 1.0 + pace * (k2 * (k2 + STABILISER) + material.gamma * (k2 > 0.0))
    gain = (1.0 + pace * (material.tau(temperature) + STABILISER) * k2) / below
    pull = pace * k2 / below
    kick = np.sqrt(2.0 * material.noise * temperature * pace * k2) / below
    return gain, pull, kick


def advance(
    c_hat: Spectrum,
    material: Material,
    temperature: float,
    steps: int,
    rng: np.random.Generator | None,
    noise: bool = True,
    dt: float = DT,
    kx0: int = 0,
    cube: Callable[[Spectrum], None] | None = None,
) -> Spectrum:
    """The field after ``steps`` time steps at one temperature; ``c_hat`` is left as it was.

    Args:
        c_hat: [G, columns]: a half spectrum, or the columns of it that this MPI rank holds (see ``slab``).
        rng: draws 32 x 32 normals in each step; not used without noise. Ranks have it equally seeded: each draws the
            whole noise and keeps that of its modes, so that the film does not depend on the number of ranks.
        kx0: number of the first column.
        cube: replaces [y, kx] of the field by that of its cube; None: ``c_hat`` has all columns.
    """
    columns = c_hat.shape[1]
    cube = cube or cube_rows
    ky, kx = wavenumbers(c_hat.shape[0])
    gain, pull, kick = factors(ky, kx[kx0 : kx0 + columns], material, temperature, dt)
    # Real factors, one for each real and imaginary part: NumPy would turn them into complex numbers in each step.
    gain, pull = np.repeat(gain, 2, axis=1), np.repeat(pull, 2, axis=1)
    noisy = max(0, min(KEPT - kx0, columns))
    low, high = kick[:KEPT, :noisy].copy(), kick[1 - KEPT :, :noisy].copy()
    c_hat = c_hat.copy()
    push = np.empty_like(c_hat)
    parts, push_parts = c_hat.view(np.float64), push.view(np.float64)
    edges = mirrored(c_hat, kx0)
    for _ in range(steps):
        if columns:
            np.fft.ifft(c_hat, axis=0, norm="forward", out=push)
        cube(push)
        if columns:
            np.fft.fft(push, axis=0, norm="forward", out=push)
        push_parts *= pull
        parts *= gain
        parts -= push_parts
        if noise:
            assert rng is not None
            w = white(rng)[:, kx0 : kx0 + noisy]
            c_hat[:KEPT, :noisy] += low * w[:KEPT]
            c_hat[1 - KEPT :, :noisy] += high * w[1 - KEPT :]
        keep_real(edges)
    return c_hat


def cube_rows(rows: Spectrum) -> None:
    """Replace [rows, G/2 + 1] half spectra of lines of the field by those of the lines' cubes.

    A few lines at a time, so that they stay in the processor's cache.
    """
    grid = 2 * (rows.shape[1] - 1)
    chunk = max(1, 16384 // grid)
    line = np.empty((chunk, grid))
    cube = np.empty((chunk, grid))
    for start in range(0, rows.shape[0], chunk):
        part = rows[start : start + chunk]
        a, b = line[: len(part)], cube[: len(part)]
        np.fft.irfft(part, n=grid, axis=1, norm="forward", out=a)
        np.multiply(a, a, out=b)
        b *= a
        np.fft.rfft(b, axis=1, norm="forward", out=part)


def power(c_hat: Spectrum) -> Array:
    """[32, 17] |c_k|^2 of the modes that are measured, in the layout of the coarse half spectrum; the others 0."""
    small = embed(c_hat, COARSE)
    return np.asarray(small.real**2 + small.imag**2)


@lru_cache(maxsize=1)
def _sums() -> Array:
    """[32 * 17, 9] weights of the modes in: all, cos 2 theta, sin 2 theta, |k|, and the five bands."""
    ky, kx = wavenumbers(COARSE)
    y, x = np.meshgrid(ky, kx, indexing="ij")
    k, theta = np.hypot(x, y), np.arctan2(y, x)
    weight = np.where(x > 0.0, 2.0, 1.0)
    weight[KEPT, :] = weight[:, KEPT] = weight[0, 0] = 0.0
    bands = [(k >= low) & (k < high) for low, high in pairwise(BAND_EDGES)]
    columns = [np.ones_like(k), np.cos(2.0 * theta), np.sin(2.0 * theta), k, *bands]
    return np.stack([(weight * column).ravel() for column in columns], axis=1)


def features(power: NDArray[Any]) -> Array:
    """Features of films, from the power of their modes, without noise and contrast.

    Args:
        power: [..., 32, 17] |c_k|^2 of coarse half spectra, ky first; k = 0 and the Nyquist modes do not count.

    Returns:
        [..., 8]: order parameter Q = |sum |c_k|^2 exp(2 i theta_k)| / sum |c_k|^2, rms of c - mean, mean |k|
        weighted with the power, and the power in the five annuli between ``BAND_EDGES``.
    """
    sums = power.reshape(*power.shape[:-2], -1).astype(np.float64, copy=False) @ _sums()
    total = sums[..., 0]
    safe = np.maximum(total, 1e-30)
    q = np.hypot(sums[..., 1], sums[..., 2]) / safe
    return np.concatenate([np.stack([q, np.sqrt(total), sums[..., 3] / safe], axis=-1), sums[..., 4:]], axis=-1)


def readings(
    seen: Array, contrast: Any, normals: Array, q_good: float = Q_GOOD, a_good: float = A_GOOD
) -> dict[str, Any]:
    """Measurements of many films, with the errors of the instrument.

    Args:
        seen: [..., 8] of :func:`features`.
        contrast: [...] gains.
        normals: [..., READINGS] unit normals: q, amplitude, five bands, wavenumber. The errors that they make are of
            0.01 in Q, 3 % in amplitude, 0.02 in the logarithm (base 10) of a band, and 1 % in the wavenumber.

    Returns:
        arrays [...] ("bands": [..., 5]): "q", "amplitude", "bands", "wavenumber" and "good", which is the truth about
        the film, free of noise and contrast.
    """
    gain = np.asarray(contrast, dtype=np.float64)
    return {
        "q": np.clip(seen[..., 0] + 0.01 * normals[..., 0], 0.0, 1.0),
        "amplitude": gain * seen[..., 1] * (1.0 + 0.03 * normals[..., 1]),
        "bands": np.log10(gain[..., None] ** 2 * seen[..., 3:] + 1e-6) + 0.02 * normals[..., 2:7],
        "wavenumber": seen[..., 2] * (1.0 + 0.01 * normals[..., 7]),
        "good": (seen[..., 0] >= q_good) & (seen[..., 1] >= a_good),
    }


def measure(
    c_hat: Spectrum, material: Material, rng: np.random.Generator, q_good: float = Q_GOOD, a_good: float = A_GOOD
) -> dict[str, Any]:
    """Measure one film; JSON values. See :func:`readings`."""
    seen = readings(features(power(c_hat)), material.contrast, rng.normal(size=READINGS), q_good, a_good)
    return {name: value.tolist() for name, value in seen.items()}


def generators(seed: int) -> tuple[np.random.Generator, np.random.Generator, np.random.Generator]:
    """The generators of one segment: (thermal noise, measurement, initial field)."""
    noise, measurement, start = (np.random.default_rng(np.random.SeedSequence([seed, i])) for i in range(3))
    return noise, measurement, start


def structure_factor(c_hat: Spectrum) -> list[float]:
    """Mean |c_k|^2 of the modes with |n| nearest to 1, 2, ..., 15."""
    ky, kx = wavenumbers(COARSE)
    n = np.rint(np.hypot(ky[:, None], kx[None, :]) * BOX / (2.0 * np.pi)).astype(np.int64)
    weight = np.broadcast_to(np.where(kx > 0.0, 2.0, 1.0), n.shape)
    sums = np.bincount(n.ravel(), (weight * power(c_hat)).ravel())
    counts = np.bincount(n.ravel(), weight.ravel())
    return [float(value) for value in (sums / counts)[1:KEPT]]


def mixed(*numbers: int) -> int:
    """A 31-bit seed from whole numbers, by the finaliser of SplitMix64 (Steele, Lea, Flood 2014).

    ``SeedSequence`` would take longer than the whole decision; the solvers seed their generators from this number
    with a ``SeedSequence`` of their own.

    >>> mixed(1, 2) != mixed(2, 1)
    True
    """
    word = 0
    for number in numbers:
        word = (word + number + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        word ^= word >> 31
    return word & 0x7FFFFFFF
