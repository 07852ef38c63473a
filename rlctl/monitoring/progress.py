"""Progress of anything that takes longer than two seconds: how far, how fast, how long still."""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Protocol, TextIO

import rich.progress as bars
from rich.console import Console
from rich.table import Column
from rich.text import Text

from rlctl.monitoring.formatting import format_duration

QUIET_S = 2.0
LINE_EVERY_S = 10.0
KNOWN_S, KNOWN_SHARE, KNOWN_TIMES = 5.0, 0.1, 3
"""The time left is told once the pace has been seen for so long, or over such a share of the work in so many parts."""
NARROW = 80
"""Columns of a terminal below which there is no room for a bar."""


class Progress(Protocol):
    """Told by whoever works; one piece of work at a time."""

    def start(self, what: str, total: float, unit: str, done: float = 0.0) -> None:
        """A piece of work begins: ``total`` of ``unit`` (plural, e.g. ``"decisions"``), ``done`` of it earlier."""

    def advance(self, amount: float, note: str = "") -> None:
        """``amount`` more is done; ``note`` is a few words on how it goes, kept until there are others."""

    def stop(self) -> None:
        """The piece of work is over, done or not."""


class Silent:
    """Says nothing."""

    def start(self, what: str, total: float, unit: str, done: float = 0.0) -> None:
        """Do nothing."""

    def advance(self, amount: float, note: str = "") -> None:
        """Do nothing."""

    def stop(self) -> None:
        """Do nothing."""


class _Shown:
    """What bars and lines have in common; something shows after two seconds, even if nothing is told until then."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._work = _Work("", 0.0, "")
        self._first = threading.Timer(0.0, self.stop)  # nothing to show yet

    def start(self, what: str, total: float, unit: str, done: float = 0.0) -> None:
        """Begin; the first sign comes after two seconds."""
        self.stop()
        self._work = _Work(what, total, unit, done)
        self._first = threading.Timer(QUIET_S, self.advance, (0.0,))
        self._first.daemon = True
        self._first.start()

    def advance(self, amount: float, note: str = "") -> None:
        """Count, and show it when it is time; a note stays until the next one."""
        with self._lock:
            self._work.count(amount)
            self._work.note = note or self._work.note
            if self._work.what:
                self._show()

    def stop(self) -> None:
        """Say how long it took, if that was long enough to wonder."""
        self._first.cancel()
        with self._lock:
            self._work.over = True
            if self._work.what:
                self._end()
            self._work = _Work("", 0.0, "")

    def _show(self) -> None:
        raise NotImplementedError

    def _end(self) -> None:
        raise NotImplementedError


class Bar(_Shown):
    """A bar with rate and time left, for a terminal."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._console = Console(file=stream)
        self._bar: bars.Progress | None = None
        self._task = bars.TaskID(0)

    def _show(self) -> None:
        if self._bar is None and self._work.elapsed_s() >= QUIET_S:
            narrow = (_Words(lambda: self._work.words()),)
            wide = (
                bars.TextColumn("{task.description}"),
                bars.BarColumn(),
                bars.TaskProgressColumn(),
                _Words(lambda: self._work.rate()),
                _Words(lambda: self._work.note),
            )
            columns = narrow if self._console.width < NARROW else wide
            self._bar = bars.Progress(*columns, console=self._console)
            self._task = self._bar.add_task(
                self._work.what, total=self._work.total if math.isfinite(self._work.total) else None
            )
            self._bar.start()
        if self._bar is not None:
            self._bar.update(self._task, completed=self._work.done)

    def _end(self) -> None:
        if self._bar is not None:
            self._show()
            self._bar.stop()  # its last state stays on the screen
            self._bar = None


class _Words(bars.ProgressColumn):
    """Words that are asked for whenever the bar is drawn, so that the time goes on though nothing is told."""

    def __init__(self, words: Callable[[], str]) -> None:
        super().__init__(Column(no_wrap=True))
        self._words = words

    def render(self, task: bars.Task) -> Text:
        """As they are now."""
        return Text(self._words())


class Lines(_Shown):
    """Plain lines, at most one in ten seconds, for a file or a batch job's output."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._said_s = 0.0

    def start(self, what: str, total: float, unit: str, done: float = 0.0) -> None:
        """Begin; the first line comes after two seconds."""
        self._said_s = time.monotonic() - LINE_EVERY_S + QUIET_S
        super().start(what, total, unit, done)

    def _show(self) -> None:
        if time.monotonic() - self._said_s >= LINE_EVERY_S and self._work.done < self._work.total:
            self._said_s = time.monotonic()
            self._say()

    def _end(self) -> None:
        if self._work.elapsed_s() > QUIET_S:
            self._say()

    def _say(self) -> None:
        work = self._work
        total = f" of {work.total:,.0f}" if math.isfinite(work.total) else ""
        parts = (f"{work.what}: {work.done:,.0f}{total} {work.unit}", work.rate(), work.note)
        print(", ".join(filter(None, parts)), file=self._stream, flush=True)


def progress(quiet: bool = False, stream: TextIO | None = None) -> Progress:
    """The right kind of progress for where it is written to (standard error unless ``stream`` is given)."""
    stream = stream or sys.stderr
    if quiet:
        return Silent()
    moves = stream.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")
    return Bar(stream) if moves else Lines(stream)


class _Work:
    """How much is done of what, since when."""

    def __init__(self, what: str, total: float, unit: str, done: float = 0.0) -> None:
        self.what, self.total, self.unit = what, total, unit
        self.done = self._before = done
        self.note, self.over = "", False
        self._began_s = self._first_s = time.monotonic()
        self._first, self._times = done, 0

    def count(self, amount: float) -> None:
        """``amount`` more is done. What comes before the first of it, such as starting processes, is no pace."""
        self.done += amount
        if amount > 0.0:
            self._times += 1
            if self._times == 1:
                self._first, self._first_s = self.done, time.monotonic()

    def elapsed_s(self) -> float:
        return time.monotonic() - self._began_s

    def words(self) -> str:
        parts = (self.what, f"{100 * self.done / max(self.total, 1e-9):.0f}%", self.rate(), self.note)
        return "  ".join(filter(None, parts))

    def rate(self) -> str:
        """Rate and time left, for people; no time left before it is known.

        >>> work = _Work("training", 100, "decisions")
        >>> work.rate()
        '0 s'
        """
        elapsed_s = self.elapsed_s()
        over = self.over or self.done >= self.total
        if self.unit.startswith("s "):  # seconds pass at one per second, whenever they began
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
        """At the pace since the first part of this life was done; None: that tells too little as yet."""
        seen_s, seen = time.monotonic() - self._first_s, self.done - self._first
        share = seen / (self.total - self._before)
        known = seen_s >= KNOWN_S or (share >= KNOWN_SHARE and self._times >= KNOWN_TIMES)
        return (self.total - self.done) * seen_s / seen if known and seen > 0.0 else None
