"""Waiting asleep."""

from __future__ import annotations

import time
from collections.abc import Callable


class Backoff:
    """Sleeps longer and longer."""

    def __init__(
        self, shortest_s: float = 5e-5, longest_s: float = 5e-3, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._shortest_s, self._longest_s, self._sleep = shortest_s, longest_s, sleep
        self._next_s = shortest_s

    def sleep(self) -> None:
        """Sleep twice as long as the last time."""
        self._sleep(self._next_s)
        self._next_s = min(2 * self._next_s, self._longest_s)

    def reset(self) -> None:
        """The next sleep is a short one."""
        self._next_s = self._shortest_s
