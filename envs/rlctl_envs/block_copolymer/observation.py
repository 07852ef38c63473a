"""What networks read of an annealing campaign: numbers of about -3 to 3 in a fixed order."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rlctl_envs.block_copolymer.film import BINS, RECENT, Film, MaterialHistory

RECENT_WIDTH = 4
FILM_OBSERVED = 4 + RECENT * RECENT_WIDTH + 7
OBSERVED = FILM_OBSERVED + 6 + 4 * BINS + 8 + 2 + 6


def observe(
    film: Film, others: Sequence[Film], memory: MaterialHistory, needed: int, time_left: float, free: float
) -> NDArray[np.float32]:
    """The film, the other chains, past films of the material, the machine.

    Args:
        needed: good films that are still wanted.
        time_left: until the end of the allocation, in segments of 80 steps on one rank.
        free: share of the cores that no segment has.

    Returns:
        [OBSERVED] float32.
    """
    reference = math.log(max(memory.largest_amplitude, 1e-3))
    x = observe_film(film, memory.largest_amplitude)
    seen = [f for f in others if f.recent]
    if seen:
        best = max(seen, key=lambda f: f.recent[-1].q)
        x += [
            len(seen) / len(others),
            best.recent[-1].q,
            sum(f.recent[-1].q for f in seen) / len(seen),
            math.log1p(best.age / 400.0),
            2.0 * ((best.temperature or 1.5) - 1.5),
            math.log(max(best.recent[-1].amplitude, 1e-3)) - reference,
        ]
    else:
        x += [0.0] * 6
    for b in memory.bins:
        if b.count:
            x += [0.5 * math.log1p(b.count), 4.0 * b.gain, math.log(max(b.amplitude, 1e-3)) - reference, b.q]
        else:
            x += [0.0, 0.0, 0.0, 0.0]
    x += memory.last_good
    x += memory.last_given_up
    x += [math.log1p(memory.good), math.log1p(memory.given_up)]
    rate = memory.rate
    known = 1 in rate and len(rate) > 1
    x += [
        min(needed, 8) / 4.0,
        float(needed == 1),
        time_left / 160.0,
        float(known),
        rate[max(rate)] / rate[1] - 1.0 if known else 0.0,
        free,
    ]
    return np.clip(np.array(x, np.float32), -10.0, 10.0)


def observe_film(film: Film, largest_amplitude: float) -> list[float]:
    """[FILM_OBSERVED] of one film alone: age, temperature, its last measurements.

    Amplitudes are relative to ``largest_amplitude``, that of its material.
    """
    x = [
        float(film.fresh),
        0.0 if film.temperature is None else 2.0 * (film.temperature - 1.5),
        math.log1p(film.age / 400.0),
        film.highest_q,
    ]
    x += _recent(film, math.log(max(largest_amplitude, 1e-3)))
    if film.recent:
        last = film.recent[-1]
        x += [0.5 * b + 1.0 for b in last.bands]
        x += [4.0 * (last.wavenumber - 0.7), math.log(max(last.amplitude, 1e-3)) + 1.0]
    else:
        x += [0.0] * 7
    return x


def _recent(film: Film, reference: float) -> list[float]:
    x: list[float] = []
    for seen in reversed(film.recent):
        amplitude = math.log(max(seen.amplitude, 1e-3)) - reference
        x += [seen.q, amplitude, 2.0 * (seen.temperature - 1.5), math.log2(seen.steps / 80.0)]
    return x + [0.0] * (RECENT * RECENT_WIDTH - len(x))
