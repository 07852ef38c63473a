"""Action masks of environments: read in one place, and from there on flat booleans."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from rlctl.bundle.actions import action_heads
from rlctl.core.campaign import Mask
from rlctl.core.errors import EnvironmentFault, one_line


def action_mask(env: gymnasium.Env[Any, Any], info: Mapping[str, Any], step: int) -> Mask | None:
    """The allowed choices of the open decision, flat over the heads; None: it gives none, or actions are numbers.

    They stand in ``info["action_mask"]`` (Gymnasium's convention), or a method ``action_masks()`` gives them
    (sb3-contrib's), behind any number of wrappers: booleans or 0 and 1, flat, or an array for each head.

    Args:
        info: of the ``reset`` or ``step`` that opened the decision.
        step: number of steps since the reset.

    Raises:
        EnvironmentFault: they are something else, they leave a head no choice, or actions are MultiBinary.
    """
    told = info.get("action_mask")
    if told is None and env.has_wrapper_attr("action_masks"):
        try:
            told = env.get_wrapper_attr("action_masks")()
        except Exception as error:  # whatever an environment may raise
            raise _wrong(env, step, f"is missing: action_masks() raised {type(error).__name__}: {error}") from error
    if told is None:
        return None
    space = env.action_space
    if isinstance(space, spaces.MultiBinary):
        twos = ", ".join(["2"] * int(np.prod(space.shape)))
        raise _wrong(env, step, f"is not obeyed for actions of {space}: declare MultiDiscrete([{twos}])")
    if not isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        return None
    heads = action_heads(space)
    try:
        parts = told if isinstance(told, list | tuple) else (told,)
        flat = np.concatenate([np.ravel(np.asarray(part)) for part in parts])
        allowed: Mask = flat == 1
        known = flat.dtype.kind in "biuf" and bool((allowed | (flat == 0)).all())
    except (TypeError, ValueError):
        known = False
    if not known:
        raise _wrong(env, step, f"is {one_line(repr(told), 80)}: give booleans, or 0 and 1")
    if flat.size != sum(heads):
        raise _wrong(env, step, f"has {flat.size} entries for the {sum(heads)} choices of {space}: give one for each")
    for number, part in enumerate(np.split(allowed, np.cumsum(heads)[:-1])):
        if not part.any():
            head = f" of head {number}" if len(heads) > 1 else ""
            raise _wrong(env, step, f"allows no choice{head}: allow one, or end the episode there")
    return allowed


def late(env: gymnasium.Env[Any, Any], step: int) -> EnvironmentFault:
    """The error where the first reset gave no mask and a later step gives one: rows have no room for it."""
    return _wrong(env, step, "is the first one: give one at the reset, too")


def _wrong(env: gymnasium.Env[Any, Any], step: int, problem: str) -> EnvironmentFault:
    name = env.spec.id if env.spec is not None else type(env.unwrapped).__name__
    return EnvironmentFault(f"environment {name}, step {step} of an episode: its action mask {problem}", "wrong_shape")
