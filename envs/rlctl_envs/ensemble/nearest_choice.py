"""Which of the choices that are offered comes nearest to what a rule says."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rlctl_envs.ensemble.choices import Choice


def nearest_choice(choices: Sequence[Choice | None], wanted: Choice | None) -> NDArray[np.int64] | None:
    """The index of a choice, or of that of the same task with the nearest number of ranks; None: there is none."""
    if wanted is None:
        return None
    kind, task, shape = wanted.kind, wanted.task, wanted.shape
    same = [i for i, choice in enumerate(choices) if choice and choice.kind is kind and choice.task is task]

    def distance(i: int) -> tuple[bool, float]:
        offered = choices[i]
        assert offered is not None
        return offered.shape.gpu is not shape.gpu, abs(math.log2(offered.shape.ranks / shape.ranks))

    return np.array([min(same, key=distance)], np.int64) if same else None
