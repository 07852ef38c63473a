"""Environments on other ranks that step together: the learner decides for all of them and waits for the last one.

It is the deterministic way, and the slow one: a step of all takes as long as the longest of them.
"""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rlctl.core.errors import RanksLostError
from rlctl.distributed.comm.messages import Bytes
from rlctl.distributed.comm.polling import LIMIT_S, Backoff
from rlctl.distributed.comm.transition_spec import Ended, Float32, Layout, Step, Worlds
from rlctl.distributed.comm.transport import of_the_dead

if TYPE_CHECKING:
    from mpi4py.MPI import Comm

_ASK, _ANSWER = 201, 202


class WorkersLostError(RanksLostError):
    """A rank that held environments is gone."""


class Line:
    """One end of the conversation between a learner and a worker: pickled objects and arrays, waited for asleep.

    Args:
        peer: the rank of the other one in ``comm``.
        asks: this is the learner's end.
    """

    def __init__(self, comm: Comm, peer: int, asks: bool, limit_s: float = LIMIT_S) -> None:
        self.peer = peer
        self._comm, self._limit_s = comm, limit_s
        self._out, self._in = (_ASK, _ANSWER) if asks else (_ANSWER, _ASK)

    def send(self, data: Bytes) -> None:
        """Send bytes, and wait, asleep, until they have left.

        Raises:
            WorkersLostError: the other one is dead.
        """
        from mpi4py import MPI

        try:
            request = self._comm.Isend([data, MPI.BYTE], self.peer, self._out)
            backoff = Backoff(self._limit_s)
            while not request.Test():
                backoff.nap()
        except MPI.Exception as error:
            raise self._lost(error) from error

    def receive(self) -> Bytes:
        """Wait, asleep, for bytes.

        Raises:
            WorkersLostError: the other one is dead.
        """
        from mpi4py import MPI

        status, backoff = MPI.Status(), Backoff(self._limit_s)
        try:
            while (message := self._comm.Improbe(self.peer, self._in, status)) is None:
                backoff.nap()
            data: Bytes = np.empty(status.Get_count(MPI.BYTE), np.uint8)
            message.Recv([data, MPI.BYTE])
        except MPI.Exception as error:
            raise self._lost(error) from error
        return data

    def _lost(self, error: Any) -> BaseException:
        if not of_the_dead(error):
            return error  # type: ignore[no-any-return]
        return WorkersLostError(f"rank {self.peer} is dead, which lock-step cannot do without: go on with --resume")


def serve(comm: Comm, worlds: Worlds, learner: int, limit_s: float = LIMIT_S) -> None:
    """Be a worker until the learner says close, or is dead.

    Args:
        comm: with the learner.
        worlds: what is stepped.
    """
    line = Line(comm, learner, asks=False, limit_s=limit_s)
    about = (worlds.layout, worlds.count, worlds.observation_space, worlds.action_space)
    while True:
        try:
            name, data = _split(line.receive())
        except WorkersLostError:
            return
        match name:
            case "step":
                answer = _encode(worlds.step(data.view(np.float32).reshape(worlds.count, -1)))
            case "begin":
                answer = _pickled(worlds.begin())
            case "about":
                answer = _pickled(about)
            case "save":
                answer = _pickled((worlds.save(), list(worlds.episodes), dict(worlds.failures)))
            case "restore":
                state, episodes = pickle.loads(data.tobytes())
                if state is None:
                    worlds.episodes[:] = episodes
                answer = _pickled(None if state is None else worlds.restore(state))
            case _:
                worlds.close()
                line.send(_pickled(None))
                return
        line.send(answer)


