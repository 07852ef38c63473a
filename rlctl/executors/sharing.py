"""What the pools of one campaign have in common, and what tells them apart; an executor alone shares with nobody.

Pools that share a lock and the news can be waited for together; one that numbers its events, calls and nodes after
those of others can be told of beside them.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

from rlctl.core.task import Event

if TYPE_CHECKING:
    from rlctl.executors.recovery import Past

log = logging.getLogger(__name__)

KEPT = 65_536
"""Events that ``events`` can still tell of."""


class Mutex:
    """A lock whose owner may leave behind what is to be done once it is free: callbacks of futures run user code."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._after: deque[Callable[[], None]] = deque()
        self._depth = 0

    def __reduce__(self) -> tuple[type[Mutex], tuple[()]]:
        """A copy of what it guards, as of a simulation that is saved, gets a lock of its own."""
        return Mutex, ()

    def after(self, work: Callable[[], None]) -> None:
        """Do this when the lock has been given back."""
        self._after.append(work)

    def __enter__(self) -> None:
        self.lock.acquire()
        self._depth += 1

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self._depth -= 1
        outermost = not self._depth
        self.lock.release()
        if outermost:
            while self._after:
                with suppress(IndexError):  # another thread did it
                    work = self._after.popleft()
                    _do(work)


def _do(work: Callable[[], None]) -> None:
    """Callbacks may raise what they like: the thread goes on. An interrupt is the main thread's."""
    try:
        work()
    except BaseException as error:
        if not isinstance(error, Exception) and threading.current_thread() is threading.main_thread():
            raise
        log.exception("a callback of a future has failed")


class News(threading.Condition):
    """Notified of whatever somebody may wait for, with the lock of a mutex."""

    def __init__(self, mutex: Mutex) -> None:
        super().__init__(mutex.lock)
        self._mutex = mutex

    def __reduce__(self) -> tuple[type[News], tuple[Mutex]]:
        """As for the mutex."""
        return News, (self._mutex,)


class Clock:
    """Seconds since the campaign began."""

    def __init__(self, start_s: float = 0.0) -> None:
        self._origin = time.monotonic() - start_s
        self._alone_s = 0.0

    def now(self) -> float:
        """Where it stands."""
        return time.monotonic() - self._origin + self._alone_s

    def skip(self, seconds: float) -> None:
        """Programs went on for so long without a controller; of what several pools tell, the longest counts."""
        self._alone_s = max(self._alone_s, seconds)


@dataclass(slots=True)
class Numbers:
    """Of events: 1, 2, 3 ...

    Attributes:
        last: the last one given.
    """

    last: int = 0


class Common:
    """What is there once, however many pools there are.

    Attributes:
        mutex: the lock of all books.
        news: notified, with it, of whatever somebody may wait for.
        log: the last events.
        untold: events that no ``wait`` has returned yet.
        numbers: of events.
        calls: numbers of functions that are given to ``submit``.
    """

    def __init__(self, eager: bool) -> None:
        self.mutex = Mutex()
        self.news = News(self.mutex)
        self.log: deque[Event] = deque(maxlen=KEPT)
        self.untold: deque[Event] = deque(maxlen=KEPT if eager else None)
        self.numbers = Numbers()
        self.calls = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Share:
    """A pool's part in a campaign of several.

    Attributes:
        pool: its name: letters, digits, ``_`` and ``-``.
        clock: the campaign's.
        past: what the journal says of former controllers, in all pools.
        first_node: number of its first node among those of all pools.
        beside: nodes of the pools before it that are of the same executor.
    """

    pool: str
    common: Common
    clock: Clock
    past: Past
    first_node: int = 0
    beside: int = 0
