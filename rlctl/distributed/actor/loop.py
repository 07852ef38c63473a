"""An actor: environments, a copy of the policy, and a learner to send chunks of steps to.

It never waits for another actor, and for its learner only when the chunk before the last one has not been taken yet.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rlctl.bundle.spaces import describe
from rlctl.distributed.actor.env_guard import BrokenEnvironmentError
from rlctl.distributed.actor.numpy_policies import ActorPolicy, actor_policy
from rlctl.distributed.comm.chunk import Recorder
from rlctl.distributed.comm.heartbeat import Attendant, Lease
from rlctl.distributed.comm.messages import Kind, Message, Peer, Transport
from rlctl.distributed.comm.polling import Backoff
from rlctl.distributed.comm.transition_spec import Worlds
from rlctl.distributed.comm.wire import Greeting, Weights, Welcome, decode_ack

PATIENCE_S = 2.0
"""In which an actor that is to leave does so by itself; then its step is interrupted."""


class LeaveError(Exception):
    """The actor's part is over: it was told to stop, or its learner is gone."""


@dataclass(frozen=True, slots=True)
class Cut:
    """When a chunk is complete; see ``rlctl.config.schema.DistributedSection``."""

    steps: int = 64
    seconds: float = 10.0
    episode: bool = False


class Actor:
    """One actor; ``run`` is its life.

    Args:
        number: of the actor, among the agent's.
        learner: where it sends to.
        cut: when to send.
        lease_s: a learner that is silent for so long is gone.
        entropy: of the randomness of its actions.
        interrupt: called from another thread to get the main thread out of a step; None: nothing does.
        newer: looks for a newer policy than the last one in the learner's memory; None: policies are sent.
    """

    def __init__(
        self,
        number: int,
        worlds: Worlds,
        transport: Transport,
        learner: Peer,
        cut: Cut,
        lease_s: float,
        entropy: list[int],
        interrupt: Callable[[], None] | None = None,
        newer: Callable[[], Weights | None] | None = None,
    ) -> None:
        self.number, self.worlds, self.learner, self.cut = number, worlds, learner, cut
        self.stopped = False
        self.reason = ""
        self._transport, self._entropy, self._interrupt, self._newer = transport, entropy, interrupt, newer
        self._lease = Lease(lease_s)
        self._inbox: deque[Message] = deque()
        self._draining = threading.Lock()
        self._policy: ActorPolicy | None = None
        self._welcome: Welcome | None = None
        self._weights: Weights | None = None
        self._acknowledged = -1
        self._leaving_s: float | None = None
        self._recorder: Recorder | None = None

    def run(self) -> None:
        """Greet the learner, then play until it says stop or is gone; the environments are closed then."""
        worlds = self.worlds
        where = f"{socket.gethostname()}, process {os.getpid()}"
        spaces = describe(worlds.observation_space, worlds.action_space)
        greeting = Greeting(self.number, worlds.count, worlds.layout, spaces, where)
        self._transport.send(self.learner, Kind.HELLO, greeting.encode())
        why = ""
        with Attendant(self._attend, self._lease.lease_s):
            try:
                self._play()
            except LeaveError:
                pass
            except BrokenEnvironmentError as error:
                why = str(error)
            except KeyboardInterrupt:
                if self._leaving_s is None:
                    raise
            finally:
                worlds.close()
        if self.stopped or why:  # a learner that was silent for too long, and is back, has lost this one
            self._transport.send(self.learner, Kind.BYE, np.frombuffer(why.encode(), np.uint8))

    def listen(self) -> None:
        """Take in what the learner has said; for those who wait for something else, too.

        Raises:
            LeaveError: it was "stop", or it has been silent for too long.
        """
        self._drain()
        while self._inbox:
            self._hear(self._inbox.popleft())
        if self._leaving_s is not None:
            raise LeaveError(self.reason)

    def _play(self) -> None:
        backoff = Backoff()
        while self._welcome is None or self._weights is None:
            backoff.nap()
            self.listen()
        policy, worlds = actor_policy(self._welcome.spec), self.worlds
        recorder = Recorder(worlds.layout, self.number, worlds.count, self.cut.steps, policy.state_length)
        recorder.number = self._welcome.number
        self._recorder, self._acknowledged = recorder, recorder.number - 1
        random = np.random.default_rng(np.random.SeedSequence([*self._entropy, recorder.number]))
        if self._welcome.episodes:
            worlds.episodes[:] = self._welcome.episodes
        rows, state = worlds.begin(), policy.begin(worlds.count)
        self._policy = policy
        policy.load(self._weights.flat)
        recorder.begin(state)
        began_s, busy_s = time.monotonic(), 0.0
        while True:
            self.listen()
            if self._newer is not None and (found := self._newer()) is not None:
                self._take_up(found)
            weights = self._weights
            answer = policy.act(rows, state, random, weights.exploration, weights.at_random)
            stepped_s = time.monotonic()
            step = worlds.step(answer.actions)
            now_s = time.monotonic()
            busy_s += now_s - stepped_s
            recorder.add(rows, answer.stored, answer.log_probs, step, weights.version)
            rows, state = step.rows, answer.state
            for ended in step.ended:
                state[ended.environment] = 0.0
            if (
                recorder.steps >= self.cut.steps
                or now_s - began_s >= self.cut.seconds
                or (self.cut.episode and step.ended)
            ):
                backoff.reset()
                while self._acknowledged < recorder.number - 1:
                    backoff.nap()
                    self.listen()
                now_s = time.monotonic()
                chunk = recorder.encode(rows, worlds.failures, now_s - began_s, busy_s)
                self._transport.send(self.learner, Kind.CHUNK, chunk)
                recorder.begin(state)
                began_s, busy_s = now_s, 0.0

    def _hear(self, message: Message) -> None:
        match message.kind:
            case Kind.WELCOME:
                self._welcome = Welcome.decode(message.data)
            case Kind.WEIGHTS:
                self._take_up(Weights.decode(message.data))
            case Kind.ACK:
                self._acknowledged = decode_ack(message.data)
            case _:
                pass  # a sign of life

    def _take_up(self, weights: Weights) -> None:
        self._weights = weights
        if self._policy is not None:
            self._policy.load(weights.flat)

    def _drain(self) -> None:
        # Both threads do this; what they take must stay in order.
        with self._draining:
            for message in self._transport.poll():
                self._lease.heard(time.monotonic())
                if message.kind is Kind.STOP:
                    self._leave("the learner says stop")
                    self.stopped = True
                else:
                    self._inbox.append(message)
            if self.learner in self._transport.lost():
                self._leave("the learner has died")

    def _leave(self, reason: str) -> None:
        if self._leaving_s is None:
            self._leaving_s, self.reason = time.monotonic(), reason

    def _attend(self) -> None:
        self._transport.send(self.learner, Kind.BEAT)
        self._drain()
        now_s = time.monotonic()
        if self._lease.expired(now_s):
            self._leave(f"the learner was silent for {self._lease.silent_s(now_s):.0f} s")
        if self._leaving_s is not None and now_s - self._leaving_s > PATIENCE_S and self._interrupt is not None:
            self._interrupt()
