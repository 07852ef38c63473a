"""An environment that fails as it is told to; ``gymnasium.make("Faulty-v0", faults={...})``."""

from __future__ import annotations

import os
import time
from pathlib import Path

import gymnasium
import numpy as np
from gymnasium import spaces

import rlctl


class Faulty(gymnasium.Env):
    """Episodes of ten steps; ``faults`` says by number, over all steps of this process, what goes wrong in which."""

    observation_space = spaces.Box(-1.0, 100.0, (3,), np.float32)
    action_space = spaces.Discrete(2)
    made = 0
    steps = 0
    resets = 0

    broken = False

    def __init__(self, faults=None, reset_faults=(), hang_s=30.0, pace_s=0.0, mark=False):
        type(self).made += 1
        self.pace_s = pace_s
        self.mark = Path(f"open-{os.getpid()}") if mark else None
        if self.mark is not None:
            self.mark.touch()
        self.faults = {int(k): v for k, v in (faults or {}).items()}
        self.reset_faults, self.hang_s = tuple(reset_faults), hang_s
        self.closed = False
        self.age = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        type(self).resets += 1
        if Faulty.broken or Faulty.resets in self.reset_faults:
            raise OSError("no such file: field.npz")
        self.age = 0
        return self._seen(), {}

    def step(self, action):
        type(self).steps += 1
        fault = self.faults.get(Faulty.steps)
        self.age += 1
        time.sleep(self.pace_s)
        match fault:
            case "break":
                type(self).broken = True
                raise RuntimeError("the file system is gone")
            case "raise":
                raise RuntimeError("the licence server is away")
            case "diverge":
                raise rlctl.SimulationDiverged("the field is larger than 10")
            case "hang":
                end = time.monotonic() + self.hang_s
                while time.monotonic() < end and not self.closed:
                    time.sleep(0.01)
            case "nan":
                return np.full(3, np.nan, np.float32), 1.0, False, False, {}
            case "nan reward":
                return self._seen(), float("nan"), False, False, {}
            case "shape":
                return np.zeros(2, np.float32), 1.0, False, False, {}
        return self._seen(), 1.0, self.age == 10, False, {}

    def close(self):
        self.closed = True
        if self.mark is not None:
            self.mark.unlink(missing_ok=True)

    def _seen(self):
        return np.full(3, self.age, np.float32)


gymnasium.register("Faulty-v0", entry_point="faulty:Faulty", disable_env_checker=True, order_enforce=False)
