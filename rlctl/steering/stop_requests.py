"""Requests that the control loop obeys between two steps: by signals, and by files that other terminals write."""

from __future__ import annotations

import contextlib
import math
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rlctl.core.errors import JournalError, StorageError
from rlctl.steering.run_folder import controller, require_run
from rlctl.system.interrupts import Interrupted, requested_by_signals
from rlctl.system.watchdog import interruptible

STOP, PAUSE = "stop.request", "pause.request"
"""Files in a run folder that ask its controller to stop, and to pause as long as the file is there."""

_LOOK_S = 0.2
_BEGAN_S = time.time()
"""When this process began: what was asked since then is for its controller."""


class StopRequests:
    """What was asked of a controller."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._signals: list[int] = []
        self._look_s = 0.0
        self._paused = False
        self.forget(_BEGAN_S)

    @property
    def paused(self) -> bool:
        """Whether the run is to pause."""
        self._look()
        return self._paused

    def check(self) -> None:
        """Raise KeyboardInterrupt if the run is to stop."""
        self._look()
        if self._signals:
            raise KeyboardInterrupt

    def note(self, number: int) -> None:
        """A signal has come."""
        self._signals.append(number)
        if interruptible():  # user code that hangs would keep the loop from checking
            raise Interrupted

    def forget(self, before_s: float = math.inf) -> None:
        """Withdraw what was asked by files, before a time."""
        for name in (STOP, PAUSE):
            with contextlib.suppress(OSError):
                if (self._run / name).stat().st_mtime < before_s:
                    (self._run / name).unlink()

    def _look(self) -> None:
        if (now_s := time.monotonic()) >= self._look_s:
            self._look_s = now_s + _LOOK_S
            self._paused = (self._run / PAUSE).exists()
            if (self._run / STOP).exists():
                self._signals.append(0)


@contextmanager
def stop_requests(run: Path) -> Iterator[StopRequests]:
    """Turn SIGINT, SIGTERM and the files in a run folder into requests; those of earlier controllers are withdrawn.

    An exception between the start of a process and its record would lose the process, and so would a second Ctrl-C
    during the shutdown.
    """
    requests = StopRequests(run)
    with requested_by_signals(requests.note):
        try:
            yield requests
        finally:
            requests.forget()


def requested(run: Path) -> str:
    """What is asked of the controller of a run: ``stop`` or ``pause``; empty: nothing."""
    return "stop" if (run / STOP).exists() else "pause" if (run / PAUSE).exists() else ""


def request(run: Path, what: str) -> None:
    """Ask the controller of a run to ``stop``, to ``pause``, or to ``continue`` after a pause.

    Raises:
        JournalError: no controller steers it, or it does not pause.
        StorageError: the folder cannot be written.
    """
    _require_controller(run)
    try:
        if what == "continue":
            if not (run / PAUSE).exists():
                raise JournalError(f"{run} is not paused: nothing to continue")
            (run / PAUSE).unlink(missing_ok=True)
        else:
            (run / {"stop": STOP, "pause": PAUSE}[what]).touch()
    except OSError as error:
        raise StorageError(
            f"{run}: cannot be written ({error.strerror}): nothing was asked of its controller"
        ) from error


def _require_controller(run: Path) -> None:
    require_run(run)
    if controller(run).alive is False:
        raise JournalError(f"{run}: no controller steers it now; rlctl status {shlex.quote(str(run))} shows it")
