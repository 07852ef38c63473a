"""Environments that span several MPI ranks: calls on the first rank are repeated on the others.

The environment is made on every rank of the group with the same arguments and the group's communicator. Only the
first rank talks to the learner. It announces each call to the others before it makes it, with the same arguments; their
results are dropped. Ranks sleep while they wait for the next call, so the simulation has the cores.

Such an environment must raise on all of its ranks or on none. Where all do, the episode is lost as anywhere else, and
the environment is made anew on all of them. Where one does alone, the others may wait for it in a collective call
without end: its exception ends the job.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from operator import methodcaller
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import gymnasium

from rlctl.distributed.comm.codec import Bytes, decode, encode
from rlctl.distributed.comm.polling import LIMIT_S, receive
from rlctl.distributed.comm.transport import rank_died

if TYPE_CHECKING:
    from mpi4py.MPI import Intracomm, Request

log = logging.getLogger(__name__)

Environment = gymnasium.Env[Any, Any]
Maker = Callable[["Intracomm"], Environment]
"""Makes an environment that spans the ranks of a communicator."""
PATIENCE_S = 30.0
"""Within which the first rank must have failed as well when another one has."""
_TAG = 301
_FAILED, _LEAVE = "failed", "leave"
_T = TypeVar("_T")


class CollectiveGroup:
    """The first rank's side of a group, which announces calls over a copy of its communicator."""

    def __init__(self, comm: Intracomm) -> None:
        self.comm = comm
        self._own = comm.Dup()
        self._pending: list[tuple[Request, Bytes]] = []

    def makers(self, maker: Maker, count: int = 1) -> list[Callable[[], CollectiveEnv]]:
        """Makers of ``count`` environments whose calls are repeated on all ranks; ``maker`` is called with ``comm``."""

        def make(number: int) -> CollectiveEnv:
            return CollectiveEnv(self.call("make", number, partial(maker, self.comm)), self, number)

        return [partial(make, number) for number in range(count)]

    def call(self, name: str, number: int, function: Callable[..., _T], *args: Any, **kwargs: Any) -> _T:
        """Announce a call on environment ``number``, then make it."""
        try:
            self._announce(name, number, args, kwargs)
            return function(*args, **kwargs)
        except Exception as error:
            if rank_died(error):
                self._die()
            self._announce(_FAILED, number)
            raise

    def dismiss(self) -> None:
        """Let the other ranks return from ``follow_calls``, if they have not died."""
        from mpi4py import MPI

        try:
            self._announce(_LEAVE, 0)
        except MPI.Exception as error:
            if not rank_died(error):
                raise

    def _announce(self, name: str, number: int, args: Any = (), kwargs: Any = None) -> None:
        from mpi4py import MPI

        data = encode((name, number, args, kwargs))
        self._pending = [(request, sent) for request, sent in self._pending if not request.Test()]
        self._pending += [(self._own.Isend([data, MPI.BYTE], rank, _TAG), data) for rank in range(1, self._own.size)]

    def _die(self) -> NoReturn:
        """End this rank: an actor without its other ranks is lost, and an orderly end would look as if it lived."""
        log.warning("a rank of this actor's environment has died: the actor ends with it")
        self.comm.Revoke()
        sys.stdout.flush()
        sys.stderr.flush()
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


class CollectiveEnv(gymnasium.Wrapper[Any, Any, Any, Any]):
    """An environment on the first rank of its group. ``render`` is called on this rank only."""

    def __init__(self, env: Environment, group: CollectiveGroup, number: int) -> None:
        super().__init__(env)
        self._group, self._number, self._closed = group, number, False

    def __reduce__(self) -> NoReturn:
        raise TypeError("an environment that spans several ranks cannot be pickled on one of them")

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode on all ranks."""
        return self._group.call("reset", self._number, self.env.reset, seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Make a step on all ranks."""
        return self._group.call("step", self._number, self.env.step, action)

    def close(self) -> None:
        """Close the environment on all ranks; once."""
        if not self._closed:
            self._closed = True
            self._group.call("close", self._number, self.env.close)


def follow_calls(maker: Maker, comm: Intracomm, limit_s: float = LIMIT_S, patience_s: float = PATIENCE_S) -> None:
    """Repeat the first rank's calls on this rank's environments, until it dismisses the group or is dead.

    Making a ``CollectiveGroup`` on the first rank is collective with this.

    Raises:
        Exception: raised by an environment on this rank and not on the first one.
    """
    own = comm.Dup()
    envs: dict[int, Environment] = {}
    failed: Exception | None = None
    try:
        while True:
            data = receive(own, 0, _TAG, limit_s, None if failed is None else patience_s)
            name, number, args, kwargs = ("", 0, (), {}) if data is None else decode(data)
            if failed is not None and name != _FAILED:
                raise failed
            failed = None
            if name == _LEAVE:
                return
            try:
                if name == "make":
                    envs[number] = maker(comm)
                elif name != _FAILED:
                    methodcaller(name, *args, **kwargs)(envs[number])
            except Exception as error:
                if rank_died(error):
                    raise
                failed = error
    except Exception as error:
        if not rank_died(error):
            raise
        log.warning("another rank of this environment has died: this one leaves")
        comm.Revoke()
