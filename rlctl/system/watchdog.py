"""Limits the time of calls into plug-in code, e.g. a rule in an endless loop or a campaign that waits for a lock.

``watching`` starts a watchdog thread for the code inside; ``rlctl.core.plugin_calls.asking`` marks each call. The
thread checks several times a second whether the same call still runs, which costs the calls themselves next to nothing.
It interrupts a call that takes too long by a signal whose handler raises ``NoAnswer``: that ends Python loops, sleeps,
locks and most network waits. A call that cannot be interrupted ends with the process, if this may exit.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import math
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType
from typing import NoReturn

from rlctl.core.errors import NoAnswerError, StoppedError
from rlctl.core.plugin_calls import WATCH
from rlctl.system.crash_report import origin

TIMEOUT = "evaluate.decision_timeout_s"
"""The key of the limit wherever nothing is steered."""

_LOOK_S = 1.0
_GRACE_S = 5.0
"""For a call that was interrupted, or whose process was asked to stop."""
_AGAIN_S = 2.0
"""Between two interrupts of one call, which may catch the first; long enough for the first to end the call."""

_INTERRUPT = signal.SIGURG
"""Ignored by default, so a late one does no harm."""

_STOPS = (signal.SIGINT, signal.SIGTERM)

_EXIT_ALLOWED: ContextVar[bool] = ContextVar("exit_allowed", default=False)


class NoAnswer(BaseException):
    """Raised inside a call that takes longer than its limit."""


class WatchedCall:
    """One call of plug-in code; a context manager. Its arguments are those of ``rlctl.core.plugin_calls.asking``."""

    __slots__ = ("_outer", "_watch", "times", "what", "who")

    def __init__(self, watch: Watch, who: str, what: object, times: int) -> None:
        self._watch, self.who, self.what, self.times = watch, who, what, times
        self._outer: WatchedCall | None = None

    def __enter__(self) -> None:
        self._outer, self._watch.call = self._watch.call, self
        if self._watch.steering:
            _second_signal_kills(True)

    def __exit__(self, *exception: object) -> None:
        self._watch.call = self._outer  # first: from here on nothing interrupts
        if self._watch.steering:
            _second_signal_kills(False)


class Watch:
    """A thread that watches the calls of the thread which created it.

    Attributes:
        call: the innermost running call; None outside of calls.
        overdue: a call that has exceeded its limit.
        exits: whether the process may exit to end a call.
        steering: whether a second stop signal kills the process during calls only.
    """

    def __init__(self, limit_s: float | None, option: str, give_up: Callable[[str], None] | None) -> None:
        self.call: WatchedCall | None = None
        self.overdue: WatchedCall | None = None
        self.limit_s = math.inf if limit_s is None else limit_s
        self._option, self._give_up = option, give_up
        self._main = threading.current_thread() is threading.main_thread()
        self._thread_id = threading.get_ident()
        self.exits = self._main and _EXIT_ALLOWED.get()
        self.steering = self.exits and give_up is not None
        self._reader, self.writer = os.pipe()  # numbers of signals; 0 at the end
        os.set_blocking(self.writer, False)
        self._thread = threading.Thread(target=self._run, name="rlctl-watchdog", daemon=True)
        self._thread.start()

    def calling(self, who: str, what: object, times: int) -> WatchedCall:
        """Mark one call; see ``rlctl.core.plugin_calls.asking``."""
        return WatchedCall(self, who, what, times)

    def message(self, call: WatchedCall, error: BaseException | None = None) -> str:
        """One line on a call that exceeded its limit; ``error`` shows where it was."""
        where = "" if error is None else origin(error).place
        where = f" (it was at {where})" if where else ""
        return (
            f"{call.who} has not answered {call.what} within {self.limit_s * call.times:g} s{where}: correct it, or "
            f"allow it more time by {self._option}"
        )

    def close(self) -> None:
        """End the thread."""
        os.write(self.writer, b"\0")
        self._thread.join()
        os.close(self.writer)
        os.close(self._reader)

    def on_interrupt(self, number: int, frame: FrameType | None) -> None:
        """Signal handler: raise in the call that is overdue, unless it has just returned."""
        __tracebackhide__ = True  # the code above has not called this: see ``crash_report.origin``
        if self.overdue is not None and self.call is self.overdue:
            raise NoAnswer

    def _run(self) -> None:
        period_s = min(_LOOK_S, max(self.limit_s / 4.0, 0.01))
        seen: WatchedCall | None = None
        stop_requested = False
        waited_s = stopping_s = next_s = 0.0
        last_s = time.monotonic()
        while True:
            if select.select([self._reader], [], [], period_s)[0]:
                numbers = os.read(self._reader, 4096)
                if 0 in numbers:
                    return
                stop_requested |= not set(numbers).isdisjoint(_STOPS)
            now_s = time.monotonic()
            passed_s, last_s = min(now_s - last_s, 2.0 * period_s), now_s  # no more where this process was suspended
            call = self.call
            if call is None or call is not seen:
                seen, waited_s, stopping_s = call, 0.0, 0.0
                continue
            waited_s += passed_s
            stopping_s += passed_s * stop_requested
            if self.exits and stopping_s > _GRACE_S:
                self._exit("", 130)
            if waited_s >= self.limit_s * call.times:
                if now_s >= next_s or self.overdue is not call:
                    self.overdue, next_s = call, now_s + _AGAIN_S
                    self._interrupt()
                if self.exits and waited_s >= self.limit_s * call.times + _GRACE_S:
                    self._exit(self.message(call), (StoppedError if self.steering else NoAnswerError).exit_code)

    def _interrupt(self) -> None:
        if self._main:
            signal.pthread_kill(self._thread_id, _INTERRUPT)
        else:  # this reaches Python code only
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._thread_id), ctypes.py_object(NoAnswer))

    def _exit(self, why: str, code: int) -> NoReturn:
        if self._give_up is not None:
            thread = threading.Thread(target=self._give_up, args=(why,), daemon=True)
            thread.start()
            thread.join(4.0 * _GRACE_S)
        text = f"{why}; nothing interrupts it, so that this process has ended itself" if why else "stopped"
        with contextlib.suppress(OSError):
            os.write(2, f"rlctl: {text}\n".encode(errors="replace"))
        os._exit(code)


def limit_s() -> float | None:
    """Time limit of a call here; None: unlimited."""
    watch = _current()
    return None if watch is None or math.isinf(watch.limit_s) else watch.limit_s


def allow_exit() -> None:
    """Let watchdogs exit this process where nothing else ends a call: it is rlctl's own command."""
    _EXIT_ALLOWED.set(True)


