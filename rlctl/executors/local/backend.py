"""The local backend: attempts as real processes on the cores and GPUs of this machine.

Functions run in warm workers, one at a time in each; programs run each in a session of its own under a supervisor
(``supervisor``), which also decides what becomes of them when the controller dies. An attempt has exited when nothing
that it has started is alive.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlctl.core.machine import Capacity, Scoring
from rlctl.core.records import Recorder
from rlctl.core.task import TaskSpec
from rlctl.executors.backend import Attempt, AttemptOutcome, Backend, BackendEvent, Exited, NodesChanged, Recovered
from rlctl.executors.engine import Executor
from rlctl.executors.factory import PoolPlan
from rlctl.executors.functions.warm_workers import WarmWorkers, check_call
from rlctl.executors.functions.worker_client import Initializer, Worker, initializer_message
from rlctl.executors.local.options import LocalOptions
from rlctl.executors.local.pid_file import TASK
from rlctl.executors.local.processes import capped
from rlctl.executors.local.programs import Programs
from rlctl.executors.local.site import Site, ThisMachine
from rlctl.executors.local.supervisor_client import SupervisorClient
from rlctl.executors.node_share import Allocation
from rlctl.executors.recovery import History
from rlctl.system.cores import available_cores
from rlctl.system.devices import HIDDEN
from rlctl.system.terminal import open_closed_streams

PROGRESS_S = 0.25
"""How often the files are looked at to which programs report."""


class LocalBackend(Backend):
    """Processes of this machine, or of another ``site``.

    Args:
        capacity: nodes, cores and GPUs; all nodes are this machine.
        workdir: working directory of programs, made if need be; their output goes to its folder ``logs``. None: a
            temporary folder, and what workers print is seen.
        pool: name of the pool, where several work in this folder.
        first_node: nodes that other pools have of this machine, before the first one here.
        site: where processes are started; None: on this machine.
    """

    def __init__(
        self,
        capacity: Capacity,
        workdir: Path | None = None,
        options: LocalOptions | None = None,
        *,
        initializer: Initializer | None = None,
        pool: str = "",
        first_node: int = 0,
        site: Site | None = None,
    ) -> None:
        self.capacity = capacity
        self._options = options or LocalOptions()
        self._folder, self._pool, self._first_node = workdir, pool, first_node
        self._initializer = initializer_message(initializer)
        self._given_site = site
        self.lock = threading.RLock()
        self._events: list[BackendEvent | _Unread | BaseException] = []
        self._closed = False

    def open(self, incarnation: int) -> Recovered:
        """Take the machine, and what a former controller has left on it."""
        open_closed_streams()
        options = self._options
        self._temporary = tempfile.mkdtemp(prefix="rlctl-") if self._folder is None else None
        workdir = Path(self._temporary or self._folder or "").absolute()
        try:
            self.site = self._given_site or ThisMachine(
                self.capacity,
                workdir,
                options.applications,
                oversubscribe=options.oversubscribe,
                in_place=self._folder is None,
                initializer=self._initializer,
                first_node=self._first_node,
            )
            self.site.open()
            self._client = SupervisorClient(workdir, self.site.bare, incarnation, options.lease_s, name=self._pool)
        except BaseException:
            self._remove_temporary()
            raise
        self.group = self.site.group
        self._selector = selectors.DefaultSelector()
        self._woken, self._waker = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(self._waker, False)
        self._selector.register(self._woken, selectors.EVENT_READ, self._drain)
        self._selector.register(self._client, selectors.EVENT_READ, self._receive)
        self.programs = Programs(self._client, workdir, self._events.append, self._report, options)
        self.workers = WarmWorkers(self._selector, self._start_worker, self._report, self._watch)
        recovered = self.programs.recovered
        self.site.begin(recovered.running)
        return recovered

    def close(self, keep_outcomes: bool) -> None:
        """Stop what still runs, and release all."""
        with self.lock:
            self._closed = True
            self.workers.close()
        self._client.close(keep=keep_outcomes)
        self._selector.close()
        os.close(self._woken)
        os.close(self._waker)
        self._remove_temporary()
        self.site.close()

    def nodes(self) -> NodesChanged:
        """See ``Backend``."""
        return self.site.nodes()

    def resize(self, nodes: int) -> None:
        """See ``Backend``."""
        self.site.resize(nodes)

    def describe(self, allocation: Allocation) -> Mapping[str, Any]:
        """See ``Backend``."""
        return self.site.describe(allocation)

    def check(self, spec: TaskSpec) -> None:
        """See ``Backend``."""
        check_call(spec)
        if spec.function is None:
            self.site.check(spec)

    def start(self, attempt: Attempt) -> bool:
        """See ``Backend``."""
        with self.lock:
            if not self.site.accepts(attempt.allocation):  # the engine learns it now
                self.post(Exited(attempt.key, AttemptOutcome(stopped=True)))
                return False
            cores = self.site.cores(attempt.allocation) if self._options.pin else None
            if attempt.spec.function is not None:
                if self.workers.call(attempt, cores or []):
                    self.wake()
                return True
            program = self.site.program(attempt, self._client.scratch)
            self.programs.start(program, program.prepare(self.site.gpus(attempt.allocation)), cores)
            if attempt.spec.progress_file is not None:
                self.wake()
            return False

    def adopt(self, attempt: Attempt) -> bool:
        """See ``Backend``."""
        with self.lock:
            if attempt.spec.function is not None:
                return False
            adopted = self.programs.adopt(attempt, lambda: self.site.program(attempt, self._client.scratch))
            self.wake()
            return adopted

    def stop(self, key: str, grace_s: float, lost: bool = False) -> bool:
        """See ``Backend``; with ``lost``, its node is lost, and it is too unless it is stopped by request as well."""
        with self.lock:
            if self.workers.stop(key, grace_s, lost):
                self.wake()
            else:
                self.programs.stop(key, grace_s, lost)
        return False

    def attempts(self) -> list[tuple[Attempt, bool]]:
        """Attempts that run, and whether they are being stopped."""
        return [*self.programs.attempts(), *self.workers.attempts()]

    def signal(self, key: str, number: int) -> None:
        """See ``Backend``."""
        with self.lock:
            if not self.workers.signal(key, number):
                self.programs.signal(key, number)

    def acknowledge(self, key: str) -> None:
        """See ``Backend``."""
        with self.lock:
            self.programs.acknowledge(key)

    def poll(self, timeout_s: float | None) -> Sequence[BackendEvent]:
        """See ``Backend``."""
        with self.lock:
            self._client.flush()
            waits = [self.workers.due_s(), timeout_s, PROGRESS_S if self.programs.reporting else None]
            timeout_s = min((seconds for seconds in waits if seconds is not None), default=None)
        for key, _ in self._selector.select(0.0 if self._events else capped(timeout_s)):
            with self.lock:
                key.data()
        with self.lock:
            self.workers.look()
            if self.programs.reporting:
                self._events += self.programs.progress()
            taken = list(self._events)
            self._events.clear()
        events: list[BackendEvent] = []
        for event in taken:
            if isinstance(event, BaseException):
                raise event
            if isinstance(event, _Unread):
                outcome = event.read()  # without the lock, since it may be large
                events += self.site.exited(event.attempt, outcome)
                event = Exited(event.attempt.key, outcome)
            events.append(event)
        return events

    def post(self, event: BackendEvent | BaseException) -> None:
        """Report an event, or an error that ends the executor."""
        with self.lock:
            self._events.append(event)
        self.wake()

    def wake(self) -> None:
        """See ``Backend``."""
        if not self._closed:
            with contextlib.suppress(OSError):  # full: awake anyway
                os.write(self._waker, b"x")

    def _report(self, attempt: Attempt, read: Callable[[], AttemptOutcome]) -> None:
        self._events.append(_Unread(attempt, read))

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._woken, 4096)

    def _receive(self) -> None:
        if self.programs.receive():
            return
        self._selector.unregister(self._client)
        self.programs.replace_supervisor()
        self._selector.register(self._client, selectors.EVENT_READ, self._receive)
        self.workers.watch_again()

    def _start_worker(self, node: int, number: int) -> Worker:
        mark = f"{self._client.token}:calls.{number}"  # its own: others are not to be stopped with it
        environment = os.environ if self._folder is None else {**self.site.bare, **HIDDEN}
        return self.site.worker(node, f"{TASK}={mark}", {**environment, TASK: mark}, self._client.scratch)

    def _watch(self, worker: Worker, begins: bool) -> None:
        """Have the supervisor end a worker when this process dies."""
        if begins:
            self._client.send("watch", pid=worker.pid, number=int(worker.end_signal))
        else:
            self._client.send("unwatch", pid=worker.pid)

    def _remove_temporary(self) -> None:
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class _Unread:
    """An attempt has exited, and its outcome has still to be read."""

    attempt: Attempt
    read: Callable[[], AttemptOutcome]


class LocalExecutor(Executor):
    """An executor on this machine; see ``rlctl.executors.engine.Executor``.

    ``LocalExecutor(max_workers=4)`` takes the place of a ``ProcessPoolExecutor``; ``LocalExecutor(Capacity(cores=4),
    workdir=...)`` runs the tasks of a campaign, inside ``wait`` only.

    >>> with LocalExecutor(max_workers=1) as executor:
    ...     executor.submit(pow, 2, 10).result()
    1024
    """

    def __init__(
        self,
        capacity: Capacity | None = None,
        workdir: Path | None = None,
        journal: Recorder | None = None,
        start_s: float = 0.0,
        *,
        max_workers: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        eager: bool | None = None,
        scoring: Scoring | None = None,
        backfill: bool | None = None,
        options: LocalOptions | None = None,
        history: History | None = None,
    ) -> None:
        """Take the machine.

        Args:
            capacity: nodes, cores and GPUs to use; all nodes are this machine. None: one node of ``max_workers`` cores.
            workdir: working directory of programs, made if need be; their output goes to its folder ``logs``. None: a
                temporary folder, and what workers print is seen.
            max_workers: cores, if no capacity is given; None: as many as this process may use.
            initializer, initargs: called in each worker before its first function.
            eager: start tasks as soon as they fit, rather than inside ``wait``; None: unless there is a capacity.
            backfill: whether tasks may overtake one that does not fit yet; None: if ``eager``.
            options: the rest; None: programs end with this process, and without a capacity nothing is pinned.

        The others are as for ``Executor``.

        Raises:
            LaunchError: this machine has less, or another executor uses the folder.
        """
        like_a_pool = capacity is None
        if max_workers is not None and max_workers < 1:
            raise ValueError("max_workers must be greater than 0")
        eager = like_a_pool if eager is None else eager
        backend = LocalBackend(
            capacity or Capacity(cores=max_workers or len(available_cores())),
            workdir,
            options or LocalOptions(lease_s=0.0, pin=not like_a_pool, oversubscribe=like_a_pool),
            initializer=None if initializer is None else (initializer, initargs),
        )
        plan = PoolPlan(backend, backfill=eager if backfill is None else backfill)
        super().__init__([plan], journal, start_s, eager=eager, scoring=scoring, history=history)
