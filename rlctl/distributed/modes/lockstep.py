"""Environments on other ranks that step together: the learner decides for all of them and waits for the slowest.

This mode is reproducible, and the slower one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rlctl.core.errors import RanksLostError
from rlctl.distributed.comm.codec import ActorHello, decode, encode
from rlctl.distributed.comm.polling import LIMIT_S, receive, wait
from rlctl.distributed.comm.transition_spec import Float32, Step, TransitionSpec, VectorEnvironment
from rlctl.distributed.comm.transport import rank_died

if TYPE_CHECKING:
    from mpi4py.MPI import Comm

_REQUEST, _REPLY = 201, 202


class LockstepConnection:
    """One end of the connection between a learner, which ``asks``, and a worker; it sleeps while it waits."""

    def __init__(self, comm: Comm, peer: int, asks: bool, limit_s: float = LIMIT_S) -> None:
        self.peer = peer
        self._comm, self._limit_s = comm, limit_s
        self._out, self._in = (_REQUEST, _REPLY) if asks else (_REPLY, _REQUEST)

    def send(self, message: Any) -> None:
        """Send a message, and wait until it has left.

        Raises:
            RanksLostError: the peer is dead.
        """
        from mpi4py import MPI

        data = encode(message)
        try:
            wait(self._comm.Isend([data, MPI.BYTE], self.peer, self._out), self._limit_s)
        except MPI.Exception as error:
            raise self._lost(error) from error

    def receive(self) -> Any:
        """Wait for a message.

        Raises:
            RanksLostError: the peer is dead.
        """
        from mpi4py import MPI

        try:
            data = receive(self._comm, self.peer, self._in, self._limit_s)
        except MPI.Exception as error:
            raise self._lost(error) from error
        assert data is not None
        return decode(data)

    def _lost(self, error: Exception) -> Exception:
        if not rank_died(error):
            return error
        return RanksLostError(f"rank {self.peer} is dead, which lock-step cannot do without: go on with --resume")


def serve_steps(comm: Comm, envs: VectorEnvironment, learner: int, limit_s: float = LIMIT_S) -> None:
    """Step environments for the learner until it closes them, or is dead."""
    line = LockstepConnection(comm, learner, asks=False, limit_s=limit_s)
    while True:
        try:
            request, argument = line.receive()
        except RanksLostError:
            return
        reply: Any = None
        match request:
            case "step":
                actions = np.frombuffer(argument, np.float32).reshape(envs.count, -1)
                reply = _packed(envs.step(actions.copy()))
            case "reset":
                reply = envs.reset()
            case "hello":
                spaces = (envs.observation_space, envs.action_space)
                reply = ActorHello(comm.rank, envs.count, envs.transition_spec, spaces)
            case "save":
                reply = list(envs.episodes), dict(envs.failures), envs.save()
            case "restore":
                episodes, state = argument
                if state is None:
                    envs.episodes[:] = episodes
                else:
                    reply = envs.restore(state)
            case "close":
                envs.close()
        line.send(reply)
        if request == "close":
            return


class LockstepVectorEnv:
    """The environments of several workers; see ``rlctl.distributed.comm.transition_spec.VectorEnvironment``.

    Args:
        workers: their ranks in ``comm``; the order is that of the environments.
    """

    def __init__(self, comm: Comm, workers: Sequence[int], limit_s: float = LIMIT_S) -> None:
        self._lines = [LockstepConnection(comm, worker, asks=True, limit_s=limit_s) for worker in workers]
        hellos: list[ActorHello] = self._ask_all("hello")
        self.transition_spec = hellos[0].transition_spec
        self.observation_space, self.action_space = hellos[0].spaces
        self._first = np.cumsum([0, *(hello.count for hello in hellos)]).tolist()
        self.count = self._first[-1]
        self.failures: Mapping[str, int] = {}
        self.episodes = [0] * self.count

    def reset(self) -> Float32:
        """Begin an episode in each; observations [n, width]."""
        observations: Float32 = np.concatenate(self._ask_all("reset"))
        return observations

    def step(self, actions: NDArray[Any]) -> Step:
        """Apply an action in each."""
        actions = np.ascontiguousarray(actions, np.float32)
        for line, a, b in zip(self._lines, self._first, self._first[1:], strict=False):
            line.send(("step", actions[a:b].tobytes()))
        steps = [_unpacked(line.receive(), self.transition_spec) for line in self._lines]
        ends = [
            e._replace(environment=first + e.environment)
            for first, step in zip(self._first, steps, strict=False)
            for e in step.episode_ends
        ]
        arrays = map(np.concatenate, zip(*(step[:5] for step in steps), strict=True))
        return Step._make([*arrays, ends, [task for step in steps for task in step.tasks]])

    def save(self) -> bytes:
        """States of the workers' environments, and numbers of the episodes of those that cannot be saved."""
        replies = self._ask_all("save")
        self.failures = sum((Counter(failures) for _, failures, _ in replies), Counter())
        return encode([(episodes, state) for episodes, _, state in replies]).tobytes()

    def restore(self, state: bytes) -> Float32 | None:
        """Continue from ``save``; observations, or None where some environment could not be saved.

        Raises:
            RanksLostError: there are not as many workers as there were.
        """
        saved = decode(np.frombuffer(state, np.uint8))
        if len(saved) != len(self._lines):
            raise RanksLostError(f"{len(saved)} actors were saved, and now there are {len(self._lines)}")
        for line, one in zip(self._lines, saved, strict=True):
            line.send(("restore", one))
        replies = [line.receive() for line in self._lines]
        return None if any(observations is None for observations in replies) else np.concatenate(replies)

    def close(self) -> None:
        """Let the workers close their environments and leave."""
        for line in self._lines:
            try:
                line.send(("close", None))
                line.receive()
            except RanksLostError:
                continue
        self._lines = []

    def _ask_all(self, request: str) -> list[Any]:
        for line in self._lines:
            line.send((request, None))
        return [line.receive() for line in self._lines]


def _packed(step: Step) -> tuple[Any, ...]:
    """A step with bytes for arrays, which would take several times as long to pickle."""
    return (*(array.tobytes() for array in step[:5]), step.episode_ends, step.tasks)


def _unpacked(packed: tuple[Any, ...], spec: TransitionSpec) -> Step:
    *data, ends, tasks = packed
    dtypes = (np.float32, np.float32, np.float32, np.bool_, np.bool_)
    arrays: list[NDArray[Any]] = [np.frombuffer(one, dtype) for one, dtype in zip(data, dtypes, strict=True)]
    return Step._make([arrays[0].reshape(-1, spec.width), *arrays[1:], ends, tasks])
