"""The learner's side of its actors: who is there, what has come, what was acknowledged, which policy they have."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from rlctl.bundle.spaces import Spaces, build
from rlctl.distributed.attendant import BEATS, Lease
from rlctl.distributed.chunk import Chunk, decode
from rlctl.distributed.chunk_log import ChunkLog
from rlctl.distributed.layout import Float32, Layout
from rlctl.distributed.transport import Kind, Message, Peer, Transport
from rlctl.distributed.waiting import Backoff
from rlctl.distributed.wire import Greeting, Weights, Welcome, encode_ack
from rlctl.errors import RlctlError

log = logging.getLogger(__name__)
Bytes = NDArray[np.uint8]


class ActorsLostError(RlctlError):
    """There is no actor any more, and none can be started."""


@dataclass(slots=True)
class Member:
    """An actor, as its learner knows it.

    Attributes:
        peer: where it is; None: it is gone.
        greeting: what it said first; None: nothing yet.
        version: of the policy that was sent last.
        number: of the next chunk that is new.
        episodes: number of each environment's next or current episode.
        failures: of its environments, in all its lives.
        restarts: how often it was replaced.
        tasks: ids in its last chunk.
    """

    peer: Peer | None
    lease: Lease
    greeting: Greeting | None = None
    version: int = 0
    number: int = 0
    episodes: list[int] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    restarts: int = 0
    tasks: list[str] = field(default_factory=list)
    earlier_failures: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class Tally:
    """Since the last look.

    Attributes:
        waited_s: that the learner has waited for chunks.
        elapsed_s: altogether.
        busy_s, actor_s: that the actors of the chunks were inside their environments, and altogether.
        sizes: transitions of each chunk.
        lost: actors.
    """

    began_s: float
    waited_s: float = 0.0
    busy_s: float = 0.0
    actor_s: float = 0.0
    sizes: list[int] = field(default_factory=list)


class Collector:
    """See ``rlctl.distributed.source.Source``.

    Args:
        actors: the actors there are, by number, and where.
        lease_s: an actor that is silent for so long is gone.
        chunk_log: where chunks are written before they are acknowledged; None: nowhere.
        replace: starts another actor in place of a lost one; called from a thread; None: there is no way to.
        replacements: how often, at most.
        clock, sleep: of the time in which actors live.
    """

    def __init__(
        self,
        transport: Transport,
        actors: Mapping[int, Peer],
        lease_s: float,
        chunk_log: ChunkLog | None = None,
        replace: Callable[[int], Peer] | None = None,
        replacements: int = 0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        self.version = 0
        self.members = {number: Member(peer, Lease(lease_s, clock)) for number, peer in actors.items()}
        self._transport, self._lease_s, self._log = transport, lease_s, chunk_log
        self._replace, self._replacements = replace, replacements
        self._clock, self._sleep = clock, sleep
        self._layout: Layout | None = None
        self._spec: Mapping[str, Any] | None = None
        self._weights: Bytes | None = None
        self._backlog: deque[tuple[Bytes, Chunk]] = deque()
        self._restored: deque[tuple[Bytes, Chunk]] = deque()
        self._inbox: deque[Message] = deque()
        self._draining = threading.Lock()
        self._starting: dict[int, _Start] = {}
        self._by_peer = {peer: number for number, peer in actors.items()}
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
        backoff = self._backoff()
        while True:
            self._listen()
            greeting = next((m.greeting for m in self.members.values() if m.greeting is not None), None)
            if greeting is not None:
                return build_spaces(greeting.spaces)
            if asked_to_stop():
                return None
            backoff.sleep()

    def publish(
        self, spec: Mapping[str, Any], weights: Float32, exploration: float = 0.0, at_random: bool = False
    ) -> None:
        """A new policy; see ``rlctl.distributed.source.Source``."""
        self.version += 1
        self._weights = Weights(self.version, exploration, at_random, weights).encode()
        if self._spec is None:
            self._spec = spec
            for number, member in self.members.items():
                if member.peer is not None and member.greeting is not None:
                    self._welcome(number, member)

    def gather(self, transitions: int, asked_to_stop: Callable[[], bool]) -> list[Chunk]:
        """Wait, asleep, for chunks; see ``rlctl.distributed.source.Source``."""
        taken: list[Chunk] = []
        count = 0
        backoff = self._backoff()
        while True:
            self._listen()
            while count < transitions and (self._restored or self._backlog):
                if self._restored:
                    chunk = self._restored.popleft()[1]
                else:
                    chunk = self._backlog.popleft()[1]
                    self._acknowledge(chunk)
                taken.append(chunk)
                count += chunk.transitions
                self._tally.sizes.append(chunk.transitions)
                self._tally.busy_s += chunk.busy_s
                self._tally.actor_s += chunk.elapsed_s
                backoff.reset()
            if count >= transitions or asked_to_stop():
                return taken
            began_s = self._clock()
            backoff.sleep()
            self._tally.waited_s += self._clock() - began_s

    def attend(self) -> None:
        """For the attendant's thread: say that the learner lives, and take in what has arrived."""
        for member in list(self.members.values()):
            if member.peer is not None:
                self._transport.send(member.peer, Kind.BEAT)
        self._drain()

    def stop(self, patience_s: float = 10.0) -> list[int]:
        """Tell all actors to leave, and wait until they have; who has not."""
        for member in self.members.values():
            if member.peer is not None:
                self._transport.send(member.peer, Kind.STOP)
        backoff, until_s = self._backoff(), self._clock() + patience_s
        self._replacements = 0
        while (
            left := [n for n, member in self.members.items() if member.peer is not None]
        ) and self._clock() < until_s:
            backoff.sleep()
            try:
                self._listen()
            except ActorsLostError:
                return []
        return left

    def figures(self) -> dict[str, float]:
        """Since the last call, for the board; see ``rlctl.monitoring.tags``."""
        now_s, tally = self._clock(), self._tally
        self._tally = Tally(now_s)
        failures: Counter[str] = Counter()
        for member in self.members.values():
            failures += member.earlier_failures + member.failures
        figures = {
            "distributed/learner_idle": tally.waited_s / max(now_s - tally.began_s, 1e-9),
            "distributed/actors": float(sum(member.peer is not None for member in self.members.values())),
            "distributed/restarts": float(sum(member.restarts for member in self.members.values())),
            **{f"distributed/failures/{kind}": float(count) for kind, count in failures.items()},
        }
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
        actors = {
            str(number): {
                "number": member.number,
                "episodes": member.episodes,
                "failures": dict(member.earlier_failures + member.failures),
                "restarts": member.restarts,
                "tasks": member.tasks,
            }
            for number, member in self.members.items()
        }
        return {"version": self.version, "segment": segment, "actors": actors}

    def saved(self, state: Mapping[str, Any]) -> None:
        """The checkpoint with ``state`` stands: what came before it is of no more use."""
        if self._log is not None and state["segment"] is not None:
            self._log.forget_before(state["segment"])

    def restore(self, state: Mapping[str, Any], layout: Layout) -> int:
        """Go on from a checkpoint; how many chunks are learned from again that came after it."""
        self.version = state["version"]
        for number, saved in state["actors"].items():
            member = self.members.get(int(number))
            if member is not None:  # there may be fewer actors now
                member.number, member.episodes = saved["number"], list(saved["episodes"])
                member.earlier_failures, member.restarts = Counter(saved["failures"]), saved["restarts"]
        if self._log is not None and state["segment"] is not None:
            for data in self._log.read_from(state["segment"]):
                chunk = decode(data, layout)
                member = self.members.get(chunk.actor)
                if member is not None:
                    self._count(member, chunk)
                self._restored.append((data, chunk))
        return len(self._restored)

    def _backoff(self) -> Backoff:
        return Backoff() if self._sleep is None else Backoff(sleep=self._sleep)

    def _drain(self) -> None:
        with self._draining:
            self._inbox.extend(self._transport.poll())

    def _listen(self) -> None:
        self._drain()
        logged = False
        while self._inbox:
            logged |= self._hear(self._inbox.popleft())
        if logged and self._log is not None:
            self._log.flush()
        for peer in self._transport.lost():
            if peer in self._by_peer:
                self._lose(self._by_peer[peer], "it has died")
        now_s = self._clock()
        if now_s - self._looked_s > self._lease_s / BEATS or self._starting:
            self._looked_s = now_s
            self._look(now_s)

    def _hear(self, message: Message) -> bool:
        number = self._by_peer.get(message.peer)
        if number is None:
            return False
        member = self.members[number]
        member.lease.heard(self._clock())
        match message.kind:
            case Kind.HELLO:
                member.greeting = greeting = Greeting.decode(message.data)
                if self._layout is None:
                    self._layout = greeting.layout
                if not member.episodes:
                    member.episodes = [0] * greeting.count
                if self._spec is not None:
                    self._welcome(number, member)
            case Kind.CHUNK:
                return self._receive(member, message.data)
            case Kind.BYE:
                member.peer = None
                del self._by_peer[message.peer]
            case _:
                pass  # a sign of life
        return False

    def _receive(self, member: Member, data: Bytes) -> bool:
        chunk = decode(data, self.layout)
        if chunk.number < member.number:
            return False
        if self._log is not None:
            self._log.append(data)
        self._count(member, chunk)
        self._backlog.append((data, chunk))
        return True

    def _count(self, member: Member, chunk: Chunk) -> None:
        member.number = max(member.number, chunk.number + 1)
        member.tasks = list(chunk.tasks)
        if not member.episodes:
            member.episodes = [0] * chunk.rows.shape[1]
        for _, ended in chunk.ended:
            member.episodes[ended.environment] += 1
        member.failures = Counter(chunk.failures)

    def _welcome(self, number: int, member: Member) -> None:
        assert member.peer is not None
        assert self._spec is not None
        assert self._weights is not None
        welcome = Welcome(self._spec, member.number, member.episodes)
        self._transport.send(member.peer, Kind.WELCOME, welcome.encode())
        self._transport.send(member.peer, Kind.WEIGHTS, self._weights)
        member.version = self.version

    def _acknowledge(self, chunk: Chunk) -> None:
        member = self.members[chunk.actor]
        if member.peer is None:
            return
        if member.version < self.version and self._weights is not None:
            self._transport.send(member.peer, Kind.WEIGHTS, self._weights)
            member.version = self.version
        self._transport.send(member.peer, Kind.ACK, encode_ack(chunk.number))

    def _look(self, now_s: float) -> None:
        for number, start in list(self._starting.items()):
            if start.thread.is_alive():
                continue
            del self._starting[number]
            if start.peer is None:
                log.warning("actor %d cannot be replaced: %s", number, start.error)
                self._replace = None
            else:
                member = self.members[number]
                member.peer, member.greeting, member.version = start.peer, None, 0
                member.earlier_failures += member.failures
                member.failures = Counter()
                member.lease.heard(now_s)
                self._by_peer[start.peer] = number
        for number, member in self.members.items():
            if member.peer is not None and member.lease.expired(now_s):
                self._lose(number, f"it was silent for {member.lease.silent_s(now_s):.0f} s")
        if not self._starting and not self._backlog and all(member.peer is None for member in self.members.values()):
            raise ActorsLostError("all actors are gone, and no other can be started: go on with --resume")

    def _lose(self, number: int, why: str) -> None:
        member = self.members[number]
        peer, member.peer = member.peer, None
        if peer is None:
            return
        self._by_peer.pop(peer, None)
        log.warning("actor %d is gone: %s", number, why)
        if self._replace is not None and self._replacements > 0:
            self._replacements -= 1
            member.restarts += 1
            self._starting[number] = _Start(self._replace, number)


class _Start:
    """A replacement that is being started, in a thread of its own: the learner does not wait for it."""

    def __init__(self, replace: Callable[[int], Peer], number: int) -> None:
        self.peer: Peer | None = None
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, args=(replace, number), daemon=True)
        self.thread.start()

    def _run(self, replace: Callable[[int], Peer], number: int) -> None:
        try:
            self.peer = replace(number)
        except BaseException as error:
            self.error = error


def build_spaces(spaces: Mapping[str, Any]) -> tuple[gymnasium.Space[Any], gymnasium.Space[Any]]:
    """From what a greeting says."""
    described = Spaces.model_validate(spaces)
    return build(described.observation), build(described.action)
