"""Annealing with memory over the films of a material, of all that they have shown."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from rlctl.core.campaign import Action, Decision
from rlctl_agents.rules.transition_posterior import TransitionPosterior

ALIGNED = 0.8
"""Order parameter at which the temperature is ``cold``."""
TYPICAL = 2500.0
"""Time steps that a good film takes of a typical material."""
RELAXATION = 500.0
"""Time steps in which a film forgets that it was heated, to 1 / e."""


@dataclass(slots=True)
class _Film:
    """A film in progress: its offset, and when it gained and was heated last."""

    offset: float
    heat: float
    age: int = 0
    measured: int = 0
    best_q: float = 0.0
    gained: float = 0.0
    heated: float = 0.0


@dataclass(kw_only=True, eq=False)
class AnnealingPosterior:
    """Cools from ``hot`` to ``cold`` as Q rises, in shares of the transition; gives up what is slow for its material.

    The transition is the mean of a posterior over all measurements of the material (``TransitionPosterior``). The share
    of it that a film is held at falls with Q from ``hot`` over ``warm``, at ``warm_q``, to ``cold``, since order is
    found near the transition and kept below it; with noise, with the transition and with the wavelength, as linear
    functions; and with age. A film that has not gained in Q for ``patience`` steps is heated. Ages are measured by the
    steps that a good film of this material has taken so far, to the power ``adapt``.

    Args:
        start: temperature of the first film.
        fresh: share for a fresh film once the transition is known.
        hot, warm, cold: shares at Q of 0, ``warm_q`` and 0.8.
        warm_q: see there.
        young: further share for a young film, falling to 1 / e in 500 steps.
        kick: the same for a film that stagnates.
        patience: steps without gain after which it does.
        age: change of the share with log (1 + age / 1000).
        noise, wave, level: change of the share with the logarithm of the noise and of the wavenumber, and with the
            transition.
        spread: difference between the shares of successive films; what succeeds becomes the centre, and so much colder
            (hotter) does it become by a film that never aligned (that got stuck).
        first_q: a film whose first measurement is below is given up.
        grace, slope, enough: a film is given up if Q < min(``slope`` (age - ``grace``) / 1000, ``enough``).
        most: and at this age whatever it shows.
        adapt: see above.
        first_steps: length of a film's first segment.
        long_q: segments are the longest below this Q, the shortest from ``short_q`` on, and else of 160 steps.
        short_q: see there.
    """

    name: ClassVar[str] = "annealing_posterior"
    SPACE: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "start": (1.25, 1.55),
        "fresh": (0.78, 0.94),
        "hot": (0.84, 0.98),
        "warm": (0.79, 0.91),
        "cold": (0.74, 0.9),
        "warm_q": (0.15, 0.6),
        "young": (-0.04, 0.1),
        "kick": (-0.03, 0.12),
        "patience": (300.0, 4000.0, "log"),
        "age": (-0.06, 0.03),
        "noise": (-0.08, 0.02),
        "wave": (-0.2, 0.4),
        "level": (-0.2, 0.1),
        "spread": (0.0, 0.08),
        "first_q": (0.0, 0.2),
        "grace": (150.0, 2000.0, "log"),
        "slope": (0.05, 1.0, "log"),
        "enough": (0.1, 0.8),
        "most": (2500.0, 16000.0, "log"),
        "adapt": (0.0, 1.0),
        "first_steps": (80.0, 320.0, "log"),
        "long_q": (0.1, 0.8),
        "short_q": (0.6, 0.9),
    }

    start: float = 1.4
    fresh: float = 0.86
    hot: float = 0.9
    warm: float = 0.845
    cold: float = 0.81
    warm_q: float = 0.35
    young: float = 0.02
    kick: float = 0.04
    patience: float = 1000.0
    age: float = -0.01
    noise: float = -0.03
    wave: float = 0.1
    level: float = -0.05
    spread: float = 0.03
    first_q: float = 0.08
    grace: float = 500.0
    slope: float = 0.3
    enough: float = 0.7
    most: float = 7000.0
    adapt: float = 0.5
    first_steps: float = 120.0
    long_q: float = 0.4
    short_q: float = 0.77

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
        scale = self._scale(fields)
        give_up = not fields["fresh"] and self._hopeless(film, fields["q"], scale)
        q, age = fields["q"], film.age
        if not give_up and age - max(film.gained, film.heated) > self.patience * scale:
            film.heat, film.heated = self.kick, float(age)
        low, high = fields["temperature_range"]
        return {
            "temperature": min(max(self._temperature(film, fields), low), high),
            "steps": self._length(fields, q),
            "ranks": fields["ranks_choices"][0],
            "give_up": give_up,
        }

    def _temperature(self, film: _Film, fields: Mapping[str, Any]) -> float:
        known = self._material
        if not known.seen:
            return self.start
        bent = film.offset + self.noise * known.fluctuation + self.wave * known.pitch
        bent += self.level * (known.transition - 1.55)
        if fields["fresh"]:
            return (self.fresh + bent) * known.transition
        q, age = fields["q"], film.age
        if q < self.warm_q:
            share = self.hot + (self.warm - self.hot) * q / self.warm_q
        else:
            share = self.warm + (self.cold - self.warm) * (q - self.warm_q) / (ALIGNED - self.warm_q)
        share += self.age * math.log1p(age / 1000.0) + film.heat * math.exp((film.heated - age) / RELAXATION)
        return float(share + bent) * known.transition

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
        age = film.age / scale
        least = min(self.slope * (age - self.grace) / 1000.0, self.enough)
        return q < least or age > self.most

    def _open(self, subject: str, fields: Mapping[str, Any]) -> _Film:
        apart = self.spread / (1.0 + 2.0 * fields["films_good"])
        offset = self._centre + (0.5 if self._opened % 2 else -0.5) * apart
        film = self._films[subject] = _Film(offset, self.young)
        self._opened += 1
        return film

    def _measured(self, film: _Film, fields: Mapping[str, Any]) -> None:
        age, q = fields["age_steps"], fields["q"]
        self._material.learn(fields["temperature"], fields["amplitude"], age, fields["bands"], fields["wavenumber"])
        self._steps += age - film.age
        film.age, film.measured = age, film.measured + 1
        if q > film.best_q + 0.01:
            film.best_q, film.gained = q, float(age)

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
