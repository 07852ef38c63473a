"""The learner's side of its actors: what has come, what was acknowledged, and which policy they have."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np

from rlctl.bundle.spaces import Spaces, build
from rlctl.distributed.comm.chunk import Chunk, decode
from rlctl.distributed.comm.heartbeat import BEATS
from rlctl.distributed.comm.messages import Bytes, Kind, Message, Peer, Transport
from rlctl.distributed.comm.polling import Backoff
from rlctl.distributed.comm.transition_spec import Float32, Layout
from rlctl.distributed.comm.wire import Greeting, Weights, Welcome, encode_ack
from rlctl.distributed.learner.actor_registry import Member, Roster
from rlctl.distributed.learner.chunk_log import ChunkLog

Arrived = tuple[Bytes, Chunk]


@dataclass(slots=True)
class Tally:
    """Since the last look.

    Attributes:
        waited_s: that the learner has waited for chunks.
        busy_s, actor_s: that the actors of the chunks were inside their environments, and altogether.
        sizes: transitions of each chunk.
    """

    began_s: float
    waited_s: float = 0.0
    busy_s: float = 0.0
    actor_s: float = 0.0
    sizes: list[int] = field(default_factory=list)


class Collector:
    """See ``rlctl.distributed.learner.experience_source.Source``.

    Args:
        roster: the actors.
        lease_s: how often leases are looked at: several times in this.
        chunk_log: where chunks are written before they are acknowledged; None: nowhere.
        window: puts a policy where actors read it by themselves; None: there is no such place.
        clock, sleep: of the time in which actors live.
    """

    def __init__(
        self,
        transport: Transport,
        roster: Roster,
        lease_s: float,
        chunk_log: ChunkLog | None = None,
        window: Callable[[int, Bytes], bool] | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        self.roster, self.version = roster, 0
        self._transport, self._lease_s, self._log, self._window = transport, lease_s, chunk_log, window
        self._clock, self._sleep = clock, sleep
        self._layout: Layout | None = None
        self._spec: Mapping[str, Any] | None = None
        self._weights: Bytes | None = None
        self._backlog: deque[Arrived] = deque()
        self._restored: deque[Arrived] = deque()
        self._inbox: deque[Message] = deque()
        self._strangers: list[Message] = []
        self._draining = threading.Lock()
        self._tally = Tally(clock())
        self._looked_s = 0.0

    @property
    def layout(self) -> Layout:
        """Of rows and actions; known after ``meet``."""
        assert self._layout is not None
        return self._layout

    def meet(self, asked_to_stop: Callable[[], bool]) -> tuple[gymnasium.Space[Any], gymnasium.Space[Any]] | None:
        """Wait for the first actor; observation and action space, or None when ``asked_to_stop``.

        Raises:
            ActorsLostError: there is none any more.
        """
        backoff = Backoff(sleep=self._sleep)
        while not asked_to_stop():
            self._listen()
            for _, member, _ in self.roster.present():
                if member.greeting is not None:
                    described = Spaces.model_validate(member.greeting.spaces)
                    return build(described.observation), build(described.action)
            backoff.nap()
        return None

    def publish(
        self, spec: Mapping[str, Any], weights: Float32, exploration: float = 0.0, at_random: bool = False
    ) -> None:
        """A new policy; see ``rlctl.distributed.learner.experience_source.Source``."""
        self.version += 1
        self._weights = Weights(self.version, exploration, at_random, weights).encode()
        if self._window is not None and not self._window(self.version, self._weights):
            self._window = None  # too large: it is sent
        if self._spec is None:
            self._spec = spec
            for _, member, peer in self.roster.present():
                if member.greeting is not None:
                    self._welcome(member, peer)

    def gather(self, transitions: int, asked_to_stop: Callable[[], bool]) -> list[Chunk]:
        """Wait, asleep, for chunks; see ``rlctl.distributed.learner.experience_source.Source``."""
        taken: list[Chunk] = []
        count = 0
        backoff = Backoff(sleep=self._sleep)
        while True:
            self._listen()
            while count < transitions and (chunk := self._next()) is not None:
                taken.append(chunk)
                count += chunk.transitions
                backoff.reset()
            if count >= transitions or asked_to_stop():
                return taken
            began_s = self._clock()
            backoff.nap()
            self._tally.waited_s += self._clock() - began_s

    def attend(self) -> None:
        """For the attendant's thread: say that the learner lives, and take in what has arrived."""
        for _, _, peer in self.roster.present():
            self._transport.send(peer, Kind.BEAT)
        self._drain()

    def stop(self, patience_s: float = 10.0) -> list[int]:
        """Tell all actors to leave, and wait until they have; who has not."""
        self.roster.no_more()
        for _, _, peer in self.roster.present():
            self._transport.send(peer, Kind.STOP)
        backoff, until_s = Backoff(sleep=self._sleep), self._clock() + patience_s
        self._backlog.clear()
        while (left := [number for number, _, _ in self.roster.present()]) and self._clock() < until_s:
            backoff.nap()
            self._listen(alone=True)
        return left

    def figures(self) -> dict[str, float]:
        """Since the last call, for the board; see ``rlctl.monitoring.tags``."""
        now_s, tally = self._clock(), self._tally
        self._tally = Tally(now_s)
        figures = self.roster.figures()
        figures["distributed/learner_idle"] = tally.waited_s / max(now_s - tally.began_s, 1e-9)
        if tally.sizes:
            figures["distributed/chunk_transitions"] = float(np.mean(tally.sizes))
        if tally.actor_s > 0.0:
            figures["distributed/actor_busy"] = tally.busy_s / tally.actor_s
        return figures

    def state(self) -> dict[str, Any]:
        """For a checkpoint: what each actor will be told when it greets again, and what was under way; JSON-ready."""
        segment = None
        if self._log is not None:
            segment = self._log.begin_segment([data for data, _ in [*self._restored, *self._backlog]])
        actors = {str(number): member.state() for number, member in self.roster.members.items()}
        return {"version": self.version, "segment": segment, "actors": actors}

    def saved(self, state: Mapping[str, Any]) -> None:
        """The checkpoint with ``state`` stands: what came before it is of no more use."""
        if self._log is not None and state["segment"] is not None:
            self._log.forget_before(state["segment"])

    def restore(self, state: Mapping[str, Any], layout: Layout) -> int:
        """Go on from a checkpoint; how many chunks are learned from that came after it."""
        self.version = state["version"]
        for number, saved in state["actors"].items():
            member = self.roster.members.get(int(number))
            if member is not None:  # there may be fewer actors now
                member.restore(saved)
        if self._log is not None and state["segment"] is not None:
            for data in self._log.read_from(state["segment"]):
                chunk = decode(data, layout)
                member = self.roster.members.get(chunk.actor)
                if member is not None and chunk.number >= member.number:
                    member.note(chunk)
                self._restored.append((data, chunk))
        return len(self._restored)

    def _next(self) -> Chunk | None:
        """The next chunk to learn from, acknowledged."""
        if self._restored:
            chunk = self._restored.popleft()[1]
        elif self._backlog:
            chunk = self._backlog.popleft()[1]
            self._acknowledge(chunk)
        else:
            return None
        self._tally.sizes.append(chunk.transitions)
        self._tally.busy_s += chunk.busy_s
        self._tally.actor_s += chunk.elapsed_s
        return chunk

    def _drain(self) -> None:
        # The attendant's thread does this, too; what both take must stay in order.
        with self._draining:
            self._inbox.extend(self._transport.poll())

    def _listen(self, alone: bool = False) -> None:
        self._drain()
        logged = False
        while self._inbox:
            logged |= self._hear(self._inbox.popleft())
        if logged and self._log is not None:
            self._log.flush()
        for peer in self._transport.lost():
            self.roster.lose(peer, "it has died")
        now_s = self._clock()
        if now_s - self._looked_s > min(self._lease_s / BEATS, 1.0) / 4:
            self._looked_s = now_s
            self.roster.look()
            self._inbox.extend(self._strangers)
            self._strangers.clear()
        if not self._backlog and not alone:
            self.roster.require_some()

    def _hear(self, message: Message) -> bool:
        member = self.roster.heard(message.peer)
        if member is None:
            if message.kind is Kind.HELLO:  # of a replacement, before who started it has said so
                self._strangers.append(message)
            return False
        match message.kind:
            case Kind.HELLO:
                member.greeting = greeting = Greeting.decode(message.data)
                self._layout = self._layout or greeting.layout
                member.episodes = member.episodes or [0] * greeting.count
                if self._spec is not None:
                    self._welcome(member, message.peer)
            case Kind.CHUNK:
                return self._receive(member, message.data)
            case Kind.BYE:
                self.roster.leave(message.peer, message.data.tobytes().decode())
            case _:
                pass  # a sign of life
        return False

    def _receive(self, member: Member, data: Bytes) -> bool:
        chunk = decode(data, self.layout)
        if chunk.number < member.number:
            return False
        if self._log is not None:
            self._log.append(data)
        member.note(chunk)
        self._backlog.append((data, chunk))
        return True

    def _welcome(self, member: Member, peer: Peer) -> None:
        assert self._spec is not None
        assert self._weights is not None
        self._transport.send(peer, Kind.WELCOME, Welcome(self._spec, member.number, member.episodes).encode())
        self._send_weights(member, peer)

    def _send_weights(self, member: Member, peer: Peer) -> None:
        assert self._weights is not None
        self._transport.send(peer, Kind.WEIGHTS, self._weights)
        member.version = self.version

    def _acknowledge(self, chunk: Chunk) -> None:
        member = self.roster.members[chunk.actor]
        if member.peer is None:
            return
        if member.version < self.version and (self._window is None or member.restarts):
            self._send_weights(member, member.peer)
        self._transport.send(member.peer, Kind.ACK, encode_ack(chunk.number))
