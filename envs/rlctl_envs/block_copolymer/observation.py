"""What policies read of an annealing campaign: named quantities for rules, numbers of about -3 to 3 for networks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlctl_envs.block_copolymer.film import BINS, RECENT, Film, FinishedFilm, MaterialHistory, Measurement
from rlctl_envs.block_copolymer.material import T_MAX, T_MIN

RECENT_WIDTH = 4
FILM_OBSERVED = 4 + RECENT * RECENT_WIDTH + 7
OBSERVED = FILM_OBSERVED + 6 + 4 * BINS + 8 + 2 + 6
NOTHING: dict[str, Any] = {"q": 0.0, "amplitude": 0.0, "bands": (), "wavenumber": 0.0}
"""Measured of a film that was never measured."""


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


def proposed(answer: Mapping[str, Any], temperature: float | None) -> list[float]:
    """What a rule proposes, in five numbers, for networks that correct it; ``temperature``: of the film so far."""
    change = 0.0 if temperature is None else 8.0 * (answer["temperature"] - temperature)
    steps = math.log2(max(answer["steps"], 1) / 80.0)
    return [2.0 * (answer["temperature"] - 1.5), change, steps, answer["ranks"] - 1.0, float(answer["give_up"])]


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


def film_fields(film: Film, others: Sequence[Film], memory: MaterialHistory) -> dict[str, Any]:
    """The film that is decided on, those of the other chains, and all that the material has shown.

    Returns:
        ``fresh``, ``age_steps``, ``temperature`` (of the last measured segment; None), ``q``, ``amplitude``, ``bands``,
        ``wavenumber`` (the last measurement), ``highest_q``, ``recent`` (the last four measurements, oldest first, each
        with ``temperature`` and ``steps`` of its segment); ``others`` (the same of the other films, with ``subject``,
        without ``recent``) and ``others_q``, the highest Q among them; ``largest_amplitude``, ``films_good``,
        ``films_given_up``; ``bins`` (for each of eight equal ranges ``low`` to ``high`` of the temperature: ``count``
        of segments, and running means of ``q_gain`` in 80 steps, ``amplitude`` and ``q``); ``films_ended`` (in the
        order in which they ended: ``subject``, ``why``, one of good, given_up, diverged and failed, ``segments``
        started, and the fields of ``others``), and of these ``last_good`` and ``last_given_up`` (not good), or
        None.
    """
    ended = tuple(_ended(e) for e in memory.ended)
    width = (T_MAX - T_MIN) / BINS
    return {
        **_told(film),
        "recent": tuple(_measured(seen) for seen in film.recent),
        "others": tuple({"subject": f.subject, **_told(f)} for f in others),
        "others_q": max((f.recent[-1].q for f in others if f.recent), default=0.0),
        "largest_amplitude": memory.largest_amplitude,
        "films_good": memory.good,
        "films_given_up": memory.given_up,
        "bins": tuple(
            {
                "low": T_MIN + i * width,
                "high": T_MIN + (i + 1) * width,
                "count": int(b.count),
                "q_gain": b.gain,
                "amplitude": b.amplitude,
                "q": b.q,
            }
            for i, b in enumerate(memory.bins)
        ),
        "films_ended": ended,
        "last_good": next((e for e in reversed(ended) if e["why"] == "good"), None),
        "last_given_up": next((e for e in reversed(ended) if e["why"] != "good"), None),
    }


def _told(film: Film) -> dict[str, Any]:
    last = film.recent[-1] if film.recent else None
    measured = NOTHING if last is None else _values(last)
    return {
        "fresh": film.fresh,
        "age_steps": film.age,
        "temperature": film.temperature,
        "highest_q": film.highest_q,
        **measured,
    }


def _ended(ended: FinishedFilm) -> dict[str, Any]:
    film = ended.film
    return {"subject": film.subject, "why": str(ended.why), "segments": film.segments, **_told(film)}


def _measured(seen: Measurement) -> dict[str, Any]:
    return {"temperature": seen.temperature, "steps": seen.steps, **_values(seen)}


def _values(seen: Measurement) -> dict[str, Any]:
    return {"q": seen.q, "amplitude": seen.amplitude, "bands": seen.bands, "wavenumber": seen.wavenumber}
