"""Annealing with memory over the films of a material, of all that they have shown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from rlctl.core.campaign import Action, Decision
from rlctl_agents.rules.transition_posterior import TransitionPosterior

ALIGNED = 0.8
"""Order parameter at which a film counts as aligned."""
TYPICAL = 2500.0
"""Time steps that a good film takes of a typical material."""


@dataclass(slots=True)
class _Film:
    """A film in progress.

    Attributes:
        offset: of its temperatures, as a share of the transition.
        measured: how often it was.
        best_q: its highest Q.
        heated: its age when it was heated last.
        cycle_q, gained: its highest Q since, and its age then.
    """

    offset: float
    age: int = 0
    measured: int = 0
    best_q: float = 0.0
    heated: int = 0
    cycle_q: float = 0.0
    gained: int = 0


@dataclass(kw_only=True, eq=False)
class AnnealingPosterior:
    """Cycles of cooling and heating, in shares of the transition; gives up what is slow for its material.

    The transition is the mean of a posterior over all measurements of the material (``TransitionPosterior``). In each
    cycle a film is cooled from a peak, where defects heal, to a base, where stripes are sharpest and Q is highest, in a
    number of steps; once it is there and has not gained in Q for ``patience`` steps, a short segment heats it to the
    peak again (cyclic annealing, as in simulated annealing with restarts). Peak and base change with the highest Q
    of the film so far: the first numbers are for 0, the second ones for 0.8. All shares change with noise, wavenumber
    and transition of the material. Ages are measured by the steps that a good film of this material
    has taken so far, to the power ``adapt``.

    Args:
        start: temperature of the first film.
        fresh: share for a fresh film once the transition is known.
        first_steps: length of its segment.
        first_peak: share at which the first cycle begins, at Q = 0; it falls linearly.
        peak, aligned_peak: share at which a later cycle begins.
        base, aligned_base: share at which a cycle ends.
        cycle: steps from peak to base.
        bend: exponent of the way down in later cycles, which is steep at first above 1.
        patience: see above.
        noise, wave, level: change of the shares with the logarithms of noise and wavenumber and with the transition.
        spread: difference between the shares of successive films; what succeeds becomes the centre, and so much colder
            (hotter) does it become by a film that never aligned (that got stuck).
        first_q: a film whose first measurement is below is given up.
        grace, slope, enough: a film is given up if Q < min(``slope`` (age - ``grace``) / 1000, ``enough``); its Q is
            the highest of this cycle.
        most: and at this age whatever it shows.
        adapt: see above.
        long_q: segments are the longest below this Q, the shortest from ``short_q`` on, and else of 160 steps.
        short_q: see there.
    """

    name: ClassVar[str] = "annealing_posterior"
    SPACE: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "start": (1.15, 1.5),
        "fresh": (0.76, 0.94),
        "first_steps": (80.0, 320.0, "log"),
        "first_peak": (0.82, 0.98),
        "peak": (0.84, 1.02),
        "aligned_peak": (0.78, 0.92),
        "base": (0.74, 0.88),
        "aligned_base": (0.68, 0.84),
        "cycle": (400.0, 2000.0, "log"),
        "bend": (0.8, 8.0, "log"),
        "patience": (40.0, 800.0, "log"),
        "noise": (-0.1, 0.02),
        "wave": (-0.1, 0.6),
        "level": (-0.2, 0.1),
        "spread": (0.0, 0.08),
        "first_q": (0.0, 0.2),
        "grace": (150.0, 2000.0, "log"),
        "slope": (0.05, 1.0, "log"),
        "enough": (0.1, 0.8),
        "most": (2500.0, 16000.0, "log"),
        "adapt": (0.0, 1.2),
        "long_q": (0.1, 0.8),
        "short_q": (0.6, 0.9),
    }

    start: float = 1.32
    fresh: float = 0.86
    first_steps: float = 160.0
    first_peak: float = 0.895
    peak: float = 0.94
    aligned_peak: float = 0.85
    base: float = 0.82
    aligned_base: float = 0.765
    cycle: float = 850.0
    bend: float = 1.5
    patience: float = 120.0
    noise: float = -0.06
    wave: float = 0.36
    level: float = -0.02
    spread: float = 0.02
    first_q: float = 0.06
    grace: float = 600.0
    slope: float = 0.28
    enough: float = 0.78
    most: float = 8000.0
    adapt: float = 0.5
    long_q: float = 0.38
    short_q: float = 0.78

    def __post_init__(self) -> None:
        self.reset(0)

    def reset(self, seed: int) -> None:
        """A new material."""
        self._material = TransitionPosterior()
        self._films: dict[str, _Film] = {}
        self._ended = 0
        self._steps = 0.0
        self._centre = 0.0
        self._opened = 0

    def state(self) -> Mapping[str, Any]:
        """The measurements, the films in progress, and the counts."""
        return {
            "material": self._material.state(), "films": {name: asdict(film) for name, film in self._films.items()},
            "ended": self._ended, "steps": self._steps, "centre": self._centre, "opened": self._opened,
        }  # fmt: skip

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from what ``state`` gave."""
        self.reset(0)
        self._material.restore(state["material"])
        self._films = {name: _Film(**film) for name, film in state["films"].items()}
        self._ended, self._steps, self._centre = state["ended"], state["steps"], state["centre"]
        self._opened = state["opened"]

    def act(self, decision: Decision) -> Action:
        """See the class."""
        fields = decision.fields
        for ended in fields["films_ended"][self._ended :]:
            self._close(ended)
        film = self._films.get(decision.subject) or self._open(decision.subject, fields)
        if fields["age_steps"] > film.age:
            self._measured(film, fields)
        q = fields["q"]
        give_up = not fields["fresh"] and self._hopeless(film, q, self._scale(fields))
        cold = film.age - film.heated >= self.cycle and film.age - film.gained >= self.patience
        heat = cold and not give_up
        if heat:
            film.heated = film.gained = film.age
            film.cycle_q = 0.0
        low, high = fields["temperature_range"]
        return {
            "temperature": min(max(self._temperature(film, fields), low), high),
            "steps": int(fields["steps_choices"][0]) if heat else self._length(fields, q),
            "ranks": fields["ranks_choices"][0],
            "give_up": give_up,
        }

    def remembered(self, decision: Decision) -> Sequence[float]:
        """What is known of the material, and where the film stands in its cycle."""
        known, fields = self._material, decision.fields
        film = self._films[decision.subject]
        scale = self._scale(fields)
        return [
            math.log1p(len(known.seen)) / 2.0,
            (known.transition - 1.55) / 0.35,
            known.fluctuation,
            4.0 * known.pitch,
            math.log(scale),
            20.0 * film.offset,
            float(film.heated > 0),
            min((film.age - film.heated) / self.cycle, 3.0),
            min((film.age - film.gained) / self.patience, 9.0) / 3.0,
            math.log1p(film.age / (400.0 * scale)),
            film.cycle_q,
            film.best_q,
            8.0 * ((fields["temperature"] or known.transition) / known.transition - 0.85),
        ]

    def _temperature(self, film: _Film, fields: Mapping[str, Any]) -> float:
        known = self._material
        if not known.seen:
            return self.start
        bent = film.offset + self.noise * known.fluctuation + self.wave * known.pitch
        bent += self.level * (known.transition - 1.55)
        if fields["fresh"]:
            return (self.fresh + bent) * known.transition
        peak = self._between(film, self.peak if film.heated else self.first_peak, self.aligned_peak)
        base = self._between(film, self.base, self.aligned_base)
        left: float = max(1.0 - (film.age - film.heated) / self.cycle, 0.0) ** (self.bend if film.heated else 1.0)
        return (base + (peak - base) * left + bent) * known.transition

    def _between(self, film: _Film, low: float, aligned: float) -> float:
        return low + (aligned - low) * min(film.best_q / ALIGNED, 1.0)

    def _length(self, fields: Mapping[str, Any], q: float) -> int:
        choices = fields["steps_choices"]
        if not fields["fresh"] and q < self.long_q:
            return int(choices[-1])
        if q >= self.short_q:
            return int(choices[0])
        wanted = self.first_steps if fields["fresh"] else 160.0
        return int(min(choices, key=lambda steps: abs(math.log(steps / wanted))))

    def _scale(self, fields: Mapping[str, Any]) -> float:
        """Steps of a good film of this material over those of a typical one, to the power ``adapt``."""
        per_film = (self._steps + 2.0 * TYPICAL) / (fields["films_good"] + 2.0)
        return float((per_film / TYPICAL) ** self.adapt)

    def _hopeless(self, film: _Film, q: float, scale: float) -> bool:
        if film.measured == 1 and q < self.first_q:
            return True
        q = max(q, film.cycle_q)
        age = film.age / scale
        least = min(self.slope * (age - self.grace) / 1000.0, self.enough)
        return q < least or age > self.most

    def _open(self, subject: str, fields: Mapping[str, Any]) -> _Film:
        apart = self.spread / (1.0 + 2.0 * fields["films_good"])
        offset = self._centre + (0.5 if self._opened % 2 else -0.5) * apart
        film = self._films[subject] = _Film(offset)
        self._opened += 1
        return film

    def _measured(self, film: _Film, fields: Mapping[str, Any]) -> None:
        age, q = fields["age_steps"], fields["q"]
        self._material.learn(fields["temperature"], fields["amplitude"], age, fields["bands"], fields["wavenumber"])
        self._steps += age - film.age
        film.age, film.measured = age, film.measured + 1
        film.best_q = max(film.best_q, q)
        if q > film.cycle_q + 0.01:
            film.cycle_q, film.gained = q, age

    def _close(self, ended: Mapping[str, Any]) -> None:
        """Learn from how a film ended: where it succeeded, or which way it was wrong."""
        self._ended += 1
        film = self._films.pop(ended["subject"], None)
        if film is None:
            return
        if ended["why"] == "good":
            self._measured(film, ended)
            self._centre += 0.6 * (film.offset - self._centre)
        elif ended["why"] == "given_up" and film.measured > 1:
            change = -self.spread if ended["highest_q"] < 0.3 else 0.5 * self.spread
            self._centre = min(max(self._centre + change, -0.15), 0.1)
