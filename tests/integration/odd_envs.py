"""Gymnasium environments that answer oddly; ``gymnasium.make("Odd-v0", reward="nan")`` and so on, from text alone."""

from __future__ import annotations

import sys

import gymnasium
import numpy as np
from gymnasium import spaces

NAN, INF = float("nan"), float("inf")
REWARDS = {
    "nan": NAN,
    "inf": -INF,
    "none": None,
    "text": "1",
    "two": np.ones(2),
    "complex": 1j,
    "too large": 1e39,
    "integer too large": 10**400,
    "list": [1.0],
    "one": 1.0,
    "array": np.array([1.0]),
    "scalar array": np.array(1.0, np.float64),
    "bool": True,
    "numpy bool": np.True_,
    "int": 1,
    "float16": np.float16(1.0),
}
INFOS = {
    "ragged": lambda t: {"x": np.zeros(t + 1)},
    "mixed": lambda t: {"x": 1 if t % 2 else "text"},
    "none at times": lambda t: {"x": None if t % 2 else 1.0},
    "nested": lambda t: {"x": {"y": [1, 2] * t}},
    "mask as a list": lambda t: {"action_mask": [1, 0]},
    "words of ours": lambda t: {"duration_s": "abc", "privileged": "x", "episode": {"r": 1}, "tasks": 3},
    "words of Gymnasium": lambda t: {"final_obs": 3, "_final_obs": 1, "final_info": 2.0, 3: 4},
    "not finite": lambda t: {"x": NAN, "duration_s": -1.0, "y": 10**400},
}


class Odd(gymnasium.Env):
    """Episodes of ten steps of what the arguments say.

    Args:
        observation, action: of its spaces, Python expressions.
        seen: what an observation is, of ``t``; "": a sample.
        reward: a key of ``REWARDS``.
        info: a key of ``INFOS``.
        at: the step, counted over all episodes, from which on it does as ``reward`` and ``fault`` say.
        fault: an exception, or an odd way to answer.
        num_envs, max_steps: not used: an environment may have arguments of these names.
    """

    def __init__(
        self,
        observation="Box(-1, 1, (3,))",
        action="Discrete(2)",
        seen="",
        reward="one",
        info="",
        at=1,
        fault="",
        num_envs=0,
        max_steps=0,
    ):
        if fault == "constructor":
            raise ZeroDivisionError("of the constructor")
        if fault == "constructor exits":
            sys.exit(4)
        self.observation_space = eval(observation, vars(spaces) | {"np": np})
        self.action_space = eval(action, vars(spaces) | {"np": np})
        self.seen, self.reward, self.info, self.at, self.fault = seen, reward, info, at, fault
        self.t = self.steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        if seed is not None:
            self.observation_space.seed(seed)
        match self.fault:
            case "reset raises":
                raise OSError(2, "no such file", "mesh.h5")
            case "reset gives one":
                return self._see()
        return self._see(), self._tell()

    def step(self, action):
        assert self.action_space.contains(action), f"{action!r} is not in {self.action_space}"
        self.t += 1
        self.steps += 1
        bad = self.steps >= self.at
        if bad:
            match self.fault:
                case "raises":
                    raise ZeroDivisionError("of the environment")
                case "exits":
                    sys.exit(3)
                case "no memory":
                    raise MemoryError
                case "no text":
                    raise Mute
                case "four":
                    return self._see(), 1.0, False, {}
                case "nothing":
                    return None
                case "end is text":
                    return self._see(), 1.0, "False", False, {}
                case "info is a list":
                    return self._see(), 1.0, False, False, []
        reward = REWARDS[self.reward] if bad else 1.0
        return self._see(), reward, self.t == 10, False, self._tell()

    def close(self):
        if self.fault == "close raises":
            raise RuntimeError("of close")

    def _see(self):
        return eval(self.seen, {"np": np, "t": self.t}) if self.seen else self.observation_space.sample()

    def _tell(self):
        return INFOS[self.info](self.t) if self.info else {}


class Mute(Exception):
    """One whose text cannot be made."""

    def __str__(self):
        raise ValueError


class Endless(gymnasium.Env):
    """Ends when the last action is chosen, which a good policy never does."""

    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = spaces.Discrete(4)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        return np.zeros(2, np.float32), 1.0, bool(action == 3), False, {}


gymnasium.register("Odd-v0", entry_point=Odd, disable_env_checker=True)
gymnasium.register("OddEndless-v0", entry_point=Endless, disable_env_checker=True)


def exits(*arguments, **keywords):
    """As no function should."""
    sys.exit(3)
