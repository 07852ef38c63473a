"""Synthetic problems: what evaluations of a program that is not there would give, take, and fail at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rlctl.config.twin_section import SyntheticSection
from rlctl.core.task import Resources
from rlctl.surrogates.measured_scaling import MeasuredScaling
from rlctl.surrogates.smooth_field import SmoothField
from rlctl_envs.search.evaluated_points import Space
from rlctl_envs.search.objective import SearchObjective
from rlctl_envs.search.options import SearchOptions
from rlctl_envs.search.parameters import Floats
from rlctl_envs.search.problem import Aims, SimulatedRun

SAMPLED = 2048
"""Points by which a problem is scaled and its target is chosen."""

_WAVES = 64
_SERIAL = (0.01, 0.3)


@dataclass(frozen=True, slots=True)
class Landscape:
    """A smooth field over a bowl, standardized, then warped: small values stay near each other, large ones do not.

    Attributes:
        centre: of the bowl.
        depth: of the bowl, in units of the field.
        shift, scale: that standardize both.
        skewness: of the warp.
    """

    field: SmoothField
    centre: Floats
    depth: float
    shift: float
    scale: float
    skewness: float

    @classmethod
    def draw(cls, groups: NDArray[np.int64], sample: Floats, rng: np.random.Generator) -> Landscape:
        """Draw one, standardized over a sample of features."""
        roughness, count = float(rng.uniform(2.0, 7.0)), int(groups.max(initial=-1)) + 1
        rates = roughness * np.exp(0.6 * rng.standard_normal(count)) / math.sqrt(max(1, count))
        field = SmoothField.draw(rates[groups], rng, _WAVES)
        raw = cls(field, sample[int(rng.integers(len(sample)))], float(rng.uniform(0.0, 3.0)), 0.0, 1.0, 0.0)
        values = raw(sample)
        skewness = float(rng.uniform(0.0, 1.0))
        return cls(field, raw.centre, raw.depth, float(values.mean()), float(values.std()) or 1.0, skewness)

    def __call__(self, x: Floats) -> Floats:
        """Values at features [n, features]."""
        bowl = ((x - self.centre) ** 2).mean(axis=1)
        z = (self.field(x) + self.depth * bowl - self.shift) / self.scale
        return np.asarray(np.expm1(self.skewness * z) / self.skewness if self.skewness > 1e-6 else z)


class SyntheticProblem:
    """What evaluations of instance ``seed`` of a search give.

    Attributes:
        losses: of the objectives, without noise, as ``loss`` gives them.
        noise: standard deviation of the noise of losses, in units of their spread.
        duration_spread: standard deviation of the logarithm of durations over the space.
        stuck: share of runs that take far longer than others at their point.
        failing: share of the space in which evaluations fail.
        biases: of the stages: share of their variance that the stage that counts has not.
        costs: of the stages, as shares of that which counts.
        serial: share of the work that does not scale with cores.
        hits: share of the space that reaches the goal.

    Args:
        usual_s: median duration at the stage that counts on one core, unless ``ranges`` say it.
        ranges: from which the quantities above are drawn.
    """

    def __init__(
        self,
        options: SearchOptions,
        space: Space,
        objective: SearchObjective,
        counts: int,
        seed: int,
        usual_s: float,
        ranges: SyntheticSection,
    ) -> None:
        rng = np.random.default_rng([seed, 4])
        self._space, self._names, self._signs, self._counts = space, objective.names, objective.signs, counts
        sample = space.features(space.sample(rng, SAMPLED))
        groups = space.groups
        self.losses = [Landscape.draw(groups, sample, rng) for _ in objective.names]
        self._conditions = [Landscape.draw(groups, sample, rng) for _ in range(objective.conditions)]
        self._duration = Landscape.draw(groups, sample, rng)
        self._failure = Landscape.draw(groups, sample, rng)
        stages = max(1, len(options.stages))
        self._bias_fields = [Landscape.draw(groups, sample, rng) for _ in range(stages)]
        self.biases = [0.0 if s == counts else float(rng.uniform(0.05, 0.5)) for s in range(stages)]
        ratios = np.exp(rng.uniform(math.log(0.03), math.log(0.3), stages))
        self.costs = [float(np.prod(ratios[s:counts])) if s < counts else 1.0 for s in range(stages)]
        self.noise = float(rng.uniform(*ranges.noise)) if options.noisy else 0.0
        self.duration_spread = float(np.exp(rng.uniform(*np.log(ranges.duration_spread))))
        self._follows_loss = float(rng.uniform(-0.7, 0.7))
        self._tail = float(rng.uniform(0.0, 0.15))
        self.stuck = float(rng.uniform(*ranges.stuck)) if rng.random() < 0.5 else 0.0
        self.failing = float(rng.uniform(*ranges.failing)) if rng.random() < 0.5 else 0.0
        self.serial = float(rng.uniform(*(ranges.serial or _SERIAL)))
        self.gpu_speed = float(np.exp(rng.uniform(0.0, math.log(8.0))))
        self._failure_from = float(np.quantile(self._failure(sample), 1.0 - self.failing))
        self.margin_shift = self._shift_conditions(sample, objective.finds, rng)
        self._aim(options, sample, rng)
        self._usual_s, self._measured = usual_s, None
        if ranges.seconds is not None:
            self._usual_s = float(np.exp(np.random.default_rng([seed, 8]).uniform(*np.log(ranges.seconds))))
        if ranges.calibration is not None:
            self._measured = MeasuredScaling.read(Path(ranges.calibration))
            self._usual_s, self.serial = float(np.median(self._measured.work_s)), self._measured.serial

    def _shift_conditions(self, sample: Floats, finds: bool, rng: np.random.Generator) -> float:
        """What margins lose so that a share of the space fulfils all conditions, a small one if these are the goal."""
        if not self._conditions:
            return 0.0
        share = math.exp(rng.uniform(math.log(1 / 80), math.log(0.1))) if finds else rng.uniform(0.25, 0.9)
        least = np.min([condition(sample) for condition in self._conditions], axis=0)
        return float(np.quantile(least, 1.0 - share))

    def _aim(self, options: SearchOptions, sample: Floats, rng: np.random.Generator) -> None:
        """Choose target and units: so few points reach it that chance needs more evaluations than there are."""
        value, usual = options.until.value, options.usual_evaluations
        self.hits = float(np.exp(rng.uniform(math.log(1 / 20), math.log(1 / 1.5)))) / usual
        self.units = np.exp(rng.standard_normal(len(self.losses)))
        self._offsets = np.zeros(len(self.losses))
        good = (self.margins(sample) >= 0.0).all(axis=1) & ~self.fails(sample)
        self._aims = Aims.of(self.true_losses(sample), good, self.hits)
        if len(self.losses) == 1 and value is not None:
            self._offsets[0] = self._signs[0] * value - self.units[0] * self._aims.directions[0][1]

    # What evaluations give.

    @property
    def unit(self) -> float:
        """Spread of the first objective."""
        return float(self.units[0])

    def run(self, point: Floats, stage: int, need: Resources, rng: np.random.Generator) -> SimulatedRun:
        """See ``Problem``."""
        x = self._space.features(point[None])
        seconds = self._usual_s * self.costs[stage] * math.exp(self.log_seconds(x) + 0.05 * rng.standard_normal())
        seconds /= self._speed(need)
        start_s = 0.0 if self._measured is None else self._measured.seconds(0.0, need.ranks, need.cores)
        if self.fails(x)[0]:
            return SimulatedRun(start_s + seconds * float(rng.uniform(0.05, 1.0)), failed=True)
        if rng.random() < self.stuck:
            seconds *= float(np.exp(rng.uniform(math.log(5.0), math.log(40.0))))
        losses = self.reported_losses(x, stage, rng)
        outputs = {name: sign * loss for name, sign, loss in zip(self._names, self._signs, losses, strict=True)}
        reached = self.reached(x)
        reached = reached if stage == self._counts else [False] * len(reached)
        return SimulatedRun(start_s + seconds, False, outputs, losses, self.margins(x)[0].tolist(), reached)

    def _speed(self, need: Resources) -> float:
        """How much faster than on one core an evaluation is (Amdahl 1967)."""
        scaled = 1.0 / (self.serial + (1.0 - self.serial) / need.cores)
        return scaled * (self.gpu_speed if need.gpus > 0.0 else 1.0)

    def true_losses(self, x: Floats) -> Floats:
        """Losses at the stage that counts, standardized, without noise, [n, objectives]."""
        return np.stack([landscape(x) for landscape in self.losses], axis=1) if self.losses else np.zeros((len(x), 0))

    def margins(self, x: Floats) -> Floats:
        """Of the conditions, [n, conditions]."""
        found = [condition(x) - self.margin_shift for condition in self._conditions]
        return np.stack(found, axis=1) if found else np.zeros((len(x), 0))

    def fails(self, x: Floats) -> NDArray[np.bool_]:
        """Where evaluations fail, [n]."""
        if self.failing <= 0.0:
            return np.zeros(len(x), np.bool_)
        return np.asarray(self._failure(x) > self._failure_from)

    def reached(self, x: Floats) -> list[bool]:
        """Goals that an evaluation at features [1, features] reaches: one, or one for each of several trade-offs."""
        return self._aims.reached(self.true_losses(x)[0], bool((self.margins(x) >= 0.0).all()))

    def reported_losses(self, x: Floats, stage: int, rng: np.random.Generator) -> list[float]:
        """Losses as the program of a stage gives them, in the objective's units."""
        bias = self.biases[stage]
        losses = self.true_losses(x)[0] * math.sqrt(1.0 - bias)
        losses = losses + math.sqrt(bias) * float(self._bias_fields[stage](x)[0]) if bias else losses
        losses = losses + self.noise * rng.standard_normal(len(losses))
        return [float(v) for v in self._offsets + self.units * losses]

    def log_seconds(self, x: Floats) -> float:
        """Logarithm of the duration on one core at the stage that counts, over its median, about."""
        own, towards = float(self._duration(x)[0]), self._follows_loss
        loss = float(self.true_losses(x)[0, 0]) if self.losses else 0.0
        z = math.sqrt(1.0 - towards**2) * min(max(own, -3.0), 3.0) + towards * min(max(loss, -3.0), 3.0)
        value = self.duration_spread * z
        return value + self._tail * max(value, 0.0) ** 2

    def hidden(self) -> Sequence[float]:
        """Quantities that policies do not know, each about from -1 to 1."""
        return (
            math.log(self.duration_spread) / 2.0,
            self._follows_loss,
            self.stuck * 10.0,
            self.failing * 3.0,
            self.noise * 3.0,
            math.log(self.hits) / 8.0,
            self.biases[0] * 2.0,
            math.log(self.costs[0]) / 4.0,
            self.serial * 3.0,
        )

    def shapes(self) -> Sequence[float]:
        """Where the bowls of the objectives lie, and what their values are scaled by."""
        return [number for loss in self.losses for number in (*loss.centre.tolist(), loss.shift, loss.scale)]
