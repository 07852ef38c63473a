"""Environments on other ranks that step together: the learner decides for all of them and waits for the slowest.

This mode is reproducible, and the slower one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rlctl.bundle.spaces import Spaces, build, describe
from rlctl.core.errors import RanksLostError
from rlctl.distributed.comm.chunk import decode_step, encode_step
from rlctl.distributed.comm.codec import ActorHello, Bytes, decode, encode
from rlctl.distributed.comm.polling import LIMIT_S, receive, wait
from rlctl.distributed.comm.transition_spec import EpisodeEnd, Float32, Step, VectorEnvironment
from rlctl.distributed.comm.transport import rank_died

if TYPE_CHECKING:
    from mpi4py.MPI import Comm

_REQUEST, _REPLY = 201, 202


class LockstepConnection:
    """One end of the connection between a learner and a worker, which sleeps while it waits.

    Args:
        peer: rank of the other end in ``comm``.
        asks: whether this is the learner's end.
    """

    def __init__(self, comm: Comm, peer: int, asks: bool, limit_s: float = LIMIT_S) -> None:
        self.peer = peer
        self._comm, self._limit_s = comm, limit_s
        self._out, self._in = (_REQUEST, _REPLY) if asks else (_REPLY, _REQUEST)

    def send(self, data: Bytes) -> None:
        """Send a message, and wait until it has left.

        Raises:
            RanksLostError: the peer is dead.
        """
        from mpi4py import MPI

        try:
            wait(self._comm.Isend([data, MPI.BYTE], self.peer, self._out), self._limit_s)
        except MPI.Exception as error:
            raise self._lost(error) from error

    def receive(self) -> Bytes:
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
        return data

    def _lost(self, error: Exception) -> Exception:
        if not rank_died(error):
            return error
        return RanksLostError(f"rank {self.peer} is dead, which lock-step cannot do without: go on with --resume")


def serve_steps(comm: Comm, envs: VectorEnvironment, learner: int, limit_s: float = LIMIT_S) -> None:
    """Step environments for the learner until it closes them, or is dead."""
    line = LockstepConnection(comm, learner, asks=False, limit_s=limit_s)
    while True:
        try:
            request, arrays = decode(line.receive())
        except RanksLostError:
            return
        match request:
            case "step":
                reply = encode_step(envs.transition_spec, envs.step(arrays["actions"]))
            case "reset":
                reply = encode(observations=envs.reset())
            case "hello":
                spaces = describe(envs.observation_space, envs.action_space)
                reply = ActorHello(comm.rank, envs.count, envs.transition_spec, spaces).encode()
            case "save":
                state = envs.save()
                note = {"episodes": list(envs.episodes), "failures": dict(envs.failures)}
                reply = encode(note, **({} if state is None else {"state": np.frombuffer(state, np.uint8)}))
            case {"episodes": episodes}:
                observations = envs.restore(arrays["state"].tobytes()) if "state" in arrays else None
                if "state" not in arrays:
                    envs.episodes[:] = episodes
                reply = encode(**({} if observations is None else {"observations": observations}))
            case _:
                envs.close()
                line.send(encode())
                return
        line.send(reply)


class LockstepVectorEnv:
    """The environments of several workers; see ``rlctl.distributed.comm.transition_spec.VectorEnvironment``.

    Args:
        workers: their ranks in ``comm``; the order is that of the environments.
    """

    def __init__(self, comm: Comm, workers: Sequence[int], limit_s: float = LIMIT_S) -> None:
        self._lines = [LockstepConnection(comm, worker, asks=True, limit_s=limit_s) for worker in workers]
        hellos = [ActorHello.decode(data) for data in self._ask_all("hello")]
        spaces = Spaces.model_validate(hellos[0].spaces)
        self.transition_spec = hellos[0].transition_spec
        self.observation_space, self.action_space = build(spaces.observation), build(spaces.action)
        self._first = np.cumsum([0, *(hello.count for hello in hellos)]).tolist()
        self.count = self._first[-1]
        self.failures: Mapping[str, int] = {}
        self.episodes = [0] * self.count

    def reset(self) -> Float32:
        """Begin an episode in each; observations [n, width]."""
        observations: Float32 = np.concatenate([decode(data)[1]["observations"] for data in self._ask_all("reset")])
        return observations

    def step(self, actions: NDArray[Any]) -> Step:
        """Apply an action in each."""
        actions = np.ascontiguousarray(actions, np.float32)
        for line, a, b in zip(self._lines, self._first, self._first[1:], strict=False):
            line.send(encode("step", actions=actions[a:b].reshape(b - a, -1)))
        steps = [decode_step(line.receive(), self.transition_spec) for line in self._lines]
        ends = [
            EpisodeEnd(first + e.environment, e.observation, e.episode_return, e.length, e.metrics)
            for first, step in zip(self._first, steps, strict=False)
            for e in step.episode_ends
        ]
        return Step(
            np.concatenate([step.observations for step in steps]),
            np.concatenate([step.rewards for step in steps]),
            np.concatenate([step.durations for step in steps]),
            np.concatenate([step.terminated for step in steps]),
            np.concatenate([step.truncated for step in steps]),
            ends,
            [task for step in steps for task in step.tasks],
        )

    def save(self) -> bytes:
        """States of the workers' environments, and numbers of the episodes of those that cannot be saved."""
        replies = [decode(data) for data in self._ask_all("save")]
        self.failures = sum((Counter(note["failures"]) for note, _ in replies), Counter())
        states = {str(i): arrays["state"] for i, (_, arrays) in enumerate(replies) if "state" in arrays}
        return encode([note["episodes"] for note, _ in replies], **states).tobytes()

    def restore(self, state: bytes) -> Float32 | None:
        """Continue from ``save``; observations, or None where some environment could not be saved.

        Raises:
            RanksLostError: there are not as many workers as there were.
        """
        episodes, states = decode(np.frombuffer(state, np.uint8))
        if len(episodes) != len(self._lines):
            raise RanksLostError(f"{len(episodes)} actors were saved, and now there are {len(self._lines)}")
        for i, (line, numbers) in enumerate(zip(self._lines, episodes, strict=True)):
            line.send(encode({"episodes": numbers}, **({"state": states[str(i)]} if str(i) in states else {})))
        replies = [decode(line.receive())[1] for line in self._lines]
        if not all("observations" in arrays for arrays in replies):
            return None
        return np.concatenate([arrays["observations"] for arrays in replies])

    def close(self) -> None:
        """Let the workers close their environments and leave."""
        for line in self._lines:
            try:
                line.send(encode("close"))
                line.receive()
            except RanksLostError:
                continue
        self._lines = []

    def _ask_all(self, request: str) -> list[Bytes]:
        for line in self._lines:
            line.send(encode(request))
        return [line.receive() for line in self._lines]
