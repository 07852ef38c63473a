"""Shows the progress of work that takes longer than two seconds: amount done, rate and time left."""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO

import rich.progress as bars
from rich.console import Console
from rich.table import Column
from rich.text import Text

from rlctl.monitoring.formatting import format_duration

QUIET_S = 2.0
LINE_EVERY_S = 10.0
KNOWN_S, KNOWN_SHARE, KNOWN_TIMES = 5.0, 0.1, 3
"""The time left is shown after so many seconds, or after such a share of the work in so many parts."""
NARROW = 80
"""Terminals with fewer columns show text without a bar."""


class Progress(Protocol):
    """Receives the progress of one piece of work at a time."""

    def start(self, what: str, total: float, unit: str, done: float = 0.0) -> None:
        """Begin a piece of work of ``total`` units (plural, e.g. ``"decisions"``), ``done`` of them earlier."""
        return None

    def advance(self, amount: float, note: str = "") -> None:
        """Add ``amount``; ``note`` describes the state in a few words and stays until the next note."""
        return None

    def stop(self) -> None:
        """End the piece of work, complete or not."""
        return None


class Silent(Progress):
    """Shows nothing."""


@contextmanager
def working(progress: Progress, what: str, total: float, unit: str) -> Iterator[None]:
    """Show the piece of work inside, from its beginning to its end."""
    progress.start(what, total, unit)
    try:
        yield
    finally:
        progress.stop()


class _Work:
    """How much of a piece of work is done, and since when."""

    def __init__(self, what: str, total: float, unit: str, done: float = 0.0) -> None:
        self.what, self.total, self.unit = what, total, unit
        self.done = self._before = done
        self.note, self.over = "", False
        self._began_s = self._first_s = time.monotonic()
        self._first, self._times = done, 0

    def add(self, amount: float) -> None:
        """Add to what is done. The rate counts from the first part on, which excludes e.g. the start of processes."""
        self.done += amount
        if amount > 0.0:
            self._times += 1
            if self._times == 1:
                self._first, self._first_s = self.done, time.monotonic()

    def elapsed_s(self) -> float:
        return time.monotonic() - self._began_s

    def summary(self) -> str:
        """All in one line, for narrow terminals."""
        parts = (self.what, f"{100 * self.done / max(self.total, 1e-9):.0f}%", self.rate(), self.note)
        return "  ".join(filter(None, parts))

    def rate(self) -> str:
        """Rate and time left; without the time left until it can be estimated.

        >>> work = _Work("training", 100, "decisions")
        >>> work.rate()
        '0 s'
        """
        elapsed_s = self.elapsed_s()
        over = self.over or self.done >= self.total
        if self.unit.startswith("s "):  # seconds of an allocation pass at one per second
            return "" if over or not math.isfinite(self.total) else f"{format_duration(self.total - self.done)} left"
        if self.done <= self._before or elapsed_s <= 0:
            return format_duration(elapsed_s)
        rate = (self.done - self._before) / elapsed_s
        speed = f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.2g}/s" if rate >= 0.1 else f"{60 * rate:.2g}/min"
        if over:
            return f"{speed}, took {format_duration(elapsed_s)}"
        left_s = self._left_s()
        return speed if left_s is None else f"{speed}, {format_duration(left_s)} left"

    def _left_s(self) -> float | None:
        seen_s, seen = time.monotonic() - self._first_s, self.done - self._first
        share = seen / (self.total - self._before)
        known = seen_s >= KNOWN_S or (share >= KNOWN_SHARE and self._times >= KNOWN_TIMES)
        return (self.total - self.done) * seen_s / seen if known and seen > 0.0 else None


class _Shown(ABC):
    """Common part of bars and lines; a timer shows the work after two seconds, even without an advance."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._work = _Work("", 0.0, "")
        self._first = threading.Timer(0.0, self.stop)

    def start(self, what: str, total: float, unit: str, done: float = 0.0) -> None:
        """Begin a piece of work; nothing is shown for two seconds."""
        self.stop()
        self._work = _Work(what, total, unit, done)
        self._first = threading.Timer(QUIET_S, self.advance, (0.0,))
        self._first.daemon = True
        self._first.start()

    def advance(self, amount: float, note: str = "") -> None:
        """Add ``amount``, and update the display when it is time."""
        with self._lock:
            self._work.add(amount)
            self._work.note = note or self._work.note
            if self._work.what:
                self._show()

    def stop(self) -> None:
        """End the work; shows how long it took if anything was shown."""
        self._first.cancel()
        with self._lock:
            self._work.over = True
            if self._work.what:
                self._end()
            self._work = _Work("", 0.0, "")

    @abstractmethod
    def _show(self) -> None: ...

    @abstractmethod
    def _end(self) -> None: ...


class Bar(_Shown):
    """A bar with rate and time left, for a terminal."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._console = Console(file=stream)
        self._bar: bars.Progress | None = None
        self._task = bars.TaskID(0)

    def _show(self) -> None:
        if self._bar is None and self._work.elapsed_s() >= QUIET_S:
            columns: list[str | bars.ProgressColumn] = [_WorkColumn(self._work, _Work.summary)]
            if self._console.width >= NARROW:
                columns = ["{task.description}", bars.BarColumn(), bars.TaskProgressColumn()]
                columns += [_WorkColumn(self._work, read) for read in (_Work.rate, lambda work: work.note)]
            self._bar = bars.Progress(*columns, console=self._console)
            total = self._work.total if math.isfinite(self._work.total) else None
            self._task = self._bar.add_task(self._work.what, total=total)
            self._bar.start()
        if self._bar is not None:
            self._bar.update(self._task, completed=self._work.done)

    def _end(self) -> None:
        if self._bar is not None:
            self._show()
            self._bar.stop()  # the last state stays on the screen
            self._bar = None


class _WorkColumn(bars.ProgressColumn):
    """A text that is read from the work at each redraw, so that times go on between advances."""

    def __init__(self, work: _Work, read: Callable[[_Work], str]) -> None:
        super().__init__(Column(no_wrap=True))
        self._work, self._read = work, read

    def render(self, task: bars.Task) -> Text:
        """The current text."""
        return Text(self._read(self._work))


class Lines(_Shown):
    """Plain lines, at most one in ten seconds, for a file or the output of a batch job."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._printed_s = 0.0

    def start(self, what: str, total: float, unit: str, done: float = 0.0) -> None:
        """Begin a piece of work; the first line comes after two seconds."""
        self._printed_s = time.monotonic() - LINE_EVERY_S + QUIET_S
        super().start(what, total, unit, done)

    def _show(self) -> None:
        if time.monotonic() - self._printed_s >= LINE_EVERY_S and self._work.done < self._work.total:
            self._printed_s = time.monotonic()
            self._print()

    def _end(self) -> None:
        if self._work.elapsed_s() > QUIET_S:
            self._print()

    def _print(self) -> None:
        work = self._work
        total = f" of {work.total:,.0f}" if math.isfinite(work.total) else ""
        parts = (f"{work.what}: {work.done:,.0f}{total} {work.unit}", work.rate(), work.note)
        print(", ".join(filter(None, parts)), file=self._stream, flush=True)


def progress(quiet: bool = False, stream: TextIO | None = None) -> Progress:
    """A bar for terminals, lines elsewhere, nothing if ``quiet``; on standard error unless ``stream`` is given."""
    stream = stream or sys.stderr
    if quiet:
        return Silent()
    moves = stream.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")
    return Bar(stream) if moves else Lines(stream)
