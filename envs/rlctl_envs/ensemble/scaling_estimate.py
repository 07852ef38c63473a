"""Estimates how tasks of a kind scale, and their gain on GPUs, from those that have run."""

from __future__ import annotations

import math

from rlctl_envs.ensemble.program.scaling_law import loss
from rlctl_envs.ensemble.workload_options import Range

SCATTER = 0.6
"""Relative error of one measurement, mostly that of its estimate."""
GAIN_SCATTER = 0.5
"""Deviation of the logarithm of what a user believes of a GPU."""


class ScalingEstimate:
    """The law of one kind, fitted to its tasks so far: least squares with what is expected beforehand.

    A task that took ``seconds`` on n ranks measures ``seconds n / estimate = loss(n, serial, kappa)``, which is linear
    in both unknowns up to their product (see ``scaling_law``). That of a task on GPUs measures their gain as well.

    Attributes:
        serial, kappa: the present belief.
        gain: the same, of a rank with a GPU.
        measured: number of tasks.
    """

    def __init__(self, serial: Range, kappa: Range, gain: float) -> None:
        low, high = serial.low, serial.high
        s0, s_sd = math.sqrt(low * high), 0.5 * (high - low) + 1e-4
        k0, k_sd = 0.5 * (kappa.low + kappa.high), 0.5 * (kappa.high - kappa.low) + 1e-3
        self._aa, self._ab, self._bb = 1.0 / s_sd**2, 0.0, 1.0 / k_sd**2
        self._ay, self._by = s0 / s_sd**2, k0 / k_sd**2
        self._s0, self._k0 = s0, k0
        self.serial, self.kappa = s0, k0
        self._gain_weight, self._gain_sum = 1.0 / GAIN_SCATTER**2, math.log(gain) / GAIN_SCATTER**2
        self.gain = gain
        self.measured = 0
        self._losses: dict[int, float] = {}

    def learn(self, estimate_s: float, ranks: int, gpu: bool, seconds: float) -> None:
        """Learn from a task with this estimate that took ``seconds``."""
        self.measured += 1
        ratio = max(seconds, 1e-9) * ranks / estimate_s
        if gpu:
            # Of a GPU's gain and of the scaling only the product is seen: it is put down to the gain.
            expected = self.loss(ranks)
            self._gain_weight += 1.0 / SCATTER**2
            self._gain_sum += math.log(expected / ratio) / SCATTER**2
            self.gain = max(1.0, math.exp(self._gain_sum / self._gain_weight))
            return
        a, b = float(ranks - 1), math.log2(ranks)
        weight = 1.0 / (SCATTER * loss(ranks, self._s0, self._k0)) ** 2
        y = min(ratio, 10.0 * loss(ranks, self._s0, self._k0)) - 1.0
        self._aa += weight * a * a
        self._ab += weight * a * b
        self._bb += weight * b * b
        self._ay += weight * a * y
        self._by += weight * b * y
        determinant = self._aa * self._bb - self._ab**2
        self.serial = max(0.0, (self._bb * self._ay - self._ab * self._by) / determinant)
        self.kappa = max(0.0, (self._aa * self._by - self._ab * self._ay) / determinant)
        self._losses.clear()

    def loss(self, ranks: int) -> float:
        """Rank-seconds on so many ranks over those on one, as far as is known."""
        known = self._losses.get(ranks)
        if known is None:
            known = self._losses[ranks] = loss(ranks, min(self.serial, 1.0), self.kappa)
        return known

    def seconds(self, work_s: float, ranks: int, gpu: bool) -> float:
        """What ``work_s`` seconds of one rank will take, as far as is known."""
        return work_s * self.loss(ranks) / (ranks * (self.gain if gpu else 1.0))
