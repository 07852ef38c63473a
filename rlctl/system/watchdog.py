"""Ends a call of a plug-in's code that does not return: a rule in an endless loop, a campaign that waits for a lock.

``watching`` begins a watch for the code inside; ``asking`` marks one call of code that is not rlctl's. A thread looks
several times a second whether the same call is still on its way, which costs the calls themselves next to nothing. One
that takes too long is interrupted by a signal to its thread, whose handler raises: that ends loops of Python, sleeps,
locks and most waits for the network. What lets nothing interrupt it ends with the process, if this one may end so.
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
"""Between two interrupts of one call, which may catch the first; the second is not to come while that ends the call."""

_INTERRUPT = signal.SIGURG
"""Ignored by default, so that one which comes too late does no harm."""

_STOPS = (signal.SIGINT, signal.SIGTERM)


class NoAnswer(BaseException):
    """A call takes longer than it may; raised inside of it."""


class Call:
    """One call of code that is not rlctl's; a context manager.

    Attributes:
        who: e.g. "policy feedback".
        what: e.g. "decision 3".
        times: how many answers it gives, each of which may take its time.
    """

    __slots__ = ("_outer", "_watch", "times", "what", "who")

    def __init__(self, watch: Watch, who: str, what: object, times: int) -> None:
        self._watch, self.who, self.what, self.times = watch, who, what, times
        self._outer: Call | None = None

    def __enter__(self) -> None:
        self._outer, self._watch.call = self._watch.call, self
        if self._watch.arms:
            _second_signal_kills(True)

    def __exit__(self, *exception: object) -> None:
        self._watch.call = self._outer  # first: from here on nothing interrupts
        if self._watch.arms:
            _second_signal_kills(False)


class Watch:
    """What is being asked now.

    Attributes:
        call: the call that is on its way; None: none is.
        overdue: a call that has taken too long.
        limit_s: how long each may take; infinite: as long as it likes.
        arms: whether a second signal to stop kills the process during a call, and not before or after.
    """

    def __init__(self, limit_s: float | None, option: str, give_up: Callable[[str], None] | None, arms: bool) -> None:
        self.call: Call | None = None
        self.overdue: Call | None = None
        self.limit_s = math.inf if limit_s is None else limit_s
        self.give_up = give_up
        self.option = option
        self.arms = arms
        self.asked_to_stop = False
        self.thread = threading.get_ident()
        self.told, self.wake = os.pipe()  # numbers of signals; 0 at the end
        os.set_blocking(self.wake, False)

    def complaint(self, call: Call, error: BaseException | None = None) -> str:
        """What is said of a call that has not answered."""
        where = "" if error is None else origin(error).place
        where = f" (it was at {where})" if where else ""
        return (
            f"{call.who} has not answered {call.what} within {self.limit_s * call.times:g} s{where}: correct it, or "
            f"allow it more time by {self.option}"
        )

    def calling(self, who: str, what: object, times: int) -> Call:
        """Mark one call; see ``rlctl.core.plugin_calls.asking``."""
        return Call(self, who, what, times)

    def end(self, thread: threading.Thread) -> None:
        """The thread that looks ends."""
        os.write(self.wake, b"\0")
        thread.join()
        os.close(self.wake)
        os.close(self.told)


_MAY_EXIT: ContextVar[bool] = ContextVar("may_exit", default=False)


def _current() -> Watch | None:
    watch = WATCH.get()
    return watch if isinstance(watch, Watch) else None


def limit_s() -> float | None:
    """How long a call may take here; None: as long as it likes."""
    watch = _current()
    return None if watch is None or math.isinf(watch.limit_s) else watch.limit_s


def may_exit() -> None:
    """This process is rlctl's own: it may end without much ado where nothing else helps."""
    _MAY_EXIT.set(True)


def interruptible() -> bool:
    """Whether code that is not rlctl's runs now, in which an interrupt does no harm to rlctl's own books."""
    watch = _current()
    return watch is not None and watch.call is not None


def complaint(error: NoAnswer) -> str:
    """What is said of a call that took too long, in one line."""
    watch = _current()
    return str(error) if watch is None or watch.overdue is None else watch.complaint(watch.overdue, error)


