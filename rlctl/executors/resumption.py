"""Goes on with a task that a former controller has left: its recorded result, or an attempt that is still there."""

from __future__ import annotations

from rlctl.core.task import TaskState
from rlctl.executors.backend import Attempt
from rlctl.executors.dispatch import Dispatcher
from rlctl.executors.local.processes import GRACE_S
from rlctl.executors.naming import attempt_key
from rlctl.executors.recovery import Launched
from rlctl.executors.task_state import NODE_FAILURES, Task


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
    pool = next((pool for pool in dispatch.pools if pool.has_run(launched)), None)
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
