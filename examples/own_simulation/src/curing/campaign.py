"""The campaign: find the hottest oven that does not overheat the slab, with as little machine time as possible.

The reaction gives off heat, so the middle of the slab gets hotter than the oven. Sought is an oven temperature for
which the peak lies within ``window_K`` below ``limit_K``, shown by a run at full resolution. Coarse runs are cheap, but
off by up to ``coarse_error_K``. Each decision: at which oven temperature is the next run, and how fine?
"""

import math

import gymnasium
import numpy as np
from pydantic import BaseModel, ConfigDict

import rlctl
from rlctl.core.campaign import Decision, Outcome, Start
from rlctl.core.task import TaskId, TaskSpec, TaskState

PLACES = 9  # a policy that answers with indices splits the bracket at 1/10, 2/10 ... 9/10


class Options(BaseModel):
    """What a user can set under ``campaign.options``; what is unknown or of the wrong type is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit_K: float = 440.0
    window_K: float = 2.0
    oven_K: tuple[float, float] = (350.0, 450.0)
    coarse: int = 15  # cells
    fine: int = 60
    coarse_error_K: float = 4.0
    seconds: dict[int, float] = {15: 0.3, 60: 1.0}  # measured: wall time of a run, by cells
    allocation_s: float = 60.0


class Curing(rlctl.Campaign):
    """See ``rlctl.core.campaign``: no clock, no files, no processes; all it knows comes in through its methods."""

    def __init__(self, options):
        self.options = options
        self.deadline_s = options.allocation_s
        self.reward_scale = 1.0  # a node-second costs a reward of 1
        self.action_space = gymnasium.spaces.MultiDiscrete([PLACES, 2])
        self.observation_space = gymnasium.spaces.Box(-10.0, 10.0, (9,), np.float32)
        self.low, self.high = options.oven_K  # too cool, too hot: the oven sought lies between
        self.low_peak, self.high_peak = None, None  # what was measured there, K
        self.undecided = 0  # coarse runs too close to the limit to tell on which side of it they are
        self.running = {}  # uid -> (oven, cells)
        self.started, self.found, self.idle, self.now = 0, 0, 0, 0.0
        self.open = None

    def begin(self, capacity):
        """As many runs at a time as there are cores."""
        self.idle = capacity.total_cores

    def on_time(self, time_s):
        """The clock; only to know what is left."""
        self.now = max(self.now, time_s)

    def on_event(self, event):
        """A run has ended: narrow the bracket. Events of other tasks, and the start of a run, do not matter."""
        if event.result is None or event.uid not in self.running:
            return
        oven, cells = self.running.pop(event.uid)
        self.idle += 1
        peak = event.result.values.get("peak_K") if event.state is TaskState.DONE else None
        if not isinstance(peak, float) or not math.isfinite(peak):
            return  # it failed: nothing is learned, and the core is free for another
        limit, window = self.options.limit_K, self.options.window_K
        error = self.options.coarse_error_K if cells == self.options.coarse else 0.0
        if error == 0.0 and limit - window <= peak <= limit:
            self.found = 1
        elif peak < limit - window - error and oven > self.low:
            self.low, self.low_peak = oven, peak
        elif peak > limit + error and oven < self.high:
            self.high, self.high_peak = oven, peak
        elif error:
            self.undecided += 1

    def decision(self):
        """A question whenever a core is idle; the same one until it is answered."""
        if self.open is None and self.idle > 0 and not self.outcome().ended:
            mask = np.array([True] * PLACES + [self.coarse_helps(), True])
            self.open = Decision(f"run{self.started:03d}", self.now, self.fields(), self.observe(), mask)
        return self.open

    def apply(self, action):
        """Start the run. Networks answer with an index for each head, rules with the quantities themselves."""
        if isinstance(action, dict):
            oven = min(max(float(action["oven_K"]), self.options.oven_K[0]), self.options.oven_K[1])
            coarse = bool(action["coarse"])
        else:
            oven = self.low + (self.high - self.low) * (int(action[0]) + 1) / (PLACES + 1)
            coarse = int(action[1]) == 0
        coarse = coarse and self.coarse_helps()  # what is masked is never an error, but becomes something allowed
        cells = self.options.coarse if coarse else self.options.fine
        uid = TaskId(f"run{self.started:03d}")
        self.open = None
        self.started, self.idle = self.started + 1, self.idle - 1
        self.running[uid] = (oven, cells)
        # This is the command line of your program. The run folder is its working directory.
        arguments = ("-m", "curing.slab", "--material=material.json", f"--oven={oven:.4f}", f"--cells={cells}")
        return [
            Start(
                TaskSpec(
                    uid,
                    executable="python",
                    arguments=(*arguments, f"--result={uid}.json"),
                    result_file=f"{uid}.json",
                    parameters={"oven_K": oven, "cells": cells},  # what the twin reads instead
                    walltime_s=30.0,
                )
            )
        ]

    def outcome(self):
        """Reached, or out of time. The potential tells a learner that a narrower bracket is worth something."""
        potential = 0.0 if self.found else -math.log2((self.high - self.low) / 0.1)
        return Outcome(bool(self.found) or self.now >= self.deadline_s, bool(self.found), self.found, potential)

    def coarse_helps(self):
        """Whether a coarse run may still tell something."""
        return self.undecided < 2

    def fields(self):
        """What rules read, by name."""
        return {
            "bracket_K": (self.low, self.high),
            "peaks_K": (self.low_peak, self.high_peak),
            "target_K": self.options.limit_K - 0.5 * self.options.window_K,
            "running_K": tuple(oven for oven, _ in self.running.values()),
            "undecided": self.undecided,
            "time_left_s": self.deadline_s - self.now,
        }

    def observe(self):
        """What networks read: about the same as numbers between -3 and 3."""
        width, limit = self.high - self.low, self.options.limit_K
        places = sorted((oven - self.low) / width for oven, _ in self.running.values())
        row = [
            math.log2(width) - 3.0,
            (limit - self.low_peak) / 20.0 if self.low_peak is not None else 3.0,
            (self.high_peak - limit) / 20.0 if self.high_peak is not None else 3.0,
            float(len(places)),
            places[0] if places else -1.0,
            sum(cells == self.options.fine for _, cells in self.running.values()),
            min(self.undecided, 4),
            math.log1p(self.started) - 1.0,
            1.0 - self.now / self.deadline_s,
        ]
        return np.clip(np.array(row, np.float32), -10.0, 10.0)
