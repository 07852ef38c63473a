"""The learner's connection to its actors: receives, logs and acknowledges chunks, and distributes policies."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np

from rlctl.distributed.comm.chunk import Chunk, decode_chunk
from rlctl.distributed.comm.codec import ActorHello, Bytes, PolicyWeights, Welcome, decode, encode
from rlctl.distributed.comm.heartbeat import BEATS
from rlctl.distributed.comm.polling import Backoff
from rlctl.distributed.comm.transition_spec import Float32, TransitionSpec
from rlctl.distributed.comm.transport import Message, MessageKind, Peer, Transport
from rlctl.distributed.learner.actor_registry import ActorHandle, ActorRegistry
from rlctl.distributed.learner.chunk_log import ChunkLog


class Collector:
    """The connection of a learner with its actors: chunks in, policies out.

    Args:
        registry: the actors.
        lease_s: leases are checked several times in this.
        chunk_log: chunks are written to it before they are acknowledged; None: nowhere.
        window: puts a policy where actors read it by themselves; None: policies are sent.
        clock, sleep: replaced in tests and simulations of actors.

    Attributes:
        version: of the newest published policy; 0 before the first.
    """

    def __init__(
        self,
        transport: Transport,
        registry: ActorRegistry,
        lease_s: float,
        chunk_log: ChunkLog | None = None,
        window: Callable[[int, Bytes], bool] | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        self.registry, self.version = registry, 0
        self._transport, self._lease_s, self._log, self._window = transport, lease_s, chunk_log, window
        self._clock, self._sleep = clock, sleep
        self._transition_spec: TransitionSpec | None = None
        self._policy_spec: Mapping[str, Any] | None = None
        self._weights: Bytes | None = None
        self._backlog: deque[Chunk] = deque()
        self._restored: deque[Chunk] = deque()
        self._inbox: deque[Message] = deque()
        self._unknown: list[Message] = []
        self._draining = threading.Lock()
        self._checked_s = 0.0
        # Since the last call of ``metrics``: size, seconds in the environments and in all of each chunk.
        self._since_s, self._waited_s = clock(), 0.0
        self._taken: list[tuple[int, float, float]] = []

    @property
    def transition_spec(self) -> TransitionSpec:
        """Of observations and actions; known after ``wait_for_actor``."""
        assert self._transition_spec is not None
        return self._transition_spec

    def wait_for_actor(
        self, stop_requested: Callable[[], bool]
    ) -> tuple[gymnasium.Space[Any], gymnasium.Space[Any]] | None:
        """Wait for the first actor; observation and action space, or None when ``stop_requested``.

        Raises:
            RanksLostError: there is none any more.
        """
        backoff = Backoff(sleep=self._sleep)
        while not stop_requested():
            self._process_messages()
            for _, handle, _ in self.registry.present():
                if handle.hello is not None:
                    return handle.hello.spaces
            backoff.nap()
        return None

    def publish(
        self, policy_spec: Mapping[str, Any], weights: Float32, exploration: float = 0.0, at_random: bool = False
    ) -> None:
        """Publish a policy, which every actor uses as soon as it receives it.

        Args:
            policy_spec: meaning of the weights, see ``numpy_policies``; constant within a training.
            weights: flat; copied.
            exploration: a probability of a random action or a standard deviation, depending on the kind of policy.
            at_random: whether to act at random instead.
        """
        self.version += 1
        self._weights = encode(PolicyWeights(self.version, exploration, at_random, weights))
        if self._window is not None and not self._window(self.version, self._weights):
            self._window = None  # too large: it is sent
        if self._policy_spec is None:
            self._policy_spec = policy_spec
            for _, handle, peer in self.registry.present():
                if handle.hello is not None:
                    self._welcome(handle, peer)

    def next_batch(self, transitions: int, stop_requested: Callable[[], bool]) -> list[Chunk]:
        """Wait, asleep, for chunks of at least so many transitions together, in the order in which they came.

        Each is acknowledged: its actor may send the next one. Nothing is dropped for its age. Fewer come back when
        ``stop_requested``.

        Raises:
            RanksLostError: there is no actor any more, and none can be started.
        """
        taken: list[Chunk] = []
        count = 0
        backoff = Backoff(sleep=self._sleep)
        while True:
            self._process_messages()
            while count < transitions and (chunk := self._next()) is not None:
                taken.append(chunk)
                count += chunk.size
                backoff.reset()
            if count >= transitions or stop_requested():
                return taken
            began_s = self._clock()
            backoff.nap()
            self._waited_s += self._clock() - began_s

    def beat(self) -> None:
        """For the heartbeat's thread: renew the learner's lease at all actors, and receive what has arrived."""
        for _, _, peer in self.registry.present():
            self._transport.send(peer, MessageKind.BEAT)
        self._drain()

    def stop(self, patience_s: float = 10.0) -> list[int]:
        """Tell all actors to leave, and wait until they have; numbers of those that have not."""
        self.registry.stop_replacing()
        for _, _, peer in self.registry.present():
            self._transport.send(peer, MessageKind.STOP)
        backoff, until_s = Backoff(sleep=self._sleep), self._clock() + patience_s
        self._backlog.clear()
        while (left := [number for number, _, _ in self.registry.present()]) and self._clock() < until_s:
            backoff.nap()
            self._process_messages(require_actors=False)
        return left

    def metrics(self) -> dict[str, float]:
        """Since the last call, for TensorBoard; see ``rlctl.monitoring.tags``."""
        now_s, taken = self._clock(), self._taken
        metrics = self.registry.metrics()
        metrics["distributed/learner_idle"] = self._waited_s / max(now_s - self._since_s, 1e-9)
        self._since_s, self._waited_s, self._taken = now_s, 0.0, []
        if taken:
            size, busy_s, elapsed_s = np.mean(taken, axis=0).tolist()
            metrics["distributed/chunk_transitions"] = size
            if elapsed_s > 0.0:
                metrics["distributed/actor_busy"] = busy_s / elapsed_s
        return metrics

    def state(self) -> dict[str, Any]:
        """For a checkpoint: progress of each actor, and the segment of the log that follows; JSON-ready."""
        segment = None
        if self._log is not None:
            segment = self._log.begin_segment(chunk.encode() for chunk in [*self._restored, *self._backlog])
        actors = {str(number): handle.state() for number, handle in self.registry.handles.items()}
        return {"version": self.version, "segment": segment, "actors": actors}

    def saved(self, state: Mapping[str, Any]) -> None:
        """Remove what the complete checkpoint with ``state`` makes superfluous."""
        if self._log is not None and state["segment"] is not None:
            self._log.forget_before(state["segment"])

    def restore(self, state: Mapping[str, Any], transition_spec: TransitionSpec) -> int:
        """Continue from a checkpoint; the number of logged chunks that came after it, to be learned from again."""
        self.version = state["version"]
        for number, saved in state["actors"].items():
            handle = self.registry.handles.get(int(number))
            if handle is not None:  # there may be fewer actors now
                handle.restore(saved)
        if self._log is not None and state["segment"] is not None:
            for data in self._log.read_from(state["segment"]):
                chunk = decode_chunk(data, transition_spec)
                handle = self.registry.handles.get(chunk.actor)
                if handle is not None and chunk.number >= handle.number:
                    handle.update(chunk)
                self._restored.append(chunk)
        return len(self._restored)

    def _next(self) -> Chunk | None:
        """The next chunk to learn from, acknowledged."""
        if self._restored:
            chunk = self._restored.popleft()
        elif self._backlog:
            chunk = self._backlog.popleft()
            self._acknowledge(chunk)
        else:
            return None
        self._taken.append((chunk.size, chunk.busy_s, chunk.elapsed_s))
        return chunk

    def _drain(self) -> None:
        # The heartbeat's thread does this, too; what both take must stay in order.
        with self._draining:
            self._inbox.extend(self._transport.poll())

    def _process_messages(self, require_actors: bool = True) -> None:
        self._drain()
        logged = False
        while self._inbox:
            logged |= self._on_message(self._inbox.popleft())
        if logged and self._log is not None:
            self._log.flush()
        for peer in self._transport.lost():
            self.registry.lose(peer, "it has died")
        now_s = self._clock()
        if now_s - self._checked_s > min(self._lease_s / BEATS, 1.0) / 4:
            self._checked_s = now_s
            self.registry.check()
            self._inbox.extend(self._unknown)
            self._unknown.clear()
        if not self._backlog and require_actors:
            self.registry.require_some()

    def _on_message(self, message: Message) -> bool:
        """Process a message; whether a chunk was logged."""
        handle = self.registry.renew(message.peer)
        if handle is None:
            if message.kind is MessageKind.HELLO:  # of a replacement that is not registered yet
                self._unknown.append(message)
            return False
        match message.kind:
            case MessageKind.HELLO:
                hello: ActorHello = decode(message.data)
                handle.hello = hello
                self._transition_spec = self._transition_spec or hello.transition_spec
                handle.episodes = handle.episodes or [0] * hello.count
                if self._policy_spec is not None:
                    self._welcome(handle, message.peer)
            case MessageKind.CHUNK:
                chunk = decode_chunk(message.data, self.transition_spec)
                if chunk.number < handle.number:
                    return False
                if self._log is not None:
                    self._log.append(message.data)
                handle.update(chunk)
                self._backlog.append(chunk)
                return True
            case MessageKind.BYE:
                self.registry.leave(message.peer, decode(message.data))
            case _:
                pass  # a beat
        return False

    def _welcome(self, handle: ActorHandle, peer: Peer) -> None:
        assert self._policy_spec is not None
        welcome = Welcome(self._policy_spec, handle.number, handle.episodes)
        self._transport.send(peer, MessageKind.WELCOME, encode(welcome))
        self._send_weights(handle, peer)

    def _send_weights(self, handle: ActorHandle, peer: Peer) -> None:
        assert self._weights is not None
        self._transport.send(peer, MessageKind.WEIGHTS, self._weights)
        handle.version = self.version

    def _acknowledge(self, chunk: Chunk) -> None:
        handle = self.registry.handles[chunk.actor]
        if handle.peer is None:
            return
        if handle.version < self.version and (self._window is None or handle.restarts):
            self._send_weights(handle, handle.peer)
        self._transport.send(handle.peer, MessageKind.ACK, encode(chunk.number))
