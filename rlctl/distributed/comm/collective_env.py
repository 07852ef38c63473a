"""Environments that span several MPI ranks: what the first rank calls on its environment, the others call too.

The environment is made on every rank of the group with the same arguments and the group's communicator. Only the
first rank talks to the learner. It tells the others of each call before it makes it, with the same arguments; their
results are dropped. A rank that waits for the next call is asleep: the simulation has the cores.

Such an environment must raise on all of its ranks or on none. Where all do, the episode is lost as anywhere else, and
the environment is made anew on all of them. Where one does alone, the others may wait for it in a collective call for
ever: its exception ends the job.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import sys
import time
from collections.abc import Callable
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import gymnasium
import numpy as np

from rlctl.distributed.actor.env_guard import Environment
from rlctl.distributed.comm.messages import Bytes
from rlctl.distributed.comm.polling import LIMIT_S, Backoff
from rlctl.distributed.comm.transport import of_the_dead

if TYPE_CHECKING:
    from mpi4py.MPI import Intracomm, Request

log = logging.getLogger(__name__)

PATIENCE_S = 30.0
"""In which the first rank must have failed as well when another one has."""
Maker = Callable[["Intracomm"], Environment]
"""Makes an environment that spans the ranks of a communicator."""
_TAG = 301
_T = TypeVar("_T")


class Call(StrEnum):
    """What the first rank tells the others."""

    MAKE = "make"
    RESET = "reset"
    STEP = "step"
    CLOSE = "close"
    FAILED = "failed"
    """The call before raised an exception."""
    LEAVE = "leave"


class Leader:
    """The first rank of a group.

    Args:
        comm: of the group; making this is collective with ``follow`` on the other ranks.

    Attributes:
        comm: for the environments; calls are told over a copy of it.
    """

    def __init__(self, comm: Intracomm) -> None:
        self.comm = comm
        self._own = comm.Dup()
        self._pending: list[tuple[Request, Bytes]] = []

    def lead(self, maker: Maker, count: int = 1) -> list[Callable[[], Led]]:
        """Makers of environments that tell the others of what is called.

        Args:
            maker: gives an environment, if called with ``comm``.
            count: how many environments the group has.
        """

        def make(number: int) -> Led:
            return Led(self.together(lambda: maker(self.comm), Call.MAKE, number), self, number)

        return [partial(make, number) for number in range(count)]

    def together(self, action: Callable[[], _T], call: Call, number: int, *arguments: Any) -> _T:
        """Tell the others of a call, then make it by ``action``."""
        try:
            self._tell(call, number, *arguments)
            return action()
        except Exception as error:
            if of_the_dead(error):
                self._die()
            self._tell(Call.FAILED, number)
            raise

    def dismiss(self) -> None:
        """Nothing is called any more: the others leave ``follow``, if they have not died."""
        from mpi4py import MPI

        try:
            self._tell(Call.LEAVE, 0)
        except MPI.Exception as error:
            if not of_the_dead(error):
                raise

    def _tell(self, call: Call, number: int, *arguments: Any) -> None:
        from mpi4py import MPI

        data = np.frombuffer(pickle.dumps((call, number, arguments)), np.uint8)
        self._pending = [(request, sent) for request, sent in self._pending if not request.Test()]
        self._pending += [(self._own.Isend([data, MPI.BYTE], rank, _TAG), data) for rank in range(1, self._own.size)]

    def _die(self) -> NoReturn:
        """An actor that has lost ranks is lost; any other end looks as if it were still there."""
        log.warning("a rank of this actor's environment has died: the actor ends with it")
        self.comm.Revoke()
        sys.stdout.flush()
        sys.stderr.flush()
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


class Led(gymnasium.Wrapper[Any, Any, Any, Any]):
    """An environment on the first rank of its group; see ``Leader.lead``. ``render`` is called on this rank only."""

    def __init__(self, env: Environment, leader: Leader, number: int) -> None:
        super().__init__(env)
        self._leader, self._number, self._closed = leader, number, False

    def __reduce__(self) -> NoReturn:
        raise TypeError("an environment that spans several ranks cannot be pickled on one of them")

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode on all ranks."""
        return self._together(lambda: self.env.reset(seed=seed, options=options), Call.RESET, seed, options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Make a step on all ranks."""
        return self._together(lambda: self.env.step(action), Call.STEP, action)

    def close(self) -> None:
        """Close the environment on all ranks; once."""
        if not self._closed:
            self._closed = True
            self._together(self.env.close, Call.CLOSE)

    def _together(self, action: Callable[[], _T], call: Call, *arguments: Any) -> _T:
        return self._leader.together(action, call, self._number, *arguments)


def follow(maker: Maker, comm: Intracomm, limit_s: float = LIMIT_S, patience_s: float = PATIENCE_S) -> None:
    """Call on this rank's environments what the first rank calls, until that says leave or is dead.

    Args:
        maker: as the first rank's.
        comm: of the group; collective with ``Leader``.
        limit_s: the longest nap of a wait.
        patience_s: see ``PATIENCE_S``.

    Raises:
        Exception: what an environment raised on this rank and not on the first one.
    """

    own = comm.Dup()
    envs: dict[int, Environment] = {}
    failed: Exception | None = None
    try:
        while True:
            told = _next_call(own, limit_s, None if failed is None else patience_s)
            if failed is not None and (told is None or told[0] is not Call.FAILED):
                raise failed
            assert told is not None
            call, number, arguments = told
            failed = None
            if call is Call.LEAVE:
                return
            try:
                _obey(call, number, arguments, envs, partial(maker, comm))
            except Exception as error:
                if of_the_dead(error):
                    raise
                failed = error
    except Exception as error:
        if not of_the_dead(error):
            raise
        log.warning("another rank of this environment has died: this one leaves")
        comm.Revoke()


def _next_call(comm: Intracomm, limit_s: float, until_s: float | None) -> tuple[Call, int, tuple[Any, ...]] | None:
    """Wait asleep; None: nothing came in ``until_s`` seconds."""
    from mpi4py import MPI

    status, backoff = MPI.Status(), Backoff(limit_s)
    end_s = None if until_s is None else time.monotonic() + until_s
    while (message := comm.Improbe(0, _TAG, status)) is None:
        if end_s is not None and time.monotonic() >= end_s:
            return None
        backoff.nap()
    data = np.empty(status.Get_count(MPI.BYTE), np.uint8)
    message.Recv([data, MPI.BYTE])
    told: tuple[Call, int, tuple[Any, ...]] = pickle.loads(data.tobytes())
    return told


def _obey(
    call: Call,
    number: int,
    arguments: tuple[Any, ...],
    envs: dict[int, Environment],
    maker: Callable[[], Environment],
) -> None:
    match call:
        case Call.MAKE:
            envs[number] = maker()
        case Call.RESET:
            envs[number].reset(seed=arguments[0], options=arguments[1])
        case Call.STEP:
            envs[number].step(arguments[0])
        case Call.CLOSE:
            envs.pop(number).close()
