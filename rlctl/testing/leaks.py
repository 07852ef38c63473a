"""Finds hidden quantities of the twin in what a campaign shows to its policies before any task has run."""

from __future__ import annotations

from typing import Any

import numpy as np

from rlctl.core.campaign import Decision
from rlctl.core.campaign_factory import CampaignFactory
from rlctl.core.json_values import leaves
from rlctl.core.machine import Capacity

INSTANCES = 24
"""Chance orders so many alike, or in reverse, once in 10^23."""


def find_leak(factory: CampaignFactory, capacity: Capacity, instances: int = INSTANCES) -> str | None:
    """A number of the first decision that orders instances as a number of ``CampaignFactory.privileged`` does.

    Order alone counts, so that a hidden quantity is found under any scale.

    Returns:
        one line; None: there is none.
    """
    shown: list[dict[str, float]] = []
    hidden: list[Any] = []
    for instance in range(instances):
        campaign = factory.campaign(instance)
        campaign.begin(capacity)
        decision = campaign.decision()
        if decision is not None:
            shown.append(_numbers(decision))
            hidden.append(np.ravel(factory.privileged(instance)))
    if not shown or not hidden[0].size:
        return None
    secrets = {_order(column): i for i, column in enumerate(np.stack(hidden, axis=1))}
    for name in set.intersection(*(set(numbers) for numbers in shown)):
        column = np.array([numbers[name] for numbers in shown])
        for sign in (1.0, -1.0):
            order = _order(sign * column)
            if order is not None and order in secrets:
                return f"{name} of the first decision orders instances as privileged()[{secrets[order]}] does"
    return None


def _order(column: Any) -> tuple[int, ...] | None:
    """Of distinct numbers; None: some are equal."""
    return tuple(np.argsort(column).tolist()) if len(set(column.tolist())) == len(column) else None


def _numbers(decision: Decision) -> dict[str, float]:
    """The numbers that a decision shows, by what they are called."""
    shown = [*leaves(decision.fields, ("fields",)), *leaves(decision.observation, ("observation",))]
    return {
        path[0] + "".join(f"[{key!r}]" for key in path[1:]): float(value)
        for path, value in shown
        if isinstance(value, int | float)
    }
