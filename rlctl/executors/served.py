"""The part of executors whose tasks run by themselves: a thread hears of them until all is let go."""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from abc import abstractmethod
from functools import partial

from rlctl.core.errors import LaunchError
from rlctl.core.task import TaskSpec
from rlctl.executors.engine import BookedExecutor
from rlctl.executors.local.processes import capped
from rlctl.executors.local.supervisor import GRACE_S


class ServedExecutor(BookedExecutor):
    """A ``BookedExecutor`` with a thread, which runs from ``_begin_serving`` until ``_serve`` returns."""

    @abstractmethod
    def _serve(self) -> None:
        """Hear what becomes of tasks, until the executor is closing and has none."""

    @abstractmethod
    def _wake(self) -> None:
        """End the sleep of the thread."""

    @abstractmethod
    def _release_all(self) -> None:
        """Stop what still runs, and let go of all."""

    def _begin_serving(self) -> None:
        self._thread = threading.Thread(target=self._work, name="rlctl-executor", daemon=True)
        self._at_exit = partial(_finish, weakref.ref(self), os.getpid())  # its own: others stay registered
        atexit.register(self._at_exit)
        self._thread.start()

    def _work(self) -> None:
        """What the thread does; whatever comes, it lets go of all in the end."""
        self._guarded(self._serve)
        self._guarded(self._release_all)
        with self._mutex:
            self._books.forget()
        atexit.unregister(self._at_exit)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As ``concurrent.futures``; see ``Executor``."""
        with self._mutex:
            self._close_up(cancel_futures)
            self._gate = self._eager = True  # nobody will wait any more
            self._pump()
        self._wake()
        if wait and threading.current_thread() is not self._thread:
            self._thread.join()

    def close(self) -> None:
        """Stop everything that still runs, confirm it, and let go of all; may be called twice."""
        with self._mutex:
            self._closing = True
            for task in list(self._books.tasks.values()):
                self.cancel(task.uid, GRACE_S)
        self.shutdown()

    def _rest(self, timeout_s: float | None, idle: bool = False) -> bool:
        with self._mutex.lock:
            if not self._untold and not self.broken and not (self.machine_changed if idle else self.idle):
                self._news.wait(capped(timeout_s))
        return True

    def _pump(self) -> None:
        super()._pump()
        if self._closing:
            self._wake()


def check_call(spec: TaskSpec) -> None:
    """Refuse a function that asks for what only programs get.

    Raises:
        LaunchError: so it does.
    """
    need = spec.resources
    if spec.function is not None and (need.ranks > 1 or need.gpus_per_rank > 0.0):
        raise LaunchError(f"task {spec.uid}: a function runs on one rank without GPUs: make it a program instead")


def _finish(reference: weakref.ref[ServedExecutor], pid: int) -> None:
    """At the end of the interpreter an eager one brings to its end what it has, as ``concurrent.futures`` do.

    Nobody waits for the tasks of a campaign any more: they are stopped.
    """
    executor = reference()
    if executor is not None and os.getpid() == pid:
        (executor.shutdown if executor._eager else executor.close)()