class RemoteWorlds:
    """All environments of several workers; see ``rlctl.distributed.comm.transition_spec.Worlds``.

    Args:
        workers: their ranks in ``comm``; the order is that of the environments.
    """

    def __init__(self, comm: Comm, workers: Sequence[int], limit_s: float = LIMIT_S) -> None:
        self._lines = [Line(comm, worker, asks=True, limit_s=limit_s) for worker in workers]
        about = [pickle.loads(data.tobytes()) for data in self._all("about")]
        self.layout: Layout = about[0][0]
        self._counts = [count for _, count, _, _ in about]
        self._first = np.concatenate([[0], np.cumsum(self._counts)]).tolist()
        self.count = self._first[-1]
        self.observation_space, self.action_space = about[0][2:]
        self.failures: Mapping[str, int] = {}
        self.episodes = [0] * self.count

    def begin(self) -> Float32:
        """Begin an episode in each; rows, [n, row]."""
        rows: Float32 = np.concatenate([pickle.loads(data.tobytes()) for data in self._all("begin")])
        return rows

    def step(self, actions: NDArray[Any]) -> Step:
        """Answer the open decision of each."""
        sent = np.ascontiguousarray(actions, np.float32)
        for line, a, b in zip(self._lines, self._first, self._first[1:], strict=False):
            line.send(_joined("step", sent[a:b].reshape(-1).view(np.uint8)))
        steps = [_decode(line.receive(), self.layout, n) for line, n in zip(self._lines, self._counts, strict=True)]
        ended = []
        for first, step in zip(self._first, steps, strict=False):
            for one in step.ended:
                ended.append(Ended(first + one.environment, one.row, one.ret, one.length, one.figures))
        return Step(
            np.concatenate([step.rows for step in steps]),
            np.concatenate([step.rewards for step in steps]),
            np.concatenate([step.durations for step in steps]),
            np.concatenate([step.terminated for step in steps]),
            np.concatenate([step.truncated for step in steps]),
            ended,
            [task for step in steps for task in step.tasks],
        )

    def save(self) -> bytes:
        """What each worker can save, and where its environments are otherwise."""
        states = [pickle.loads(data.tobytes()) for data in self._all("save")]
        self.failures = sum((Counter(failures) for _, _, failures in states), Counter())
        return pickle.dumps([(state, episodes) for state, episodes, _ in states])

    def restore(self, state: bytes) -> Float32 | None:
        """Go on where ``save`` was called; rows, or None where some environment could not be saved.

        Raises:
            WorkersLostError: there are not as many workers as there were.
        """
        states = pickle.loads(state)
        if len(states) != len(self._lines):
            raise WorkersLostError(f"{len(states)} actors were saved, and now there are {len(self._lines)}")
        for line, one in zip(self._lines, states, strict=True):
            line.send(_joined("restore", np.frombuffer(pickle.dumps(one), np.uint8)))
        rows = [pickle.loads(line.receive().tobytes()) for line in self._lines]
        return None if any(row is None for row in rows) else np.concatenate(rows)

    def close(self) -> None:
        """The workers close their environments and leave."""
        for line in self._lines:
            try:
                line.send(_joined("close"))
                line.receive()
            except WorkersLostError:
                continue
        self._lines = []

    def _all(self, name: str) -> list[Bytes]:
        for line in self._lines:
            line.send(_joined(name))
        return [line.receive() for line in self._lines]


def _joined(name: str, data: Bytes | None = None) -> Bytes:
    head = np.frombuffer(name.encode().ljust(8), np.uint8)
    return head if data is None else np.concatenate([head, data])


def _split(message: Bytes) -> tuple[str, Bytes]:
    return message[:8].tobytes().decode().strip(), message[8:]


def _pickled(thing: Any) -> Bytes:
    return np.frombuffer(pickle.dumps(thing), np.uint8)


def _encode(step: Step) -> Bytes:
    floats = [step.rows.ravel(), step.rewards, step.durations]
    rest = pickle.dumps((list(step.ended), list(step.tasks))) if step.ended or step.tasks else b""
    parts = [np.concatenate(floats, dtype=np.float32).view(np.uint8), step.terminated.view(np.uint8)]
    return np.concatenate([*parts, step.truncated.view(np.uint8), np.frombuffer(rest, np.uint8)])


def _decode(data: Bytes, layout: Layout, count: int) -> Step:
    floats = count * (layout.row + 2)
    numbers = data[: 4 * floats].view(np.float32)
    rows, at = numbers[: count * layout.row].reshape(count, layout.row), count * layout.row
    flags = data[4 * floats : 4 * floats + 2 * count].view(np.bool_)
    rest = data[4 * floats + 2 * count :]
    ended, tasks = pickle.loads(rest.tobytes()) if len(rest) else ((), ())
    durations = numbers[at + count :]
    return Step(rows, numbers[at : at + count], durations, flags[:count], flags[count:], ended, tasks)
