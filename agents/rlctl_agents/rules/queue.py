"""Rules for the moldable queue.

They answer with the named quantities ``pick`` and ``nodes``, or ``wait``, and read the fields ``free_nodes``,
``total_nodes``, ``nodes_choices`` and ``measured``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from rlctl.core.campaign import Action, Decision


class _QueueRule:
    """The largest task first, on as many nodes as ``width`` says; waits until they are free."""

    name = "rule"

    def width(self, fields: Mapping[str, Any]) -> int:
        """How many nodes a task gets."""
        raise TypeError(f"{type(self).__name__} does not say how many nodes")

    def act(self, decision: Decision) -> Action:
        """See ``rlctl.core.policy.Policy``."""
        nodes = self.width(decision.fields)
        if nodes > decision.fields["free_nodes"]:
            return {"wait": True}
        return {"pick": "largest", "nodes": nodes}

    def reset(self, seed: int) -> None:
        """Nothing to forget."""

    def state(self) -> Mapping[str, Any]:
        """Nothing to save."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Nothing to take up."""


class LargestFirst(_QueueRule):
    """Longest processing time first (Graham 1969), each task on the same number of nodes.

    Args:
        nodes: how many; the next smaller choice if the campaign does not offer it.
    """

    name = "largest_first"
    SPACE: ClassVar[Mapping[str, tuple[Any, ...]]] = {"nodes": (1, 32, "int")}

    def __init__(self, nodes: float = 16) -> None:
        self.nodes = round(nodes)

    def width(self, fields: Mapping[str, Any]) -> int:
        """The same for all."""
        return _at_most(fields, self.nodes)


class EqualEfficiency(_QueueRule):
    """The largest task first, on as many nodes as it uses with at least ``efficiency``, judged by the tasks so far.

    Args:
        efficiency: least share of the node-seconds that is not lost to scaling.
    """

    name = "equal_efficiency"
    SPACE: ClassVar[Mapping[str, tuple[Any, ...]]] = {"efficiency": (0.1, 0.95)}

    def __init__(self, efficiency: float = 0.5) -> None:
        self.efficiency = efficiency

    def width(self, fields: Mapping[str, Any]) -> int:
        """The widest choice that is efficient enough."""
        serial, kappa = fitted_scaling(fields["measured"])
        good = [n for n in fields["nodes_choices"] if loss(n, serial, kappa) * self.efficiency <= 1.0]
        return _at_most(fields, max(good, default=1))


def loss(nodes: int, serial: float, kappa: float) -> float:
    """Node-seconds on ``nodes`` nodes, over those on one: the inverse of the efficiency.

    >>> loss(1, 0.1, 0.2), loss(2, 0.0, 0.0), loss(2, 1.0, 0.0)
    (1.0, 1.0, 2.0)
    """
    return 1.0 + serial * (nodes - 1) + kappa * math.log2(nodes)


def fitted_scaling(measured: Sequence[tuple[float, int, float]]) -> tuple[float, float]:
    """Least squares for ``serial`` and ``kappa`` in ``seconds * nodes / estimate = loss(nodes, serial, kappa)``.

    Estimates are often wrong by a factor of two, so each task counts as one measurement of a relative error of 0.7
    beside what is expected beforehand (0.02 +- 0.02, and 0.25 +- 0.15).

    Args:
        measured: (estimate_s, nodes, seconds) of each task that has ended.

    Returns:
        Both at least 0.
    """
    expected = np.array([0.02, 0.25])
    rows = [[1.0 / 0.02, 0.0], [0.0, 1.0 / 0.15]]
    right = [expected[0] / 0.02, expected[1] / 0.15]
    for estimate_s, nodes, seconds in measured:
        scatter = 0.7 * loss(nodes, *expected)
        rows.append([(nodes - 1) / scatter, math.log2(nodes) / scatter])
        right.append((seconds * nodes / estimate_s - 1.0) / scatter)
    serial, kappa = np.linalg.lstsq(np.array(rows), np.array(right), rcond=None)[0]
    return max(float(serial), 0.0), max(float(kappa), 0.0)


def _at_most(fields: Mapping[str, Any], nodes: int) -> int:
    """The widest choice that is not above ``nodes`` and fits the machine."""
    limit = min(nodes, fields["total_nodes"])
    return max((n for n in fields["nodes_choices"] if n <= limit), default=1)