@contextmanager
def watching(
    limit_s: float | None, option: str, give_up: Callable[[str], None] | None = None, *, signals: bool = True
) -> Iterator[None]:
    """Watch over calls inside; each may take ``limit_s``.

    Args:
        limit_s: None: as long as they like; signals to stop are seen to all the same.
        option: the key that sets the limit, for the message.
        give_up: what to do, from another thread, before the process ends where nothing interrupts a call. It is told
            why: what has not answered, or nothing if a signal has asked to stop.
        signals: whether signals to stop end a call that nothing interrupts, and a second one kills.

    Raises:
        NoAnswerError: one takes longer; the line says which, and what to do.
    """
    if _current() is not None:  # the outer watch sees all
        yield
        return
    main = threading.current_thread() is threading.main_thread()
    exits = main and _MAY_EXIT.get()
    watch = Watch(limit_s, option, give_up, arms=exits and give_up is not None)
    token = WATCH.set(watch)
    before = signal.signal(_INTERRUPT, lambda number, frame: _too_late(watch, frame)) if main else None
    signals = signals and exits
    noted = signal.set_wakeup_fd(watch.wake, warn_on_full_buffer=False) if signals else -1
    if signals and not watch.arms:
        _second_signal_kills(True)
    thread = threading.Thread(target=_look, args=(watch, main, exits), name="rlctl-watchdog", daemon=True)
    thread.start()
    try:
        yield
    except NoAnswer as error:
        raise NoAnswerError(complaint(error)) from error
    finally:
        WATCH.reset(token)
        if signals:
            signal.set_wakeup_fd(noted)
            _second_signal_kills(False)
        if main:
            signal.signal(_INTERRUPT, before)
        watch.end(thread)


def _too_late(watch: Watch, frame: FrameType | None) -> None:
    if watch.overdue is not None and watch.call is watch.overdue:
        raise NoAnswer


def _look(watch: Watch, main: bool, exits: bool) -> None:
    """Until the watch ends."""
    period_s = min(_LOOK_S, max(watch.limit_s / 4.0, 0.01))
    seen: Call | None = None
    waited_s = stopping_s = next_s = 0.0
    last_s = time.monotonic()
    while True:
        if select.select([watch.told], [], [], period_s)[0]:
            said = os.read(watch.told, 4096)
            if 0 in said:
                return
            watch.asked_to_stop |= not set(said).isdisjoint(_STOPS)
        now_s = time.monotonic()
        passed_s, last_s = min(now_s - last_s, 2.0 * period_s), now_s  # no more where this process was suspended
        call = watch.call
        if call is None or call is not seen:
            seen, waited_s, stopping_s = call, 0.0, 0.0
            continue
        waited_s += passed_s
        stopping_s += passed_s * watch.asked_to_stop
        if exits and stopping_s > _GRACE_S:
            _exit(watch, "", 130)
        if waited_s >= watch.limit_s * call.times:
            if now_s >= next_s or watch.overdue is not call:
                watch.overdue, next_s = call, now_s + _AGAIN_S
                _interrupt(watch, main)
            if exits and waited_s >= watch.limit_s * call.times + _GRACE_S:
                code = NoAnswerError.exit_code if watch.give_up is None else StoppedError.exit_code
                _exit(watch, watch.complaint(call), code)


def _interrupt(watch: Watch, main: bool) -> None:
    if main:
        signal.pthread_kill(watch.thread, _INTERRUPT)
    else:  # only what is Python's own is interrupted so
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(watch.thread), ctypes.py_object(NoAnswer))


def _exit(watch: Watch, why: str, code: int) -> NoReturn:
    """The process ends now; ``give_up`` has a while to bring to an end what it can."""
    if watch.give_up is not None:
        thread = threading.Thread(target=watch.give_up, args=(why,), daemon=True)
        thread.start()
        thread.join(4.0 * _GRACE_S)
    text = f"{why}; nothing interrupts it, so that this process has ended itself" if why else "stopped"
    with contextlib.suppress(OSError):
        os.write(2, f"rlctl: {text}\n".encode(errors="replace"))
    os._exit(code)


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


class _SignalAction(ctypes.Structure):
    """``struct sigaction`` of glibc and musl."""

    _fields_ = (
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_ulong * (1024 // (8 * ctypes.sizeof(ctypes.c_ulong)))),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    )


_SA_RESETHAND = -0x80000000


def _second_signal_kills(on: bool) -> None:
    """A second SIGINT or SIGTERM kills where Python could not attend to the first, since code in C does not let it."""
    with contextlib.suppress(OSError, AttributeError):
        libc = _libc()
        for number in _STOPS:
            action = _SignalAction()
            if libc.sigaction(int(number), None, ctypes.byref(action)) == 0 and action.handler:
                action.flags = action.flags | _SA_RESETHAND if on else action.flags & ~_SA_RESETHAND
                libc.sigaction(int(number), ctypes.byref(action), None)
