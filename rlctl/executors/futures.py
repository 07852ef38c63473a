"""What ``submit`` and ``submit_task`` return: a ``concurrent.futures.Future`` that knows its task."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Future
from concurrent.futures._base import CANCELLED_AND_NOTIFIED
from contextlib import suppress
from typing import Any

from rlctl.core.errors import RlctlError
from rlctl.core.task import Failure, TaskId, TaskResult, TaskState


class TaskFailed(RlctlError):
    """A task ended as FAILED; ``result`` says how."""

    def __init__(self, result: TaskResult) -> None:
        assert result.failure is not None
        super().__init__(f"task {result.uid}: {result.failure.value}: {result.message}")
        self.result = result


class WorkerDied(RlctlError, BrokenExecutor):
    """The worker process of a call died, as ``result`` says; the next call gets a new worker."""

    def __init__(self, result: TaskResult) -> None:
        super().__init__(f"task {result.uid}: {result.message}")
        self.result = result


class ExecutorBroken(RlctlError, BrokenExecutor):
    """The executor could not continue and has ended; the message says why. None of its tasks runs on."""


class TaskFuture(Future[Any]):
    """The future of a task. The result of a call is what it returned, that of a ``TaskSpec`` its ``values``.

    ``cancel`` is that of ``concurrent.futures``: it withdraws what waits, and leaves alone what runs; ``stop`` stops
    that too. ``cancelled`` is true in both cases.

    Attributes:
        uid: of the task.
        state: as last reported.
        attempt: likewise.
    """

    def __init__(self, uid: TaskId, stop: Callable[..., None]) -> None:
        super().__init__()
        self.uid = uid
        self.state = TaskState.NEW
        self.attempt = 1
        self._stop = stop  # ``Executor.cancel``

    def __getstate__(self) -> dict[str, Any]:
        """For a simulation that is saved: without the lock, and without those who wait in this process."""
        return {**self.__dict__, "_condition": None, "_waiters": []}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """With a lock of its own."""
        self.__dict__.update(state, _condition=threading.Condition())

    def cancel(self) -> bool:
        """Withdraw the task unless it has started."""
        withdrawn = super().cancel()
        if withdrawn and not self.state.final:
            self._stop(self.uid)
        return withdrawn

    def stop(self, grace_s: float = 5.0) -> None:
        """Cancel the task, stopping it if it runs; see ``Executor.cancel``."""
        self._stop(self.uid, grace_s)

    def cancelled(self) -> bool:
        """Whether it was withdrawn or stopped."""
        return self.state is TaskState.CANCELED or super().cancelled()

    def resolve(self, result: TaskResult, value: Any, error: BaseException | None) -> None:
        """For executors: the task is final, and nothing of it is alive."""
        if result.state is TaskState.CANCELED:
            if super().cancel():
                if (
                    self._state != CANCELLED_AND_NOTIFIED
                ):  # the dispatcher may have done so when it was about to start it
                    self.set_running_or_notify_cancel()
            elif not self.done():
                self.set_exception(CancelledError())
        elif error is not None:
            self.set_exception(error)
        elif result.failure is not None:
            died = result.failure in (Failure.SIGNAL, Failure.EXIT) and result.message.startswith("the worker ")
            self.set_exception(WorkerDied(result) if died else TaskFailed(result))
        else:
            self.set_result(value)


def fail(future: TaskFuture, error: BaseException) -> None:
    """Give a future its error, unless it was withdrawn meanwhile."""
    with suppress(Exception):
        future.set_exception(error)


def function_name(function: Callable[..., Any]) -> str:
    """Module and name, as a ``TaskSpec`` would have it."""
    return f"{getattr(function, '__module__', '')}:{getattr(function, '__qualname__', type(function).__name__)}"


def call_each(function: Callable[..., Any], items: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Call a function for each item of a chunk; at module level, so that workers can import it."""
    return [function(*item) for item in items]
