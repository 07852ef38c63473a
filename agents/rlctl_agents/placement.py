"""Placement by a weighted sum, whose weights can be learned: which node a task goes to, of those with room for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from rlctl.config.validation import check_options
from rlctl.core.machine import NodeState
from rlctl.core.task import Resources


class Weights(BaseModel):
    """Weights of what a node looks like; the defaults pack tightly and keep GPUs for tasks that use them.

    Attributes:
        cores: of the share of its cores that are free.
        gpus: of the share of its GPUs that are free.
        spoiled: of GPUs on a node, where the task wants none.
        memory: of the share of its memory that is free.
        whole: of a node that nothing runs on yet.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    cores: float = Field(default=-1.0, ge=-100.0, le=100.0)
    gpus: float = Field(default=-1.0, ge=-100.0, le=100.0)
    spoiled: float = Field(default=-4.0, ge=-100.0, le=100.0)
    memory: float = Field(default=0.0, ge=-100.0, le=100.0)
    whole: float = Field(default=0.0, ge=-100.0, le=100.0)


class LinearPlacement:
    """A weighted sum of a few things; see ``rlctl.core.machine.Scoring``. ``benchmarks/ensemble.py`` learns weights.

    Args:
        options: see ``Weights``.

    Raises:
        ConfigError: there are no such weights.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.weights = check_options(Weights, options, "parameters")

    def score(self, need: Resources, node: NodeState) -> float:
        """The highest node takes the task."""
        w = self.weights
        cores, gpus = node.free_cores / max(1, node.cores), node.free_gpus / max(1, node.gpus)
        spoiled = float(node.gpus > 0 and need.gpus_per_rank == 0.0)
        whole = float(node.free_cores == node.cores)
        memory = 0.0 if node.free_memory_mb is None else min(node.free_memory_mb / 65536.0, 1.0)
        return w.cores * cores + w.gpus * gpus + w.spoiled * spoiled + w.whole * whole + w.memory * memory
