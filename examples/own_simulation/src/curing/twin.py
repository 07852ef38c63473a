"""The twin: what a run would do, told in a thousandth of the time, so that a policy can learn from many campaigns.

Durations are as measured. Results come from a cheaper model: the whole slab at one temperature. Its peaks are up to
some 12 K lower than the program's, but rise and run away in the same manner, and that is what a policy has to deal
with: the materials differ by more. Nothing of the twin reaches the real campaign.
"""

import math

import numpy as np

from curing.slab import GAS, HALF_THICKNESS, HOLD, ROOM
from rlctl.core.simulation import Simulated
from rlctl.core.task import Failure


def draw_material(seed):
    """What is hidden: the resin of instance ``seed``."""
    random = np.random.default_rng([seed, 1])
    activation = random.uniform(62e3, 72e3)
    at_400_K = 1e-3 * math.exp(random.uniform(-0.7, 0.7))
    return {
        "diffusivity": random.uniform(1e-7, 2e-7),  # m2/s
        "heat": random.uniform(70.0, 140.0),  # K, if all of it stayed in place
        "rate": at_400_K * math.exp(activation / (GAS * 400.0)),  # 1/s
        "activation": activation,  # J/mol
    }


def lumped_peak(material, oven, step=20.0):
    """Highest temperature of a slab that has one temperature throughout, K."""
    exchange = math.pi**2 * material["diffusivity"] / (4.0 * HALF_THICKNESS**2)
    temperature, cured, peak = ROOM, 0.0, ROOM
    for _ in range(int(HOLD / step)):
        rate = material["rate"] * math.exp(-material["activation"] / (GAS * temperature))
        reacted = (1.0 - cured) * -math.expm1(-rate * step)
        temperature += step * exchange * (oven - temperature) + material["heat"] * reacted
        cured += reacted
        peak = max(peak, temperature)
    return peak


class Twin:
    """The task model of one instance; see ``rlctl.core.simulation.TaskModel``."""

    def __init__(self, options, seed):
        self.options = options
        self.material = draw_material(seed)
        self.random = np.random.default_rng([seed, 2])
        self.coarse_reads_K = self.random.uniform(-0.5, 3.0)  # too much, as measured at 15 cells

    def outcomes(self, launches):
        """For each run: how long it takes, and what it writes."""
        return [self.outcome(launch.spec.parameters) for launch in launches]

    def outcome(self, parameters):
        """One run in a hundred dies."""
        cells = parameters["cells"]
        seconds = self.options.seconds[cells] * math.exp(0.1 * self.random.standard_normal())
        if self.random.random() < 0.01:
            return Simulated(seconds, failure=Failure.EXIT, message="the program died")
        peak = lumped_peak(self.material, parameters["oven_K"])
        return Simulated(seconds, {"peak_K": peak + self.coarse_reads_K * (cells == self.options.coarse)})
