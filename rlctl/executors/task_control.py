"""Commands on tasks, and going on with those of a former controller; all need the lock of the dispatcher."""

from __future__ import annotations

from dataclasses import replace

from rlctl.core.task import Resources, TaskId, TaskState
from rlctl.executors.backend import Attempt, AttemptOutcome
from rlctl.executors.dispatch import Dispatcher
from rlctl.executors.driven_pool import possible_pools
from rlctl.executors.local.processes import GRACE_S
from rlctl.executors.naming import attempt_key
from rlctl.executors.recovery import Launched
from rlctl.executors.task_state import NODE_FAILURES, WAITING, Task, event_after

STOP_S = 5.0
"""Seconds between SIGTERM and SIGKILL for a task that is canceled, or preempted by its owner."""


def cancel(dispatch: Dispatcher, uid: TaskId, grace_s: float) -> None:
    """Stop a task, or withdraw it."""
    task, log, now_s = dispatch.scheduler.tasks.get(uid), dispatch.task_log, dispatch.now()
    if task is not None and task.state in WAITING and log is not None and log.at_once:
        task.stop = TaskState.CANCELED
        log.event(event_after(task, AttemptOutcome(stopped=True), now_s))
    if (running := dispatch.scheduler.cancel(uid, now_s)) is not None:
        dispatch.stop(running, grace_s)


def signal(dispatch: Dispatcher, uid: TaskId, number: int) -> None:
    """Send a signal to a running task."""
    task = dispatch.scheduler.running.get(uid)
    if task is not None and task.state in (TaskState.RUNNING, TaskState.SUSPENDED):
        backend = dispatch.backend_of(task)
        if backend is not None:
            backend.signal(task.key, number)


def hold(dispatch: Dispatcher, uid: TaskId) -> None:
    """Keep a task from starting, or suspend it."""
    task = dispatch.scheduler.hold(uid, dispatch.now())
    if task is not None:
        dispatch.suspend(task)


def release(dispatch: Dispatcher, uid: TaskId) -> None:
    """Undo ``hold``."""
    task = dispatch.scheduler.unhold(uid, dispatch.now())
    if task is not None:
        backend = dispatch.backend_of(task)
        if backend is not None:
            backend.resume(task.key)
        dispatch.scheduler.enter(task, TaskState.RUNNING, dispatch.now())


def update(dispatch: Dispatcher, uid: TaskId, priority: float | None, resources: Resources | None) -> None:
    """Change what a task asks for; nothing is changed where it can never run (``LaunchError``)."""
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


def resize(dispatch: Dispatcher, nodes: int) -> None:
    """Have so many nodes, those with the lowest numbers; more than there were are the last pool's."""
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
    """Take no more tasks; withdraw those that wait, or release those that are held."""
    dispatch.closing = True
    for task in list(dispatch.scheduler.tasks.values()):
        if cancel_futures and task.state in WAITING:
            cancel(dispatch, task.uid, 0.0)
        elif task.state in (TaskState.HELD, TaskState.SUSPENDED) or task.hold:
            release(dispatch, task.uid)


def resume(dispatch: Dispatcher, task: Task) -> bool:
    """Go on with a task, with the lock held; False if there is nothing to go on with."""
    history = dispatch.history
    finished, launched = history.finished.get(task.uid), history.attempts.get(task.uid)
    task.failures = history.failures.get(task.uid, 0)
    if launched is not None:
        task.attempt = max(task.attempt, launched.number + (finished is None))
    if finished is not None:
        task.stop = TaskState.CANCELED if finished.stopped else None
        task.failures, task.node_failures = task.spec.retries, NODE_FAILURES  # it is final, as it was then
        dispatch.scheduler.tasks[task.uid] = task
        dispatch.scheduler.ended(task, finished, dispatch.now())
        return True
    return launched is not None and task.spec.function is None and _adopt(dispatch, task, launched)


def _adopt(dispatch: Dispatcher, task: Task, launched: Launched) -> bool:
    pool = next((pool for pool in dispatch.pools if pool.name == launched.pool), None)
    if pool is None:
        return False
    now_s, allocation = dispatch.now(), pool.claim(task.spec, launched)
    key, ran_s = attempt_key(task.uid, launched.number), max(now_s - launched.since_s, 0.0)
    attempt = Attempt(key, task.uid, launched.number, task.spec, task.need, allocation or (), ran_s=ran_s)
    if not pool.backend.adopt(attempt):
        pool.nodes.release(allocation or ())
        return False
    task.attempt, task.pool = launched.number, pool.nodes
    dispatch.attempts[key] = task
    if allocation is not None:
        dispatch.scheduler.adopt(task, pool.nodes, allocation, now_s, launched.since_s)
        if task.future is not None:
            task.future.set_running_or_notify_cancel()
    else:  # others have its place by now: it runs again when it has stopped
        dispatch.scheduler.tasks[task.uid] = task
        task.stop = TaskState.PREEMPTED
        pool.backend.stop(key, GRACE_S)
    return True
