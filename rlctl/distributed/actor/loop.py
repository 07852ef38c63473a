"""The actor loop: step environments with a copy of the policy, and send chunks of transitions to the learner.

An actor never waits for another actor, and for its learner only while the chunk before the last one is unacknowledged.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rlctl.distributed.actor.env_guard import BrokenEnvironmentError
from rlctl.distributed.actor.numpy_policies import ActorPolicy
from rlctl.distributed.comm.chunk import ChunkRecorder
from rlctl.distributed.comm.codec import ActorHello, PolicyWeights, Welcome, decode, encode
from rlctl.distributed.comm.heartbeat import Heartbeat
from rlctl.distributed.comm.polling import Backoff
from rlctl.distributed.comm.transition_spec import VectorEnvironment
from rlctl.distributed.comm.transport import Message, MessageKind, Peer, Transport

PATIENCE_S = 2.0
"""Time for an actor that must leave to finish its step; then the step is interrupted."""

LOOK_S = 1e-3
"""Time between two looks for messages: Open MPI may yield the core at each, to one of many actors that share it."""


class LeaveError(Exception):
    """The actor must leave: it was told to stop, or its learner is gone."""


@dataclass(frozen=True, slots=True)
class ChunkLimits:
    """When a chunk is complete; see ``rlctl.config.schema.DistributedSection``."""

    steps: int = 64
    seconds: float = 10.0
    episode: bool = False


class Actor:
    """One actor; ``run`` returns when it must leave.

    Args:
        lease_s: a learner from which nothing was received for so long is gone.
        entropy: seeds the randomness of its actions.
        interrupt: called from another thread to get the main thread out of a step; None: steps are not interrupted.
        newer: looks for a newer policy in the learner's memory; None: policies are sent.
    """

    def __init__(
        self,
        number: int,
        envs: VectorEnvironment,
        transport: Transport,
        learner: Peer,
        limits: ChunkLimits,
        lease_s: float,
        entropy: list[int],
        interrupt: Callable[[], None] | None = None,
        newer: Callable[[], PolicyWeights | None] | None = None,
    ) -> None:
        self.number, self.envs, self.learner, self.limits = number, envs, learner, limits
        self.stopped = False
        self.reason = ""
        self._transport, self._entropy, self._interrupt, self._newer = transport, entropy, interrupt, newer
        self._lease_s, self._received_s = lease_s, time.monotonic()
        self._inbox: deque[Message] = deque()
        self._draining = threading.Lock()
        self._policy: ActorPolicy | None = None
        self._welcome: Welcome | None = None
        self._weights: PolicyWeights | None = None
        self._acknowledged = -1
        self._leaving_s: float | None = None

    def run(self) -> None:
        """Greet the learner, then step until it says stop or is gone; the environments are closed then."""
        envs = self.envs
        spaces = (envs.observation_space, envs.action_space)
        hello = ActorHello(self.number, envs.count, envs.transition_spec, spaces)
        self._transport.send(self.learner, MessageKind.HELLO, encode(hello))
        why = ""
        with Heartbeat(self._beat, self._lease_s):
            try:
                self._act()
            except LeaveError:
                pass
            except BrokenEnvironmentError as error:
                why = str(error)
            except KeyboardInterrupt:
                if self._leaving_s is None:
                    raise
            finally:
                envs.close()
        if self.stopped or why:  # a learner that was silent for too long, and is back, has lost this one
            self._transport.send(self.learner, MessageKind.BYE, encode(why))

    def process_messages(self) -> None:
        """Process the learner's messages.

        Raises:
            LeaveError: the learner said stop, or its lease has expired.
        """
        self._drain()
        while self._inbox:
            self._on_message(self._inbox.popleft())
        if self._leaving_s is not None:
            raise LeaveError(self.reason)

    def _act(self) -> None:
        backoff = Backoff()
        while self._welcome is None or self._weights is None:
            backoff.nap()
            self.process_messages()
        envs, limits = self.envs, self.limits
        policy = ActorPolicy(self._welcome.policy_spec, envs.transition_spec, envs.action_space)
        recorder = ChunkRecorder(envs.transition_spec, self.number, envs.count, limits.steps, policy.state_size)
        recorder.number = self._welcome.number
        self._acknowledged = recorder.number - 1
        random = np.random.default_rng(np.random.SeedSequence([*self._entropy, recorder.number]))
        if self._welcome.episodes:
            envs.episodes[:] = self._welcome.episodes
        observations, state = envs.reset(), policy.initial_state(envs.count)
        self._policy = policy
        policy.load(self._weights.flat)
        recorder.start(state)
        began_s, busy_s = time.monotonic(), 0.0
        now_s = looked_s = began_s
        while True:
            if now_s - looked_s >= LOOK_S:
                looked_s = now_s
                self.process_messages()
                if self._newer is not None and (found := self._newer()) is not None:
                    self._use(found)
            weights = self._weights
            output = policy.act(observations, state, random, weights.exploration, weights.at_random)
            stepped_s = time.monotonic()
            step = envs.step(output.actions)
            now_s = time.monotonic()
            busy_s += now_s - stepped_s
            recorder.add(observations, output.buffer_actions, output.log_probs, step, weights.version)
            observations, state = step.observations, output.state
            for end in step.episode_ends:
                state[end.environment] = 0.0
            if (
                recorder.steps >= limits.steps
                or now_s - began_s >= limits.seconds
                or (limits.episode and step.episode_ends)
            ):
                self.process_messages()
                backoff.reset()
                while self._acknowledged < recorder.number - 1:
                    backoff.nap()
                    self.process_messages()
                now_s = time.monotonic()
                chunk = recorder.encode(observations, envs.failures, now_s - began_s, busy_s)
                self._transport.send(self.learner, MessageKind.CHUNK, chunk)
                recorder.start(state)
                began_s, busy_s = now_s, 0.0

    def _on_message(self, message: Message) -> None:
        match message.kind:
            case MessageKind.WELCOME:
                self._welcome = decode(message.data)
            case MessageKind.WEIGHTS:
                self._use(decode(message.data))
            case MessageKind.ACK:
                self._acknowledged = decode(message.data)
            case _:
                pass  # a beat

    def _use(self, weights: PolicyWeights) -> None:
        self._weights = weights
        if self._policy is not None:
            self._policy.load(weights.flat)

    def _drain(self) -> None:
        # Both threads do this; what they take must stay in order.
        with self._draining:
            for message in self._transport.poll():
                self._received_s = time.monotonic()
                if message.kind is MessageKind.STOP:
                    self._leave("the learner says stop")
                    self.stopped = True
                else:
                    self._inbox.append(message)
            if self.learner in self._transport.lost():
                self._leave("the learner has died")

    def _leave(self, reason: str) -> None:
        if self._leaving_s is None:
            self._leaving_s, self.reason = time.monotonic(), reason

    def _beat(self) -> None:
        self._transport.send(self.learner, MessageKind.BEAT)
        self._drain()
        now_s = time.monotonic()
        if now_s - self._received_s > self._lease_s:
            self._leave(f"the learner was silent for {now_s - self._received_s:.0f} s")
        if self._leaving_s is not None and now_s - self._leaving_s > PATIENCE_S and self._interrupt is not None:
            self._interrupt()