def interruptible() -> bool:
    """Whether plug-in code runs now, where an exception in a signal handler cannot damage rlctl's own state."""
    watch = _current()
    return watch is not None and watch.call is not None


def timeout_message(error: NoAnswer) -> str:
    """One line on the call that exceeded its limit."""
    watch = _current()
    return str(error) if watch is None or watch.overdue is None else watch.message(watch.overdue, error)


@contextmanager
def watching(
    limit_s: float | None, option: str, give_up: Callable[[str], None] | None = None, *, signals: bool = True
) -> Iterator[None]:
    """Limit the time of the calls inside; has no effect inside another ``watching``.

    Args:
        limit_s: for each call; None: no limit, but stop signals still end calls.
        option: the key that sets the limit, for the message.
        give_up: cleans up, in another thread, before the process exits because a call cannot be interrupted. Its
            argument is the reason: the message on the call, or empty after a stop signal.
        signals: whether SIGINT and SIGTERM end a call that cannot be interrupted, and a second one kills.

    Raises:
        NoAnswerError: a call exceeded its limit; the line says which, and what to do.
    """
    if _current() is not None:
        yield
        return
    watch = Watch(limit_s, option, give_up)
    token = WATCH.set(watch)
    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(_INTERRUPT, watch.on_interrupt) if main else None
    signals = signals and watch.exits
    wakeup = signal.set_wakeup_fd(watch.writer, warn_on_full_buffer=False) if signals else -1
    if signals and not watch.steering:
        _second_signal_kills(True)
    try:
        yield
    except NoAnswer as error:
        raise NoAnswerError(timeout_message(error)) from error
    finally:
        WATCH.reset(token)
        if signals:
            signal.set_wakeup_fd(wakeup)
            _second_signal_kills(False)
        if main:
            signal.signal(_INTERRUPT, before)
        watch.close()


def _current() -> Watch | None:
    watch = WATCH.get()
    return watch if isinstance(watch, Watch) else None


def _second_signal_kills(on: bool) -> None:
    """Let a second SIGINT or SIGTERM kill where C code holds the interpreter lock, so that no Python handler runs."""
    for number in _STOPS:
        if callable(handler := signal.getsignal(number)):
            signal.signal(number, handler)
            if on and (one_shot := _one_shot_handler()):
                one_shot(number)


@functools.cache
def _one_shot_handler() -> Callable[[int], object] | None:
    """Install Python's own handler for one signal only: the next one has its default action (glibc)."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.signal.restype = ctypes.c_void_p
        before = signal.signal(_INTERRUPT, lambda number, frame: None)
        address = ctypes.c_void_p(libc.signal(int(_INTERRUPT), None))  # the same for all signals
        signal.signal(_INTERRUPT, before)
        return lambda number: libc.sysv_signal(int(number), address)
    return None
