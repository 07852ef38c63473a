"""Marks calls of plug-in code, so that ``rlctl.system.watchdog`` can end one that does not return."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import Protocol


class CallWatch(Protocol):
    """Watches calls of plug-in code."""

    def calling(self, who: str, what: object, times: int) -> AbstractContextManager[None]:
        """A context for one call; see ``asking``."""


WATCH: ContextVar[CallWatch | None] = ContextVar("watch", default=None)
"""The watch of this thread; None: calls take as long as they like."""

_UNWATCHED: AbstractContextManager[None] = nullcontext()


def asking(who: str, what: object, times: int = 1) -> AbstractContextManager[None]:
    """Mark a call of plug-in code.

    Args:
        who: e.g. "policy feedback".
        what: e.g. "decision 3".
        times: how many answers the call gives; each of them may take the time limit.
    """
    watch = WATCH.get()
    return _UNWATCHED if watch is None else watch.calling(who, what, times)
