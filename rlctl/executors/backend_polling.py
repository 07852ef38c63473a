"""Polls the backends, each in its thread, or, with a virtual clock, inside ``Executor.wait``; waits for events."""

from __future__ import annotations

import threading
from functools import partial

from rlctl.core.errors import AllocationEnds
from rlctl.core.task import Event
from rlctl.executors.backend import Backend
from rlctl.executors.dispatch import Dispatcher
from rlctl.executors.driven_pool import DrivenPool
from rlctl.executors.local.processes import capped


def serve(dispatch: Dispatcher) -> None:
    """Start the threads; with a virtual clock there is one only if tasks start by themselves."""
    for number, pool in enumerate(dispatch.pools):
        if dispatch.clock is None or dispatch.eager:
            work = partial(_serve, dispatch, pool)
            pool.thread = threading.Thread(target=work, name=f"rlctl-executor-{number}", daemon=True)
            pool.thread.start()


def join(dispatch: Dispatcher) -> bool:
    """Wait until all threads have ended; False if there are none, or this is one of them."""
    threads = [pool.thread for pool in dispatch.pools if pool.thread is not None]
    if not threads or threading.current_thread() in threads:
        return False
    for thread in threads:
        thread.join()
    return True


def wait_for_events(dispatch: Dispatcher, timeout_s: float | None, idle: bool, starts: bool = True) -> list[Event]:
    """Start what fits, wait for the next events, and record them; see ``Executor.wait``.

    Records are written without the lock, which the journal's thread needs meanwhile.
    """
    events, ended = _await(dispatch, timeout_s, idle, starts)
    if dispatch.task_log is not None:
        dispatch.task_log.returned(events)
        with dispatch.lock:
            for backend, key in ended:
                backend.acknowledge(key)
    return events


def _await(
    dispatch: Dispatcher, timeout_s: float | None, idle: bool, starts: bool
) -> tuple[list[Event], list[tuple[Backend, str]]]:
    first, end_s = True, None if timeout_s is None else dispatch.now() + timeout_s
    while True:
        with dispatch.lock:
            if dispatch.broken is not None:
                raise dispatch.broken
            if dispatch.expires and not dispatch.closing:
                raise AllocationEnds
            if first:
                for pool in dispatch.pools:
                    pool.drop_unclaimed()
            elif dispatch.has_news(idle):
                return dispatch.take()
            if starts:
                dispatch.start_what_fits()  # calls end without an event, so that others have room now
            if dispatch.has_news(idle):
                return dispatch.take()
            left_s = None if end_s is None else max(end_s - dispatch.now(), 0.0)
            if dispatch.clock is not None:
                events = dispatch.pools[0].backend.poll(left_s)
                dispatch.handle(dispatch.pools[0], events)
                if not events or left_s == 0.0 or dispatch.pending:
                    return dispatch.take()
        first = False
        if dispatch.clock is None:
            with dispatch.lock.news:
                if not dispatch.has_news(idle) and dispatch.broken is None and not dispatch.expires:
                    dispatch.lock.news.wait(capped(left_s))
            if left_s == 0.0:
                with dispatch.lock:
                    return dispatch.take()


def _serve(dispatch: Dispatcher, pool: DrivenPool) -> None:
    """Poll a backend until all has ended, or an error ends the executor; then close it."""
    dispatch.guarded(partial(_run_clock if dispatch.clock is not None else _poll, dispatch, pool))
    dispatch.guarded(partial(_close, dispatch, pool))


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
        with dispatch.lock.news:
            while not dispatch.scheduler.running or dispatch.broken is not None:
                if _is_over(dispatch):
                    return
                dispatch.lock.news.wait()
        with dispatch.lock:
            dispatch.handle(pool, events := pool.backend.poll(None))
            dispatch.pump()
        if not events:  # everything that runs, hangs: until it is stopped
            with dispatch.lock.news:
                dispatch.lock.news.wait(0.05)


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
