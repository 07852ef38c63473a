"""The warm workers of a machine: at most one for each place, started when a call comes there."""

from __future__ import annotations

import contextlib
import itertools
import selectors
import time
from collections.abc import Callable
from functools import partial

from rlctl.core.errors import LaunchError
from rlctl.core.task import Failure, TaskSpec
from rlctl.executors.backend import Attempt, AttemptOutcome
from rlctl.executors.functions.worker_client import Worker, read_answer
from rlctl.executors.local.processes import GRACE_S

_POLL_S = 0.02

Report = Callable[[Attempt, Callable[[], AttemptOutcome]], None]
"""Takes an attempt that has exited, and the function that reads its outcome."""


def check_call(spec: TaskSpec) -> None:
    """Raise LaunchError if a function asks for what only programs get."""
    need = spec.resources
    if spec.function is not None and (need.ranks > 1 or need.gpus_per_rank > 0.0):
        raise LaunchError(f"task {spec.uid}: a function runs on one rank without GPUs: make it a program instead")


class WarmWorkers:
    """See the module; every method needs the lock of its owner.

    Args:
        selector: where workers are registered, with functions to call when they have something.
        start: starts a worker on a node, with a number that no other has.
        report: see ``Report``.
        watch: is called with every worker that begins (True) or ends (False).
        read: reads the answers of workers.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        start: Callable[[int, int], Worker],
        report: Report,
        watch: Callable[[Worker, bool], None],
        read: Callable[[bytes], AttemptOutcome] = read_answer,
    ) -> None:
        self._selector, self._start, self._report, self._watch = selector, start, report, watch
        self._read = read
        self._workers: dict[tuple[int, int], Worker] = {}
        self._numbers = itertools.count(1)

    def call(self, attempt: Attempt, cores: list[int]) -> bool:
        """Hand a call to the worker of its place; whether the next ``due_s`` may be earlier than the last.

        Raises:
            LaunchError: no worker can be started, or the call cannot be pickled.
        """
        share, started = attempt.allocation[0], False
        place = (share.node, share.cores & -share.cores)
        worker = self._workers.get(place)
        if worker is not None and worker.ended:  # killed while it was idle, and not noticed yet
            self._remove(worker)
            worker = None
        if worker is None:
            try:
                worker = self._workers[place] = self._start(share.node, next(self._numbers))
            except OSError as error:
                raise LaunchError(f"no worker can be started: {error}") from error
            started = True
            self._watch(worker, True)
            self._selector.register(worker.socket, selectors.EVENT_READ, partial(self._answered, worker))
            if worker.pidfd is not None:
                self._selector.register(worker.pidfd, selectors.EVENT_READ, partial(self._died, worker))
        worker.call(attempt, cores)
        walltime_s = attempt.spec.walltime_s
        if walltime_s is not None:
            worker.stop_at = time.monotonic() + walltime_s
        return started or walltime_s is not None

    def attempts(self) -> list[tuple[Attempt, bool]]:
        """Calls that run, and whether they are being stopped."""
        return [(w.attempt, w.stopped is not None) for w in self._workers.values() if w.attempt is not None]

    def stop(self, key: str, grace_s: float, lost: bool = False) -> bool:
        """Stop a call, and with it its worker; False: no call has this key. ``lost``: see ``LocalBackend.stop``."""
        worker = self._worker_of(key)
        if worker is not None:
            if worker.stopped is None or (worker.stopped == "lost" and not lost):
                worker.stopped = "lost" if lost else "stopped"
            worker.terminate(time.monotonic() + grace_s)
        return worker is not None

    def signal(self, key: str, number: int) -> bool:
        """Send a signal to the processes of a call; False: no call has this key."""
        worker = self._worker_of(key)
        if worker is not None:
            worker.signal(number)
        return worker is not None

    def due_s(self) -> float | None:
        """In how many seconds ``look`` has something to do; None: not by itself."""
        now, due = time.monotonic(), float("inf")
        for worker in self._workers.values():
            if worker.attempt is not None:
                due = min(due, worker.kill_at if worker.stopped else worker.stop_at)
                if now >= worker.kill_at or worker.pidfd is None:
                    due = min(due, now + _POLL_S)
        return None if due == float("inf") else max(0.0, due - now)

    def look(self) -> None:
        """Enforce walltimes and grace periods."""
        now = time.monotonic()
        for worker in list(self._workers.values()):
            if worker.attempt is None or (worker.pidfd is not None and now < min(worker.kill_at, worker.stop_at)):
                continue  # its end will be noticed
            if now >= worker.kill_at:
                worker.kill()
            elif worker.stopped is None and now >= worker.stop_at:
                worker.stopped = "walltime"
                worker.terminate(now + GRACE_S)
            if (worker.pidfd is None or now >= worker.kill_at) and worker.ended:  # otherwise the pidfd tells
                self._died(worker)

    def watch_again(self) -> None:
        """Tell a new watcher of all workers."""
        for worker in self._workers.values():
            self._watch(worker, True)

    def close(self) -> None:
        """End all workers."""
        for worker in list(self._workers.values()):
            self._remove(worker)

    def _answered(self, worker: Worker) -> None:
        if worker.closed:  # in the same round
            return
        messages = worker.receive()
        if messages is None:
            self._died(worker)
            return
        for message in messages:
            attempt, worker.attempt, worker.stop_at = worker.attempt, None, float("inf")
            if attempt is None:
                continue
            if worker.stopped:  # it came to its end before it could be stopped; the worker dies all the same
                self._remove(worker)
            self._report(attempt, partial(self._read, message))

    def _died(self, worker: Worker) -> None:
        """The process is gone; its call has ended when all that it started is gone too."""
        if worker.closed:
            return
        if not worker.ended:
            if worker.attempt is None and worker in self._workers.values():
                self._remove(worker)
            return
        if worker.attempt is not None and worker.kill():
            worker.kill_at = min(worker.kill_at, time.monotonic())
            return
        attempt, worker.attempt = worker.attempt, None
        outcome = worker.death()
        self._remove(worker)
        if attempt is None:
            return
        if worker.stopped == "stopped":
            outcome = AttemptOutcome(stopped=True)
        elif worker.stopped == "lost":
            outcome = AttemptOutcome(failure=Failure.LOST, message="a node that it ran on was lost")
        elif worker.stopped == "walltime":
            message = f"stopped at its walltime of {attempt.spec.walltime_s:g} s"
            outcome = AttemptOutcome(failure=Failure.TIMEOUT, message=message)
        self._report(attempt, lambda: outcome)

    def _remove(self, worker: Worker) -> None:
        for place, other in list(self._workers.items()):
            if other is worker:
                del self._workers[place]
        for handle in (worker.socket, worker.pidfd):
            if handle is not None:
                with contextlib.suppress(KeyError, ValueError):
                    self._selector.unregister(handle)
        self._watch(worker, False)
        worker.close()

    def _worker_of(self, key: str) -> Worker | None:
        workers = self._workers.values()
        return next((w for w in workers if w.attempt is not None and w.attempt.key == key), None)
