"""Environments that fail: a failure is classified and counted, ends its episode, and the environment is made anew.

A failure of the simulated physics is a consequence of the action: the episode terminates. A failure of the machine says
nothing about the action: the episode is truncated. In campaigns of many tasks a failed task is an event, handled by the
campaign and not here.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from enum import StrEnum
from functools import partial
from typing import Any, TypeVar

import numpy as np

from rlctl.config.schema import EnvironmentSection
from rlctl.core.errors import EnvironmentFault, RlctlError, SimulationDiverged, described
from rlctl.distributed.comm.collective_env import Environment
from rlctl.distributed.comm.transition_spec import Float32
from rlctl.environments.checked_env import finite_reward

log = logging.getLogger(__name__)

Info = Mapping[str, Any]
_T = TypeVar("_T")
Flatten = Callable[[Environment, Any, Info], Float32]
_CLOSE_S = 5.0
_LONGEST_EXPONENT = 30


class EnvFailure(StrEnum):
    """Kinds of failure of an environment."""

    RAISED = "raised"
    HUNG = "hung"
    WRONG_SHAPE = "wrong_shape"
    NOT_FINITE = "not_finite"
    DIVERGED = "diverged"

    @property
    def physics(self) -> bool:
        """Whether the simulated system caused it, not the machine."""
        return self in (EnvFailure.NOT_FINITE, EnvFailure.DIVERGED)


class BrokenEnvironmentError(RlctlError):
    """An environment failed too often in a row."""


class _FailedError(Exception):
    def __init__(self, kind: EnvFailure, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class EnvGuard:
    """One environment, with timeouts, and replaced after a failure.

    Args:
        maker: of the environment; called again after each failure.
        section: timeout, pauses, and limit of failures in a row.
        failures: counter of failures, shared with other guards.
        sleep: for pauses; replaced in tests.

    Attributes:
        env: the environment; None between a failure and the next ``reset``.
    """

    def __init__(
        self,
        maker: Callable[[], Environment],
        section: EnvironmentSection,
        failures: Counter[str],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.env: Environment | None = maker()
        self._maker, self._section, self._failures, self._sleep = maker, section, failures, sleep
        self._in_a_row = 0

    def reset(self, seed: Callable[[], int], flatten: Flatten) -> tuple[Float32, Info]:
        """Begin an episode, in a new environment after a failure.

        Args:
            seed: called for each try: an episode that cannot begin is not tried twice.
            flatten: makes a vector of an observation; raises if it does not fit.

        Raises:
            BrokenEnvironmentError: it has failed too often in a row.
        """
        while True:
            try:
                env = self._ready()
                observation, info = self._watched(partial(env.reset, seed=seed()))
                return self._checked(env, observation, info, flatten), info
            except _FailedError as failed:
                self._record(failed)

    def step(self, action: Any, flatten: Flatten, last: Float32) -> tuple[Float32, float, bool, bool, Info]:
        """As an environment's own, with a flat observation: the ``last`` one, if it fails."""
        env = self.env
        assert env is not None
        try:
            observation, reward, terminated, truncated, info = self._watched(lambda: env.step(action))
            try:
                reward = finite_reward(reward)
            except EnvironmentFault as fault:
                raise _failed(fault) from fault
            flat = self._checked(env, observation, info, flatten)
        except _FailedError as failed:
            self._record(failed)
            reward = self._section.diverged_reward if failed.kind.physics else 0.0
            return last, reward, failed.kind.physics, not failed.kind.physics, {}
        self._in_a_row = 0
        return flat, reward, bool(terminated), bool(truncated), info

    def close(self) -> None:
        """Close the environment."""
        if self.env is not None:
            self.env.close()

    def _ready(self) -> Environment:
        if self.env is None:
            if self._in_a_row:
                doubled = self._section.backoff_s * 2.0 ** min(self._in_a_row - 1, _LONGEST_EXPONENT)
                self._sleep(min(doubled, self._section.backoff_limit_s))
            self.env = self._watched(self._maker)
        return self.env

    def _watched(self, call: Callable[[], Any]) -> Any:
        """The result of a call.

        Raises:
            _FailedError: it raised an exception, or takes too long.
        """
        timeout_s = self._section.step_timeout_s
        future = None if timeout_s is None else in_thread(call)
        if future is not None and not wait([future], timeout_s).done:
            raise _FailedError(EnvFailure.HUNG, f"it takes more than {timeout_s:g} s")
        try:
            return call() if future is None else future.result()
        except Exception as error:
            raise _failed(error) from error

    def _checked(self, env: Environment, observation: Any, info: Info, flatten: Flatten) -> Float32:
        try:
            flat = flatten(env, observation, info)
        except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
            raise _FailedError(EnvFailure.WRONG_SHAPE, f"the observation does not fit: {error}") from error
        if not np.isfinite(flat).all():
            raise _FailedError(EnvFailure.NOT_FINITE, "the observation is not finite")
        return flat

    def _record(self, failed: _FailedError) -> None:
        self._failures[failed.kind] += 1
        env, self.env = self.env, None
        if env is not None:
            # One that hangs is closed too: this often ends what it waits for, a process of its own for example.
            wait([in_thread(env.close)], _CLOSE_S)
        if failed.kind is EnvFailure.DIVERGED:
            return
        self._in_a_row += 1
        if self._in_a_row >= self._section.give_up:
            raise BrokenEnvironmentError(
                f"the environment failed {self._in_a_row} times in a row, last ({failed.kind}): {failed}"
            ) from failed
        total = self._failures[failed.kind]
        often = total & (total - 1)  # not a power of two: one that fails in each episode does not fill the log
        text = "an environment failed (%s, %d in a row, %d in all): %s"
        log.log(logging.INFO if often else logging.WARNING, text, failed.kind, self._in_a_row, total, failed)


def _failed(error: Exception) -> _FailedError:
    if isinstance(error, EnvironmentFault):
        return _FailedError(EnvFailure(error.kind), str(error))
    kind = EnvFailure.DIVERGED if isinstance(error, SimulationDiverged) else EnvFailure.RAISED
    return _FailedError(kind, described(error))


def in_thread(call: Callable[[], _T]) -> Future[_T]:
    """Start a call in a daemon thread, which does not keep the process from its end."""
    future: Future[_T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future
