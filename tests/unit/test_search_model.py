"""Models of a search follow from its evaluations alone, whenever and however often they are asked for."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from rlctl.surrogates.search_model import Evaluated, SearchModel

pytestmark = pytest.mark.quick

GROUPS = np.arange(2)


def evaluated(count: int, seed: int = 0) -> Evaluated:
    """Losses of a wavy function, durations that rise along the first input, and failures in a corner."""
    rng = np.random.default_rng(seed)
    x = rng.random((count, 2))
    failed = x.sum(1) > 1.6
    losses = np.where(failed, np.nan, np.sin(6.0 * x[:, 0]) + x[:, 1] ** 2)
    return Evaluated(x, losses, np.zeros((count, 0)), ~failed, x, np.exp(3.0 * x[:, 0]))


def part(data: Evaluated, count: int) -> Evaluated:
    """The first evaluations."""
    return Evaluated(
        data.x[:count],
        data.losses[:count],
        data.margins[:count],
        data.succeeded[:count],
        data.cost_x[:count],
        data.cost[:count],
    )


def test_what_is_learned_does_not_depend_on_when_it_was_asked_for() -> None:
    data = evaluated(40, seed=3)
    at_once, step_by_step = SearchModel(GROUPS, GROUPS), SearchModel(GROUPS, GROUPS)
    at_once.learn(data, lambda count: data if count == 40 else part(data, count))
    for count in range(1, 41):
        step_by_step.learn(part(data, count), partial(part, data))
    x = np.random.default_rng(4).random((20, 2))
    for a, b in zip(at_once.loss.predict(x), step_by_step.loss.predict(x), strict=True):
        assert a == pytest.approx(b, rel=1e-9)
    assert at_once.log_cost(x)[0] == pytest.approx(step_by_step.log_cost(x)[0], rel=1e-9)
    assert at_once.log_success(x) == pytest.approx(step_by_step.log_success(x), rel=1e-9)
