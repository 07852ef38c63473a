"""The lock of an executor. Callbacks of futures run user code, so they are called after it has been released."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType

log = logging.getLogger(__name__)


class CallbackLock:
    """A reentrant lock; what is passed to ``after`` is called by the thread that releases it.

    Attributes:
        news: the lock itself, as a condition: notified of what ``Executor.wait`` waits for.
    """

    def __init__(self) -> None:
        self.news = threading.Condition()
        self._after: deque[Callable[[], object]] = deque()
        self._depth = 0

    def __reduce__(self) -> tuple[type[CallbackLock], tuple[()]]:
        """A copy of what it guards, as of a simulation that is saved, gets a lock of its own."""
        return CallbackLock, ()

    def after(self, work: Callable[[], object]) -> None:
        """Call this when the lock has been released."""
        self._after.append(work)

    def __enter__(self) -> None:
        self.news.acquire()
        self._depth += 1

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self._depth -= 1
        outermost = not self._depth
        self.news.release()
        if outermost:
            while self._after:
                with suppress(IndexError):  # another thread did it
                    _call(self._after.popleft())


def _call(work: Callable[[], object]) -> None:
    """Callbacks may raise what they like: the thread goes on. An interrupt is the main thread's."""
    try:
        work()
    except BaseException as error:
        if not isinstance(error, Exception) and threading.current_thread() is threading.main_thread():
            raise
        log.exception("a callback of a future has failed")
