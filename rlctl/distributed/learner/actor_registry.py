"""Which actors a learner has: where they are, whether they live, what they have done, and who replaces the dead."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from rlctl.core.errors import RanksLostError
from rlctl.distributed.actor.env_guard import BrokenEnvironmentError
from rlctl.distributed.comm.chunk import Chunk
from rlctl.distributed.comm.heartbeat import Lease
from rlctl.distributed.comm.messages import Peer
from rlctl.distributed.comm.wire import Greeting

log = logging.getLogger(__name__)


class ActorsLostError(RanksLostError):
    """There is no actor any more, and none can be started."""


@dataclass(slots=True)
class Member:
    """An actor, as its learner knows it.

    Attributes:
        peer: where it is; None: it is gone.
        lease: how long ago it was heard of.
        greeting: what it said first; None: nothing yet.
        version: of the policy that was sent last.
        number: of the next chunk that is new.
        episodes: number of each environment's next or current episode.
        failures: of its environments, in this life.
        earlier_failures: and in those before.
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
    earlier_failures: Counter[str] = field(default_factory=Counter)
    restarts: int = 0
    tasks: list[str] = field(default_factory=list)

    def note(self, chunk: Chunk) -> None:
        """A chunk has come."""
        self.number = max(self.number, chunk.number + 1)
        self.tasks = list(chunk.tasks)
        if not self.episodes:
            self.episodes = [0] * chunk.rows.shape[1]
        for _, ended in chunk.ended:
            self.episodes[ended.environment] += 1
        self.failures = Counter(chunk.failures)

    def state(self) -> dict[str, Any]:
        """What a later life is told, and what was under way; JSON-ready."""
        return {
            "number": self.number,
            "episodes": self.episodes,
            "failures": dict(self.earlier_failures + self.failures),
            "restarts": self.restarts,
            "tasks": self.tasks,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state``."""
        self.number, self.episodes = state["number"], list(state["episodes"])
        self.earlier_failures, self.restarts = Counter(state["failures"]), state["restarts"]


class Roster:
    """The members, by number.

    Args:
        actors: who is there at first, and where.
        lease_s: an actor that is silent for so long is gone.
        replace: starts another actor in place of a lost one; called from a thread; None: there is no way to.
        replacements: how often, at most.
    """

    def __init__(
        self,
        actors: Mapping[int, Peer],
        lease_s: float,
        replace: Callable[[int], Peer] | None = None,
        replacements: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.members = {number: Member(peer, Lease(lease_s, clock)) for number, peer in actors.items()}
        self._replace, self._replacements, self._clock = replace, replacements, clock
        self._by_peer = {peer: number for number, peer in actors.items()}
        self._starting: dict[int, _Start] = {}
        self._gave_up: dict[int, str] = {}

    def present(self) -> Iterator[tuple[int, Member, Peer]]:
        """Who is there."""
        for number, member in list(self.members.items()):
            if member.peer is not None:
                yield number, member, member.peer

    def heard(self, peer: Peer) -> Member | None:
        """A sign of life; whose it is, None if of nobody who counts."""
        number = self._by_peer.get(peer)
        if number is None:
            return None
        member = self.members[number]
        member.lease.heard(self._clock())
        return member

    def leave(self, peer: Peer, why: str = "") -> None:
        """An actor has left by itself."""
        number = self._by_peer.pop(peer)
        self.members[number].peer = None
        if why:
            self._gave_up[number] = why
            log.warning("actor %d has left: %s", number, why)

    def lose(self, peer: Peer, why: str) -> None:
        """An actor is gone, and is replaced if that can be done."""
        number = self._by_peer.pop(peer, None)
        if number is None:
            return
        member = self.members[number]
        member.peer = None
        log.warning("actor %d is gone: %s", number, why)
        if self._replace is not None and self._replacements > 0:
            self._replacements -= 1
            member.restarts += 1
            self._starting[number] = _Start(self._replace, number)

    def look(self) -> None:
        """Take in replacements that have started, and give up those who are silent."""
        now_s = self._clock()
        for number in [n for n, start in self._starting.items() if not start.thread.is_alive()]:
            start, member = self._starting.pop(number), self.members[number]
            if start.peer is None:
                log.warning("actor %d cannot be replaced: %s", number, start.error)
                self._replace = None
                continue
            member.peer, member.greeting, member.version = start.peer, None, 0
            member.earlier_failures, member.failures = member.earlier_failures + member.failures, Counter()
            member.lease.heard(now_s)
            self._by_peer[start.peer] = number
        for _, member, peer in self.present():
            if member.lease.expired(now_s):
                self.lose(peer, f"it was silent for {member.lease.silent_s(now_s):.0f} s")

    def no_more(self) -> None:
        """Nobody is replaced any more."""
        self._replacements = 0

    def require_some(self) -> None:
        """Refuse to go on alone.

        Raises:
            ActorsLostError: there is no actor any more, and none is being started.
            BrokenEnvironmentError: all have given up their environments, so that going on is of no use as it is.
        """
        if not self._starting and not any(self.present()):
            if self._gave_up.keys() == self.members.keys():
                why = next(iter(self._gave_up.values()))
                raise BrokenEnvironmentError(f"all actors have left: {why}; correct it, then go on with --resume")
            raise ActorsLostError("all actors are gone, and no other can be started: go on with --resume")

    def figures(self) -> dict[str, float]:
        """For the board; see ``rlctl.monitoring.tags``."""
        failures: Counter[str] = Counter()
        for member in self.members.values():
            failures += member.earlier_failures + member.failures
        return {
            "distributed/actors": float(sum(1 for _ in self.present())),
            "distributed/restarts": float(sum(member.restarts for member in self.members.values())),
            **{f"distributed/failures/{kind}": float(count) for kind, count in failures.items()},
        }


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
