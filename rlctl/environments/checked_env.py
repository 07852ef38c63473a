"""Checks what an environment returns, and reports its faults with environment, episode and step.

An environment may raise any exception, and return rewards that are no numbers or observations of another length. Found
later, these would look like bugs of rlctl.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, SupportsFloat

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlctl.core.errors import EnvironmentFault, RlctlError, SimulationDiverged, brief, reason
from rlctl.system import crash_report

log = logging.getLogger(__name__)

LARGEST = float(np.finfo(np.float32).max)
"""What is learned from is float32."""
_NUMBER = (bool, int, float, np.number, np.bool_)
_NO_FIGURES = ("action_mask", "privileged", "tasks", "final_obs", "final_info")
"""Keys of infos that mean something else to rlctl, or to Gymnasium's vector environments."""
_LONGEST = 300
"""Characters of a message of an environment; some repeat all that they were given."""


class CheckedEnv(gymnasium.Wrapper[Any, Any, Any, Any]):
    """The environment with observations in a row, flattened by ``gymnasium.spaces.flatten``, and checked answers.

    Infos hold only what rlctl reads: ``action_mask``, ``privileged`` (as many finite numbers each time, if the first
    reset gave some), ``duration_s``, and the finite numbers that are shown as figures. All else is the environment's
    own affair and is left out, since a vector of environments could not hold it.

    Args:
        name: of the environment, for messages.

    Raises:
        EnvironmentFault: from ``reset`` and ``step``, naming the environment, its episode and step: it raised an
            exception, or gave a reward, an observation or an end that is none.
        SimulationDiverged: it raised that itself.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], name: str) -> None:
        super().__init__(env)
        self.name = name
        self._space = env.observation_space
        self.observation_space = spaces.flatten_space(self._space)
        self._length = int(np.prod(self.observation_space.shape or (0,)))
        self._privileged: int | None = None
        self._episode, self._step = 0, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        first = self._episode == 0
        self._episode, self._step = self._episode + 1, 0
        answer = self._call(lambda: self.env.reset(seed=seed, options=options))
        observation, info = self._parts("reset()", answer, ("observation", "info"))
        if first and isinstance(info, Mapping):
            self._privileged = _length_of_numbers(info.get("privileged"))
        with self._placed():
            row = self._row(observation)
        return row, self._told(info)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One step."""
        self._step += 1
        answer = self._call(lambda: self.env.step(action))
        names = ("observation", "reward", "terminated", "truncated", "info")
        observation, reward, terminated, truncated, info = self._parts("step()", answer, names)
        with self._placed():
            number = finite_reward(reward)
            ends = truth("terminated", terminated), truth("truncated", truncated)
            row = self._row(observation)
        return row, number, *ends, self._told(info)

    def close(self) -> None:
        """Close the environment; errors are only logged."""
        try:
            super().close()
        except (Exception, SystemExit) as error:
            log.warning("environment %s: close() raised %s: ignored", self.name, reason(error, _LONGEST))

    def _call(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except SimulationDiverged as error:
            raise SimulationDiverged(f"{self._where}: {error}") from error
        except (RlctlError, KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # SystemExit too: an environment does not end a training
            place = crash_report.origin(error, {type(self.unwrapped).__module__.partition(".")[0]}).place
            raise EnvironmentFault(
                f"{self._where}: {reason(error, _LONGEST)}{f' ({place})' if place else ''}"
            ) from error

    @property
    def _where(self) -> str:
        return f"environment {self.name}, episode {self._episode}, " + (f"step {self._step}" if self._step else "reset")

    @contextmanager
    def _placed(self) -> Iterator[None]:
        """Faults inside get the environment, episode and step."""
        try:
            yield
        except EnvironmentFault as fault:
            raise EnvironmentFault(f"{self._where}: {fault}", fault.kind) from fault.__cause__

    def _parts(self, method: str, answer: Any, names: tuple[str, ...]) -> tuple[Any, ...]:
        if not isinstance(answer, tuple) or len(answer) != len(names):
            got = f"{len(answer)} values" if isinstance(answer, tuple) else type(answer).__name__
            raise EnvironmentFault(f"{self._where}: {method} gave {got}, not ({', '.join(names)})", "wrong_shape")
        return answer

    def _row(self, observation: Any) -> NDArray[Any]:
        problem = _misfit(self._space, observation)
        if problem is not None:
            raise EnvironmentFault(f"the observation {problem}", "wrong_shape")
        try:
            row = np.asarray(spaces.flatten(self._space, observation)).reshape(-1)
        except Exception as error:  # whatever a space's own functions do with what is not in it
            problem = f"is not in {self._space}: {reason(error, _LONGEST)}"
            raise EnvironmentFault(f"the observation {brief(observation)} {problem}", "wrong_shape") from error
        if len(row) != self._length:
            raise EnvironmentFault(f"the observation has {len(row)} numbers, its space {self._length}", "wrong_shape")
        require_finite("the observation", row)
        return row

    def _told(self, info: Any) -> dict[str, Any]:
        if not isinstance(info, Mapping):
            raise EnvironmentFault(f"{self._where}: the info is {brief(info)}, not a mapping", "wrong_shape")
        told: dict[str, Any] = {}
        for key, value in info.items():
            if isinstance(key, str) and not key.startswith("_") and key not in _NO_FIGURES:
                number = _figure(value)
                if number is not None:
                    told[key] = number
        if told.get("duration_s", 0.0) < 0.0:
            del told["duration_s"]
        if info.get("action_mask") is not None:
            told["action_mask"] = info["action_mask"]
            with suppress(ValueError):  # a ragged list is no mask: ``action_mask`` refuses it
                told["action_mask"] = np.asarray(info["action_mask"])
        if self._privileged is not None:
            hidden = info.get("privileged")
            if _length_of_numbers(hidden) != self._privileged:
                raise EnvironmentFault(
                    f"{self._where}: info['privileged'] is {brief(hidden)}, but at first it was {self._privileged} "
                    "finite numbers",
                    "wrong_shape",
                )
            told["privileged"] = np.ravel(np.asarray(hidden, np.float32))
        return told


def finite_reward(reward: Any) -> float:
    """A reward as a number: of any numeric type, or an array of one; EnvironmentFault if it is no finite float32."""
    number = _number(reward)
    if number is None:
        raise EnvironmentFault(f"the reward is {brief(reward)}, not a number", "wrong_shape")
    if not abs(number) <= LARGEST:  # NaN, too
        raise EnvironmentFault(f"the reward is {number:g}, not a finite number of float32", "not_finite")
    return number


def truth(what: str, value: Any) -> bool:
    """Whether an episode is over: a truth value of any type, or an array of one; else EnvironmentFault."""
    number = _number(value)
    if number not in (0.0, 1.0):
        raise EnvironmentFault(f"{what} is {brief(value)}, not true or false", "wrong_shape")
    return bool(number)


def require_finite(what: str, numbers: NDArray[Any]) -> None:
    """Raise EnvironmentFault for numbers that are not finite as float32."""
    given = numbers
    if numbers.dtype != np.float32:
        with np.errstate(over="ignore", invalid="ignore"):
            given = numbers.astype(np.float32)
    fine = np.isfinite(given)
    if not fine.all():
        i = int(np.flatnonzero(~fine.reshape(-1))[0])
        raise EnvironmentFault(f"{what} is not finite: number {i} is {numbers.reshape(-1)[i]}", "not_finite")


def _number(value: Any) -> float | None:
    """The value as a number; None if it is none."""
    try:
        if isinstance(value, int | float):  # as most are, and this is done at each step
            return float(value)
        if isinstance(value, str | bytes | bytearray) or np.size(value) != 1:
            return None
        one = value.reshape(-1)[0] if getattr(value, "shape", ()) else value
        number: SupportsFloat = one.item() if hasattr(one, "item") else one
        return None if isinstance(number, str | bytes) else float(number)
    except Exception:  # of an object that only looks like a number; None is no number either
        return None


def _figure(value: Any) -> float | None:
    """A finite number to be shown; None if it is none."""
    if not isinstance(value, _NUMBER) or isinstance(value, np.complexfloating):
        return None
    number = _number(value)
    return number if number is not None and abs(number) <= LARGEST else None


def _length_of_numbers(value: Any) -> int | None:
    """How many finite numbers there are; None where something else is."""
    try:
        numbers = np.ravel(np.asarray(value, np.float32))
    except (TypeError, ValueError, OverflowError):
        return None
    return len(numbers) if value is not None and np.isfinite(numbers).all() else None


def _misfit(space: spaces.Space[Any], value: Any) -> str | None:
    """What ``flatten`` would silently make something else of; numbers outside a Box's bounds do no harm."""
    if isinstance(space, spaces.Box):
        if space.dtype is None or space.dtype.kind not in "iub":
            return None
        try:
            given = np.asarray(value)
            with np.errstate(invalid="ignore"):
                same = given.dtype == space.dtype or np.array_equal(given.astype(space.dtype), given)
        except (TypeError, ValueError, OverflowError):
            same = False
        return None if same else f"{brief(value)} holds what {space.dtype} cannot"
    if isinstance(space, spaces.Dict) and isinstance(value, Mapping):
        parts = ((f"[{key!r}]", part, value.get(key)) for key, part in space.spaces.items())
    elif isinstance(space, spaces.Tuple) and isinstance(value, tuple | list):
        if len(value) != len(space.spaces):
            return f"has {len(value)} parts, its space {len(space.spaces)}"
        parts = ((f"[{i}]", part, value[i]) for i, part in enumerate(space.spaces))
    elif isinstance(space, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
        return None if _counts(space, value) else f"{brief(value)} is not in {space}"
    else:
        return None
    for name, part, inside in parts:
        problem = _misfit(part, inside)
        if problem is not None:
            return f"{name} {problem}"
    return None


def _counts(space: spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary, value: Any) -> bool:
    """Whether each number is one of the space's choices."""
    start = getattr(space, "start", 0)
    count = (
        space.n if isinstance(space, spaces.Discrete) else 2 if isinstance(space, spaces.MultiBinary) else space.nvec
    )
    try:
        numbers = np.asarray(value, np.float64).reshape(space.shape or ()) - start
    except (TypeError, ValueError):
        return False
    return bool(((numbers >= 0) & (numbers < count) & (numbers == np.floor(numbers))).all())
