"""The threads that poll the backends of an executor, one for each, until all tasks have ended; then they close it."""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Callable
from functools import partial

from rlctl.executors.dispatch import Dispatcher
from rlctl.executors.driven_pool import DrivenPool


def serve(dispatch: Dispatcher) -> None:
    """Start the threads; with a virtual clock there is one only if tasks start by themselves."""
    for number, pool in enumerate(dispatch.pools):
        if dispatch.clock is None or dispatch.eager:
            work = partial(_serve, dispatch, pool)
            pool.thread = threading.Thread(target=work, name=f"rlctl-executor-{number}", daemon=True)
            pool.thread.start()


def call_at_exit(method: weakref.WeakMethod[Callable[[], None]]) -> Callable[[], None]:
    """Call a method when the interpreter ends, but not in a forked process; returns what ``atexit`` can unregister."""
    pid = os.getpid()

    def call() -> None:
        if (alive := method()) is not None and os.getpid() == pid:
            alive()

    atexit.register(call)
    return call


def join(dispatch: Dispatcher) -> bool:
    """Wait until all threads have ended; False if there are none, or this is one of them."""
    threads = [pool.thread for pool in dispatch.pools if pool.thread is not None]
    if not threads or threading.current_thread() in threads:
        return False
    for thread in threads:
        thread.join()
    return True


def _serve(dispatch: Dispatcher, pool: DrivenPool) -> None:
    """Poll a backend; whatever comes, close it in the end."""
    dispatch.breaker.guarded(partial(_run_clock if dispatch.clock is not None else _poll, dispatch, pool))
    dispatch.breaker.guarded(partial(_close, dispatch, pool))


def _poll(dispatch: Dispatcher, pool: DrivenPool) -> None:
    while True:
        with dispatch.lock:
            if dispatch.closing and _is_over(dispatch):
                return
        events = pool.backend.poll(None)
        with dispatch.lock:
            dispatch.handle(pool, events)
            dispatch.pump()


def _run_clock(dispatch: Dispatcher, pool: DrivenPool) -> None:
    while True:
        with dispatch.lock.lock:
            while not dispatch.scheduler.running or dispatch.broken is not None:
                if _is_over(dispatch):
                    return
                dispatch.news.wait()
        with dispatch.lock:
            dispatch.handle(pool, events := pool.backend.poll(None))
            dispatch.pump()
        if not events:  # everything that runs, hangs: until it is stopped
            with dispatch.lock.lock:
                dispatch.news.wait(0.05)


def _is_over(dispatch: Dispatcher) -> bool:
    return dispatch.broken is not None or (dispatch.closing and not dispatch.scheduler.tasks)


def _close(dispatch: Dispatcher, pool: DrivenPool) -> None:
    with dispatch.lock:
        if dispatch.broken is None:
            pool.drop_unclaimed()
            dispatch.acknowledge()
        pool.closed = True
    pool.backend.close(keep_outcomes=dispatch.broken is not None)
    if all(each.closed for each in dispatch.pools):
        with dispatch.lock:
            dispatch.scheduler.clear()
