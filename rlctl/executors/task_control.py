"""What users ask of tasks that are queued or running; every function needs the lock of the dispatcher."""

from __future__ import annotations

from dataclasses import replace

from rlctl.core.task import Resources, TaskId, TaskState
from rlctl.executors.dispatch import Dispatcher
from rlctl.executors.driven_pool import possible_pools
from rlctl.executors.task_state import WAITING

STOP_S = 5.0
"""Seconds between SIGTERM and SIGKILL for a task that is canceled, or preempted by its owner."""


def cancel_task(dispatch: Dispatcher, uid: TaskId, grace_s: float) -> None:
    """Stop a task, or withdraw it."""
    known, now_s = dispatch.scheduler.tasks.get(uid), dispatch.now()
    if known is not None and known.state in WAITING:
        dispatch.withdrawn(known)
    task = dispatch.scheduler.cancel(uid, now_s)
    if task is not None:
        dispatch.stop(task, grace_s)


def signal_task(dispatch: Dispatcher, uid: TaskId, number: int) -> None:
    """Send a signal to a running task."""
    task = dispatch.scheduler.running.get(uid)
    if task is not None and task.state in (TaskState.RUNNING, TaskState.SUSPENDED):
        backend = dispatch.backend_of(task)
        if backend is not None:
            backend.signal(task.key, number)


def hold_task(dispatch: Dispatcher, uid: TaskId) -> None:
    """Keep a task from starting, or suspend it."""
    task = dispatch.scheduler.hold(uid, dispatch.now())
    if task is not None:
        dispatch.suspend(task)


def release_task(dispatch: Dispatcher, uid: TaskId) -> None:
    """Undo ``hold``."""
    task = dispatch.scheduler.unhold(uid, dispatch.now())
    if task is not None:
        backend = dispatch.backend_of(task)
        if backend is not None:
            backend.resume(task.key)
        dispatch.scheduler.enter(task, TaskState.RUNNING, dispatch.now())


def update_task(dispatch: Dispatcher, uid: TaskId, priority: float | None, resources: Resources | None) -> None:
    """Change what a task asks for.

    Raises:
        LaunchError: it can never run with these resources; nothing is changed.
    """
    task = dispatch.scheduler.tasks.get(uid)
    if task is None:
        return
    pools, waits = task.pools, resources is not None and task.state in WAITING
    if resources is not None:
        pools = possible_pools(dispatch.pools, replace(task.spec, resources=resources))
    if waits:
        dispatch.announce(task, waits=False)
    if dispatch.scheduler.update(task, priority, resources, pools) is not None:
        dispatch.stop(task, STOP_S)
    elif waits:
        dispatch.announce(task, waits=True)


def resize_pools(dispatch: Dispatcher, nodes: int) -> None:
    """Have so many nodes, those with the lowest numbers; more than there were are the last pool's.

    Raises:
        LaunchError: so many cannot be had.
    """
    for pool in dispatch.pools:
        size = nodes if pool is dispatch.pools[-1] else min(nodes, pool.planned)
        nodes -= size
        if size != pool.nodes.nodes:
            pool.backend.resize(size)
            stopped = dispatch.scheduler.resize(pool.nodes, size)
            pool.look()
            for task in stopped:
                dispatch.stop(task, STOP_S)


def close_up(dispatch: Dispatcher, cancel_futures: bool) -> None:
    """Take no more tasks; withdraw what waits, or let go of what is held: nothing else may be left to do so."""
    dispatch.closing = True
    for task in list(dispatch.scheduler.tasks.values()):
        if cancel_futures and task.state in WAITING:
            cancel_task(dispatch, task.uid, 0.0)
        elif task.state in (TaskState.HELD, TaskState.SUSPENDED) or task.hold:
            release_task(dispatch, task.uid)
