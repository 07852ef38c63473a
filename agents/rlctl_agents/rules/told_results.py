"""What optimisers of other projects are told of a search."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any


def told(trials: Sequence[Any], before: float = math.inf) -> list[Any]:
    """Trials that had ended at a time, seconds since the campaign began, in the order in which they ended."""
    ended = [trial for trial in trials if trial.ended_s is not None and trial.ended_s <= before]
    return sorted(ended, key=lambda trial: (trial.ended_s, trial.number))


def loss_vector(assessment: Any) -> list[float]:
    """What is to be minimized: the losses, or how far a condition that is looked for is missed."""
    return list(assessment.losses) or [max((-margin for margin in assessment.margins), default=0.0)]
