"""The action spaces that each algorithm learns, for ``rlctl check``, trainings and the documentation."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from rlctl.core.errors import ConfigError

LEARNED: dict[str, tuple[type[spaces.Space[Any]], ...]] = {
    "ppo": (spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary, spaces.Box),
    "maskable_ppo": (spaces.Discrete, spaces.MultiDiscrete),
    "recurrent_ppo": (spaces.Discrete, spaces.MultiDiscrete, spaces.Box),
    "sac": (spaces.Box,),
    "td3": (spaces.Box,),
    "dqn": (spaces.Discrete,),
}
"""Kinds of space, by algorithm."""
SCALED = ("sac", "td3")
"""Algorithms that scale actions to the bounds, which therefore have to lie apart."""


def problem(algorithm: str, space: spaces.Space[Any]) -> str | None:
    """Why an algorithm does not learn actions of a space; None: it does."""
    if not isinstance(space, LEARNED[algorithm]):
        return f"it learns {' and '.join(kind.__name__ for kind in LEARNED[algorithm])}"
    if isinstance(space, spaces.MultiDiscrete) and (space.nvec.ndim != 1 or np.any(space.start)):
        return "a MultiDiscrete has to be one row of choices, each from 0"
    if isinstance(space, spaces.MultiBinary) and len(space.shape) != 1:
        return "a MultiBinary has to be one row"
    if not isinstance(space, spaces.Box):
        return None
    if algorithm == "td3" and not space.shape:
        return "a Box has to have a dimension, for the noise of its exploration"
    low, high = np.asarray(space.low, np.float64), np.asarray(space.high, np.float64)
    if space.dtype not in (np.float32, np.float64):
        return "a Box has to be of float32 or float64"
    if not np.isfinite([low, high]).all():
        return "a Box has to have finite bounds"
    with np.errstate(over="ignore"):
        width = (high - low).astype(np.float32)
    if algorithm in SCALED and not ((width > 0.0) & np.isfinite(width)).all():
        return "the bounds of a Box have to lie apart, and not too far for float32"
    return None


def require_learned(algorithm: str, space: spaces.Space[Any]) -> None:
    """Raise ConfigError if an algorithm does not learn such actions; the message says which do, or what to do."""
    why = problem(algorithm, space)
    if why is None:
        return
    others = [name for name in LEARNED if problem(name, space) is None]
    advice = f"use {' or '.join(others)}" if others else "nor does any other: wrap the environment and register it"
    raise ConfigError(
        f"{algorithm} does not learn actions of {shown_space(space)} ({why}): {advice}", ("train", "algorithm")
    )


def shown_space(space: spaces.Space[Any]) -> str:
    """A space in a message."""
    text = " ".join(str(space).split())
    return text if len(text) < 100 else text[:97] + "..."
