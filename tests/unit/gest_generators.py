"""A small generator of the gest-api standard, for tests."""

from __future__ import annotations

from typing import Any

import numpy as np
from gest_api import Generator
from gest_api.vocs import VOCS


class Shrinking(Generator):  # type: ignore[misc]
    """Draws points around the best one, in a neighbourhood that shrinks with each result; names what it suggests."""

    returns_id = True

    def __init__(self, vocs: VOCS, width: float) -> None:
        self._validate_vocs(vocs)
        self.vocs, self.width = vocs, width
        self.best: dict[str, Any] | None = None
        self.asked, self.told = 0, 0
        self.ids: set[int] = set()

    def _validate_vocs(self, vocs: VOCS) -> None:
        if len(vocs.objectives) != 1:
            raise ValueError("it has one objective")

    def suggest(self, num_points: int | None) -> list[dict[str, Any]]:
        assert num_points == 1
        self.asked += 1
        self.ids.add(self.asked)
        point: dict[str, Any] = {"_id": self.asked}
        for name, variable in self.vocs.variables.items():
            if hasattr(variable, "values"):
                point[name] = np.random.choice(sorted(variable.values))
                continue
            low, high = variable.domain
            centre = 0.5 * (low + high) if self.best is None else self.best[name]
            spread = self.width * 0.93**self.told
            point[name] = float(np.clip(centre + spread * np.random.standard_normal(), low, high))
        return [point]

    def ingest(self, results: list[dict[str, Any]]) -> None:
        for result in results:
            if "_id" in result and result["_id"] not in self.ids:
                raise ValueError("an unknown _id")
            self.told += 1
            allowed = all(result[name] > 0.0 for name in self.vocs.constraints)
            if allowed and (self.best is None or result["f0"] < self.best["f0"]):
                self.best = result
