"""Waits for events of tasks, on real or virtual time, and takes them."""

from __future__ import annotations

from rlctl.core.errors import AllocationEnds
from rlctl.core.task import Event
from rlctl.executors.backend import Backend
from rlctl.executors.dispatch import Dispatcher
from rlctl.executors.local.processes import capped

_Taken = tuple[list[Event], list[tuple[Backend, str]]]


class EventWait:
    """See the module; ``Executor.wait`` for what it waits for."""

    def __init__(self, dispatch: Dispatcher) -> None:
        self._dispatch = dispatch
        self._seen = self._version  # of the nodes, when events were taken last

    def wait(self, timeout_s: float | None, idle: bool) -> list[Event]:
        """Start what fits, wait for the next events, and record them.

        Records are written without the lock, which the journal's thread needs meanwhile.
        """
        events, ended = self._await(timeout_s, idle)
        log = self._dispatch.task_log
        if log is not None:
            log.returned(events)
            with self._dispatch.lock:
                for backend, key in ended:
                    backend.acknowledge(key)
        return events

    def _await(self, timeout_s: float | None, idle: bool) -> _Taken:
        dispatch, first = self._dispatch, True
        end_s = None if timeout_s is None else dispatch.now() + timeout_s
        while True:
            with dispatch.lock:
                dispatch.breaker.check()
                if dispatch.expires and not dispatch.closing:
                    raise AllocationEnds
                if first:
                    for pool in dispatch.pools:
                        pool.drop_unclaimed()
                elif self._may_return(idle):
                    return self._take()
                dispatch.start_what_fits()  # calls end without an event, so that others have room now
                if self._may_return(idle):
                    return self._take()
                left_s = None if end_s is None else max(end_s - dispatch.now(), 0.0)
                if dispatch.clock is not None:
                    events = dispatch.pools[0].backend.poll(left_s)
                    dispatch.handle(dispatch.pools[0], events)
                    if not events or left_s == 0.0 or dispatch.pending:
                        return self._take()
            first = False
            if dispatch.clock is None:
                with dispatch.lock.lock:
                    if not self._may_return(idle) and dispatch.broken is None and not dispatch.expires:
                        dispatch.news.wait(capped(left_s))
                if left_s == 0.0:
                    with dispatch.lock:
                        return self._take()

    def _may_return(self, idle: bool) -> bool:
        """Whether there is something to report, or nothing to wait for."""
        if self._dispatch.pending:
            return True
        scheduler = self._dispatch.scheduler
        return self._version != self._seen if idle else len(scheduler.tasks) == scheduler.held

    @property
    def _version(self) -> int:
        """Changes when nodes come or go."""
        pools = self._dispatch.scheduler.pools
        return pools[0].version if len(pools) == 1 else sum(pool.version for pool in pools)

    def _take(self) -> _Taken:
        self._seen = self._version
        return self._dispatch.take()
