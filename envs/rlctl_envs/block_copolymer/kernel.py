"""The twin's solver for many films at once on the CPU: Numba, 32 x 32, single precision.

Films lie side by side in the lanes of the processor's vectors: every array ends with an axis of ``LANES`` films, each
with a material and temperature of its own. A film's numbers do not depend on its lane or on its neighbours, so a film
alone gives bit for bit what it gives in a batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange

from rlctl_envs.block_copolymer.lanes import (
    GRID,
    HALF,
    LANES,
    column_backward,
    column_forward,
    rows_backward,
    rows_cubed,
    rows_forward,
)

_COLUMN = GRID * LANES
_SPECTRUM = HALF * _COLUMN
_NORM = np.float32(1.0 / (GRID * GRID))
_UNIT = np.float32(np.sqrt(12.0) / 65536.0)
_MIDDLE = np.float32(32767.5)


@njit(cache=True)
def _to_spectrum(field: Any, re: Any, im: Any) -> None:
    for j in range(0, GRID, 2):
        rows_forward(field, j * _COLUMN, re, im, j * LANES)
    for k in range(HALF):
        column_forward(re, im, re, im, k * _COLUMN)
    for i in range(re.size):
        re[i] *= _NORM
        im[i] *= _NORM


@njit(cache=True)
def _to_field(re: Any, im: Any, field: Any) -> None:
    for k in range(HALF):
        column_backward(re, im, re, im, k * _COLUMN)
    for j in range(0, GRID, 2):
        rows_backward(re, im, j * LANES, field, j * _COLUMN)


@njit(cache=True)
def _update(
    re: Any, im: Any, nr: Any, ni: Any, gain: Any, pull: Any, kick: Any, live: Any, words: Any, offset: Any
) -> None:
    """One time step of one kx; noise from a hash of (seed, step, mode).

    The finaliser of MurmurHash3 gives two uniform numbers of 16 bits. Uniform noise with the variance that is needed
    is enough for the distribution of the field: the simplified weak Euler scheme (Kloeden and Platen, *Numerical
    Solution of Stochastic Differential Equations*, 1992, section 14.1).
    """
    for i in range(re.size):
        h = np.uint32(words[i] + offset)
        h = np.uint32((h ^ (h >> np.uint32(16))) * np.uint32(0x85EBCA6B))  # Numba's products are 64 bits wide
        h = np.uint32((h ^ (h >> np.uint32(13))) * np.uint32(0xC2B2AE35))
        h = h ^ (h >> np.uint32(16))
        ur = (np.float32(np.int32(h & np.uint32(0xFFFF))) - _MIDDLE) * _UNIT
        ui = (np.float32(np.int32(h >> np.uint32(16))) - _MIDDLE) * _UNIT
        a = re[i] * gain[i] - nr[i] * pull[i] + kick[i] * ur
        b = im[i] * gain[i] - ni[i] * pull[i] + kick[i] * ui
        re[i] += live[i] * (a - re[i])
        im[i] += live[i] * (b - im[i])


@njit(cache=True)
def _advance_block(field: Any, gain: Any, pull: Any, kick: Any, steps: Any, seeds: Any) -> None:
    """Advance one block of films; all arrays flat, ``field`` is overwritten.

    A film with fewer steps than the others rests once it has done its own.
    """
    re = np.empty(_SPECTRUM, np.float32)
    im = np.empty(_SPECTRUM, np.float32)
    nr = np.empty(_SPECTRUM, np.float32)
    ni = np.empty(_SPECTRUM, np.float32)
    live = np.empty(_COLUMN, np.float32)
    words = np.empty(_COLUMN, np.uint32)
    for i in range(_COLUMN):  # what the hash of a mode begins with, but for step and kx
        words[i] = seeds[i % LANES] + np.uint32(i // LANES) * np.uint32(0x9E3779B9)
        live[i] = np.float32(1.0)
    _to_spectrum(field, re, im)
    most = steps.max()
    for step in range(most):
        for lane in range(LANES):
            if step == steps[lane]:
                live[lane::LANES] = np.float32(0.0)
        for k in range(HALF):
            column_backward(re, im, nr, ni, k * _COLUMN)
        for j in range(0, GRID, 2):
            rows_cubed(nr, ni, j * LANES, _NORM)
        for k in range(HALF):
            column_forward(nr, ni, nr, ni, k * _COLUMN)
            a, b = k * _COLUMN, (k + 1) * _COLUMN
            offset = np.uint32(np.uint32((step * HALF + k) * GRID) * np.uint32(0x9E3779B9))
            _update(re[a:b], im[a:b], nr[a:b], ni[a:b], gain[a:b], pull[a:b], kick[a:b], live, words, offset)
        # The modes with kx = 0 are one another's conjugates: make the noise so.
        half = np.float32(0.5)
        for m in range(1, GRID // 2):
            for q in range(LANES):
                p, n = m * LANES + q, (GRID - m) * LANES + q
                pr, pi = half * (re[p] + re[n]), half * (im[p] - im[n])
                re[p] = pr
                re[n] = pr
                im[p] = pi
                im[n] = -pi
    _to_field(re, im, field)


@njit(cache=True, parallel=True)
def advance(fields: Any, gain: Any, pull: Any, kick: Any, steps: Any, seeds: Any) -> None:
    """Advance blocks of films in place, the blocks in parallel.

    Args:
        fields: [block, y * x * lane] float32.
        gain, pull, kick: [block, kx * ky * lane] float32, the factors of the field, of its cube, and of the noise of
            each mode in a step. The kick has the standard deviation of the real and of the imaginary part; with
            kx = 0 a further factor sqrt(2), since these modes are averaged with their conjugates.
        steps: [block, lane] int64.
        seeds: [block, lane] uint32.
    """
    for block in prange(fields.shape[0]):
        _advance_block(fields[block], gain[block], pull[block], kick[block], steps[block], seeds[block])
