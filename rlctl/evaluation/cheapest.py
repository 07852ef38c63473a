"""Finds the policy that costs least for a success on the twin, without playing all of them on all instances."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from rlctl.core.campaign_factory import CampaignFactory
from rlctl.core.machine import Capacity
from rlctl.core.policy import Policy
from rlctl.evaluation.rollout import TOGETHER, Rollout, roll_out
from rlctl.evaluation.statistics import ert

Name = TypeVar("Name", bound=Hashable)


def cheapest(
    factory: CampaignFactory,
    capacity: Capacity,
    players: Mapping[Name, Policy],
    instances: Sequence[int],
    fewest: int,
    stop: Callable[[], bool] = lambda: False,
) -> Name:
    """The name of the best player, by successive halving (Jamieson and Talwalkar 2016, arXiv:1502.07943).

    All play the first ``fewest`` instances; then the better half plays on, to twice as many, until all are played. Of
    equals, and where it is stopped before anything was played, the last one wins.

    Args:
        stop: asked before each part; once it answers True, the best so far is taken.
    """
    played: dict[Name, list[Rollout]] = {name: [] for name in players}
    left, done, count = [*players][::-1], 0, min(fewest, len(instances))

    def cost(name: Name) -> float:
        of = played[name]
        return ert(np.array([one.cost for one in of]), np.array([one.successes for one in of]))

    while len(left) > 1 and not stop():
        entries = [(name, instance) for name in left for instance in instances[done:count]]
        for at in range(0, len(entries), TOGETHER):
            part = entries[at : at + TOGETHER]
            results = roll_out(factory, capacity, [(players[name], instance) for name, instance in part])
            for (name, _), result in zip(part, results, strict=True):
                played[name].append(result)
        left.sort(key=cost)
        if count == len(instances):
            break
        left, done, count = left[: -(-len(left) // 2)], count, min(2 * count, len(instances))
    return left[0]
