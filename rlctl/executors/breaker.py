"""Ends an executor at the first error that concerns all tasks, so that nothing hangs."""

from __future__ import annotations

import threading
from collections.abc import Callable

from rlctl.core.errors import RlctlError
from rlctl.executors.futures import ExecutorBroken
from rlctl.system import crash_report


class Breaker:
    """See the module.

    Attributes:
        error: what has ended the executor; None: nothing has.

    Args:
        on_break: called with the error, once.
    """

    def __init__(self, on_break: Callable[[RlctlError], None]) -> None:
        self.error: RlctlError | None = None
        self._on_break = on_break

    def guarded(self, work: Callable[[], object]) -> None:
        """Call what serves all tasks; an unexpected error ends the executor."""
        try:
            work()
        except BaseException as error:
            if not isinstance(error, Exception) and threading.current_thread() is threading.main_thread():
                raise  # an interrupt; it is the caller's
            self.end_with(ExecutorBroken(str(error) if isinstance(error, RlctlError) else crash_report.report(error)))

    def end_with(self, error: RlctlError) -> None:
        """Nothing can be recorded, or started, any more."""
        if self.error is None:
            self.error = error
            self._on_break(error)

    def check(self) -> None:
        """Raise what has ended the executor."""
        if self.error is not None:
            raise self.error
