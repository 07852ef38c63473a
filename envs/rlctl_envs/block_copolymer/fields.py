"""What rules read of an annealing campaign: by name and as measured, all that ``observation`` shows to networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rlctl_envs.block_copolymer.film import BINS, Film, FinishedFilm, MaterialHistory, Measurement
from rlctl_envs.block_copolymer.material import T_MAX, T_MIN

NOTHING: dict[str, Any] = {"q": 0.0, "amplitude": 0.0, "bands": (), "wavenumber": 0.0}
"""Measured of a film that was never measured."""


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
