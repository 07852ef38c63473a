"""A learner's actors: their addresses, leases and progress, and the replacement of lost ones."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from rlctl.core.errors import RanksLostError
from rlctl.distributed.actor.env_guard import BrokenEnvironmentError, in_thread
from rlctl.distributed.comm.chunk import Chunk
from rlctl.distributed.comm.codec import ActorHello
from rlctl.distributed.comm.transport import Peer

log = logging.getLogger(__name__)


@dataclass(slots=True)
class ActorHandle:
    """An actor, as its learner knows it.

    Attributes:
        peer: its address; None: it is gone.
        received_s: when its last message was received.
        hello: its first message; None: not received yet.
        version: of the policy that was sent last.
        number: of the next chunk that is new.
        episodes: number of each environment's next or current episode.
        failures: of its environments, since it was last started.
        earlier_failures: and before that.
        restarts: how often it was replaced.
        tasks: ids in its last chunk.
    """

    peer: Peer | None
    received_s: float
    hello: ActorHello | None = None
    version: int = 0
    number: int = 0
    episodes: list[int] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    earlier_failures: Counter[str] = field(default_factory=Counter)
    restarts: int = 0
    tasks: list[str] = field(default_factory=list)

    def update(self, chunk: Chunk) -> None:
        """Take over what a new chunk says."""
        self.number = max(self.number, chunk.number + 1)
        self.tasks = list(chunk.tasks)
        if not self.episodes:
            self.episodes = [0] * chunk.transitions.shape[1]
        for _, end in chunk.episode_ends:
            self.episodes[end.environment] += 1
        self.failures = Counter(chunk.failures)

    def state(self) -> dict[str, Any]:
        """For a checkpoint, JSON-ready."""
        return {
            "number": self.number,
            "episodes": self.episodes,
            "failures": dict(self.earlier_failures + self.failures),
            "restarts": self.restarts,
            "tasks": self.tasks,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state``."""
        self.number, self.episodes = state["number"], list(state["episodes"])
        self.earlier_failures, self.restarts = Counter(state["failures"]), state["restarts"]


class ActorRegistry:
    """The actors of a learner, by number.

    Args:
        actors: the first ones, and their addresses.
        lease_s: an actor from which nothing was received for so long is gone.
        replace: starts another actor in place of a lost one; called from a thread; None: this MPI cannot.
        replacements: how often, at most.

    Attributes:
        handles: of all actors, also of those that are gone.
    """

    def __init__(
        self,
        actors: Mapping[int, Peer],
        lease_s: float,
        replace: Callable[[int], Peer] | None = None,
        replacements: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.handles = {number: ActorHandle(peer, clock()) for number, peer in actors.items()}
        self._lease_s, self._clock = lease_s, clock
        self._replace, self._replacements = replace, replacements
        self._by_peer = {peer: number for number, peer in actors.items()}
        self._starting: dict[int, Future[Peer]] = {}
        self._gave_up: dict[int, str] = {}

    def present(self) -> Iterator[tuple[int, ActorHandle, Peer]]:
        """Number, handle and address of the actors that are there."""
        for number, handle in list(self.handles.items()):
            if handle.peer is not None:
                yield number, handle, handle.peer

    def renew(self, peer: Peer) -> ActorHandle | None:
        """Renew the lease of the sender of a message; its handle, or None if it is no actor of this learner."""
        number = self._by_peer.get(peer)
        if number is None:
            return None
        handle = self.handles[number]
        handle.received_s = self._clock()
        return handle

    def leave(self, peer: Peer, why: str = "") -> None:
        """Remove an actor that has left by itself."""
        number = self._by_peer.pop(peer)
        self.handles[number].peer = None
        if why:
            self._gave_up[number] = why
            log.warning("actor %d has left: %s", number, why)

    def lose(self, peer: Peer, why: str) -> None:
        """Remove an actor that is gone, and start another in its place if possible."""
        number = self._by_peer.pop(peer, None)
        if number is None:
            return
        handle = self.handles[number]
        handle.peer = None
        log.warning("actor %d is gone: %s", number, why)
        if self._replace is not None and self._replacements > 0:
            self._replacements -= 1
            handle.restarts += 1
            self._starting[number] = in_thread(partial(self._replace, number))

    def check(self) -> None:
        """Register replacements that have started, and remove actors whose lease has expired."""
        now_s = self._clock()
        for number in [n for n, start in self._starting.items() if start.done()]:
            start, handle = self._starting.pop(number), self.handles[number]
            if (error := start.exception()) is not None:
                log.warning("actor %d cannot be replaced: %s", number, error)
                self._replace = None
                continue
            handle.peer = peer = start.result()
            handle.hello, handle.version, handle.received_s = None, 0, now_s
            handle.earlier_failures, handle.failures = handle.earlier_failures + handle.failures, Counter()
            self._by_peer[peer] = number
        for _, handle, peer in self.present():
            if now_s - handle.received_s > self._lease_s:
                self.lose(peer, f"it was silent for {now_s - handle.received_s:.0f} s")

    def stop_replacing(self) -> None:
        """Replace no lost actor from now on."""
        self._replacements = 0

    def require_some(self) -> None:
        """Refuse to continue without actors.

        Raises:
            RanksLostError: there is no actor any more, and none is being started.
            BrokenEnvironmentError: all have given up their environments, so that continuing as it is would not help.
        """
        if not self._starting and not any(self.present()):
            if self._gave_up.keys() == self.handles.keys():
                why = next(iter(self._gave_up.values()))
                raise BrokenEnvironmentError(f"all actors have left: {why}; correct it, then go on with --resume")
            raise RanksLostError("all actors are gone, and no other can be started: go on with --resume")

    def metrics(self) -> dict[str, float]:
        """For TensorBoard; see ``rlctl.monitoring.tags``."""
        failures: Counter[str] = Counter()
        for handle in self.handles.values():
            failures += handle.earlier_failures + handle.failures
        return {
            "distributed/actors": float(sum(1 for _ in self.present())),
            "distributed/restarts": float(sum(handle.restarts for handle in self.handles.values())),
            **{f"distributed/failures/{kind}": float(count) for kind, count in failures.items()},
        }
