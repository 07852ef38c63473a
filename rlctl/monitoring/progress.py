"""Progress of anything that takes longer than two seconds: how far, how fast, how long still."""

from __future__ import annotations

import os
import sys
import time
from typing import Protocol, TextIO

import rich.progress as bars
from rich.console import Console

QUIET_S = 2.0
LINE_EVERY_S = 10.0


class Progress(Protocol):
    """Told by whoever works; one piece of work at a time."""

    def start(self, what: str, total: float, unit: str, done: float = 0.0) -> None:
        """A piece of work begins: ``total`` of ``unit`` (plural, e.g. ``"decisions"``), ``done`` of it earlier."""

    def advance(self, amount: float, note: str = "") -> None:
        """``amount`` more is done; ``note`` is a few words on how it goes."""

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


class Bar:
    """A bar with rate and time left, for a terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream)
        self._bar: bars.Progress | None = None
        self._task = bars.TaskID(0)
        self._work = _Work("", 0.0, "")

    def start(self, what: str, total: float, unit: str, done: float = 0.0) -> None:
        """Begin; the bar shows after two seconds."""
        self.stop()
        self._work = _Work(what, total, unit, done)

    def advance(self, amount: float, note: str = "") -> None:
        """Move the bar."""
        self._work.done += amount
        if self._bar is None and self._work.elapsed_s() > QUIET_S:
            self._bar = bars.Progress(
                bars.TextColumn("{task.description}"),
                bars.BarColumn(),
                bars.TaskProgressColumn(),
                bars.TextColumn("{task.fields[rate]}"),
                bars.TextColumn("{task.fields[note]}"),
                console=self._console,
            )
            self._task = self._bar.add_task(self._work.what, total=self._work.total, rate="", note="")
            self._bar.start()
        if self._bar is not None:
            self._bar.update(self._task, completed=self._work.done, rate=self._work.rate(), note=note)

    def stop(self) -> None:
        """Leave the last state of the bar on the screen."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class Lines:
    """Plain lines, at most one in ten seconds, for a file or a batch job's output."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._work = _Work("", 0.0, "")
        self._note = ""
        self._said_s = 0.0

    def start(self, what: str, total: float, unit: str, done: float = 0.0) -> None:
        """Begin; the first line comes after two seconds."""
        self._work = _Work(what, total, unit, done)
        self._said_s = time.monotonic() - LINE_EVERY_S + QUIET_S

    def advance(self, amount: float, note: str = "") -> None:
        """Count, and say so when it is time."""
        self._work.done += amount
        self._note = note
        if time.monotonic() - self._said_s >= LINE_EVERY_S and self._work.done < self._work.total:
            self._said_s = time.monotonic()
            self._say(note)

    def stop(self) -> None:
        """Say how long it took, if that was long enough to wonder."""
        if self._work.what and self._work.elapsed_s() > QUIET_S:
            self._say(self._note)
        self._work = _Work("", 0.0, "")

    def _say(self, note: str) -> None:
        work = self._work
        line = f"{work.what}: {work.done:,.0f} of {work.total:,.0f} {work.unit}, {work.rate()}"
        print(line + (f", {note}" if note else ""), file=self._stream, flush=True)


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
        self._began_s = time.monotonic()

    def elapsed_s(self) -> float:
        return time.monotonic() - self._began_s

    def rate(self) -> str:
        """Rate and time left, for people.

        >>> work = _Work("training", 100, "decisions")
        >>> work.rate()
        '0 s'
        """
        elapsed_s = self.elapsed_s()
        if self.done <= self._before or elapsed_s <= 0:
            return duration(elapsed_s)
        rate = (self.done - self._before) / elapsed_s
        speed = f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.2g}/s" if rate >= 0.1 else f"{60 * rate:.2g}/min"
        if self.done >= self.total:
            return f"{speed}, took {duration(elapsed_s)}"
        return f"{speed}, {duration((self.total - self.done) / rate)} left"


def duration(seconds: float) -> str:
    """Seconds for people.

    >>> duration(59), duration(192), duration(7500)
    ('59 s', '3:12 min', '2:05 h')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60}:{whole % 60:02} min" if whole < 3600 else f"{whole // 3600}:{whole % 3600 // 60:02} h"
