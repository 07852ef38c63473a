"""A rule that every campaign of films understands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlctl.core.campaign import Action, Decision


class Hold:
    """One temperature, no give-up."""

    name = "hold"

    def act(self, decision: Decision) -> Action:
        """Hold 1.3."""
        return {"temperature": 1.3, "steps": 160, "ranks": 1, "give_up": False}

    def reset(self, seed: int) -> None:
        """Nothing."""

    def state(self) -> Mapping[str, Any]:
        """Nothing."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Nothing."""
