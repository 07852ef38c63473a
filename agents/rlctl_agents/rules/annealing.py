"""What every annealing rule shares: when to give a film up, how long and how wide to run its segments.

The rules answer with the named quantities ``temperature``, ``steps``, ``ranks``, ``give_up``, and read the fields
``fresh``, ``temperature``, ``age_steps``, ``q``, ``amplitude``, ``largest_amplitude``, ``others_q``, ``films_needed``,
``speed_up``, ``steps_choices``, ``ranks_choices``, ``temperature_range``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from rlctl.core.campaign import Action, Decision

SHARED: Mapping[str, tuple[Any, ...]] = {
    "give_up_steps": (400.0, 12000.0, "log"),
    "steps": (80.0, 320.0, "log"),
    "wide_q": (0.2, 1.2),
}


class AnnealingRule:
    """A rule without memory: the temperature is a function of what is known of the film.

    Args:
        give_up_steps: a film that is not good after so many time steps is given up.
        steps: length of a segment, in time steps; the nearest that the campaign offers is taken.
        wide_q: when one last film is needed, the film that leads and has at least this order parameter gets as many
            ranks as there are, provided that they were not measured to be slower; above 1: never.
    """

    name = "rule"
    SPACE: ClassVar[Mapping[str, tuple[Any, ...]]] = SHARED

    def __init__(self, *, give_up_steps: float = 4000.0, steps: float = 160.0, wide_q: float = 1.2) -> None:
        self.give_up_steps = give_up_steps
        self.steps = round(steps)
        self.wide_q = wide_q

    def temperature(self, fields: Mapping[str, Any], steps: int) -> float:
        """Temperature of the film's next segment, which will be of ``steps`` time steps."""
        raise TypeError(f"{type(self).__name__} does not say which temperature")

    def act(self, decision: Decision) -> Action:
        """See ``rlctl.core.policy.Policy``."""
        fields = decision.fields
        low, high = fields["temperature_range"]
        leads = fields["films_needed"] == 1 and fields["q"] >= max(self.wide_q, fields["others_q"])
        speed_up = fields["speed_up"]
        wide = leads and (speed_up == 0.0 or speed_up > 1.0)
        steps = min(fields["steps_choices"], key=lambda choice: abs(choice - self.steps))
        return {
            "temperature": min(max(self.temperature(fields, steps), low), high),
            "steps": steps,
            "ranks": fields["ranks_choices"][-1] if wide else fields["ranks_choices"][0],
            "give_up": not fields["fresh"] and fields["age_steps"] >= self.give_up_steps,
        }

    def reset(self, seed: int) -> None:
        """Nothing to forget."""

    def state(self) -> Mapping[str, Any]:
        """Nothing to save."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Nothing to take up."""
