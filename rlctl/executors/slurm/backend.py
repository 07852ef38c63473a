"""The Slurm backend: programs and workers of the local backend, started as steps on the nodes of jobs."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlctl.core.errors import LaunchError
from rlctl.core.machine import Capacity
from rlctl.core.task import Failure, TaskSpec
from rlctl.executors.backend import (
    AllocationExpires,
    Attempt,
    AttemptOutcome,
    Backend,
    BackendEvent,
    Exited,
    NodesChanged,
    Recovered,
)
from rlctl.executors.functions.worker_client import Initializer, initializer_message
from rlctl.executors.local.backend import LocalBackend
from rlctl.executors.local.options import LocalOptions
from rlctl.executors.local.pid_file import of_pool
from rlctl.executors.local.processes import GRACE_S
from rlctl.executors.node_share import Allocation
from rlctl.executors.slurm.commands import cancel, current_job, steps_of
from rlctl.executors.slurm.job_nodes import JobNodes
from rlctl.executors.slurm.options import SlurmOptions
from rlctl.executors.slurm.step_tasks import SlurmSite, StepTask
from rlctl.executors.slurm.steps import step_name

log = logging.getLogger(__name__)


class SlurmBackend(Backend):
    """Runs attempts on the nodes of the job that this process runs in, or of jobs that it submits.

    It runs on a node of the job, or, if it submits jobs, wherever Slurm's commands are. Nodes that Slurm has not given
    yet join later.

    Args:
        capacity: nodes, cores and GPUs.
        workdir: working directory of all tasks, made if need be, shared by all nodes.
        options: those of the configuration.
        pool: name of the pool, where several work in the folder.
        first_node: nodes of Slurm pools before this one.
        initializer: called in each worker before its first function.
    """

    def __init__(
        self,
        capacity: Capacity,
        workdir: Path,
        options: SlurmOptions | None = None,
        *,
        pool: str = "",
        first_node: int = 0,
        initializer: Initializer | None = None,
    ) -> None:
        self.capacity = capacity
        self._options = options or SlurmOptions()
        self._workdir, self._pool, self._first_node = workdir.absolute(), pool, first_node
        self._initializer = initializer_message(initializer)
        self._letters = self._workdir / of_pool(".calls", pool)  # what is too long for a worker's input
        self._lock = threading.RLock()
        self._querying = threading.Lock()  # held by the one that asks Slurm about nodes, or changes jobs
        self._query_now = threading.Event()
        self._closed = False
        self._events: list[BackendEvent] = []
        self._failure: BaseException | None = None
        self._attempts: dict[str, Attempt] = {}
        self._stopping: set[str] = set()  # by request
        self._lost: set[str] = set()  # their nodes have gone
        self._reported = NodesChanged()
        self._expires = False

    def open(self, incarnation: int) -> Recovered:
        """Take the nodes of the job, or submit jobs; see ``Backend``.

        Raises:
            LaunchError: Slurm has less, does not answer, or another executor uses the folder.
        """
        options, workdir = self._options, self._workdir
        workdir.mkdir(parents=True, exist_ok=True)
        submit = options.submit if current_job() is None else None
        if submit is None and self._first_node:
            raise LaunchError(f"pool {self._pool}: another pool has this job's nodes: start outside, or join the two")
        self._nodes = JobNodes(self.capacity, workdir, submit, self._pool)
        self.group = self._nodes.group
        site = SlurmSite(self._nodes, workdir, self._letters, options, self.capacity.gpus, self._initializer)
        limits = LocalOptions(lease_s=options.lease_s, output_mb=options.output_mb, enforce_memory=False)
        self._processes = LocalBackend(self.capacity, workdir, limits, pool=self._pool, site=site)
        recovered = self._processes.open(incarnation)
        shutil.rmtree(self._letters, ignore_errors=True)  # of a controller that was killed, and its workers with it
        self._end_other_steps(recovered.running)
        self._watcher = threading.Thread(target=self._watch, name="rlctl-slurm", daemon=True)
        self._watcher.start()
        return recovered

    def close(self, keep_outcomes: bool) -> None:
        """End all steps, then the jobs that were submitted."""
        self._processes.close(keep_outcomes)
        self._closed = True
        self._query_now.set()
        self._watcher.join()
        self._end_other_steps(())
        shutil.rmtree(self._letters, ignore_errors=True)
        self._nodes.close()

    def nodes(self) -> NodesChanged:
        """Nodes that cannot be used now."""
        with self._lock:
            self._reported = NodesChanged(frozenset(range(self._nodes.wanted)) - self._nodes.usable())
            return self._reported

    def resize(self, nodes: int) -> None:
        """Ask Slurm for more nodes, or give some back."""
        with self._querying, self._lock:
            self._nodes.resize(nodes)

    def check(self, spec: TaskSpec) -> None:
        """Raise LaunchError if the ranks of a program would not find each other; see ``Backend``."""
        self._processes.check(spec)

    def start(self, attempt: Attempt) -> bool:
        """Start an attempt as a step."""
        with self._lock:
            if not self._has(attempt.allocation):  # the engine learns it now
                self._post(Exited(attempt.key, AttemptOutcome(stopped=True)))
                return False
            running = self._processes.start(attempt)
            self._attempts[attempt.key] = attempt
            return running

    def adopt(self, attempt: Attempt) -> bool:
        """Take over a program of a former controller."""
        with self._lock:
            adopted = self._processes.adopt(attempt)
            if adopted:
                self._attempts[attempt.key] = attempt
            return adopted

    def stop(self, key: str, grace_s: float) -> bool:
        """Stop an attempt."""
        self._stopping.add(key)
        return self._processes.stop(key, grace_s)

    def signal(self, key: str, number: int) -> None:
        """Signal all processes of a step."""
        with self._lock:
            if isinstance(program := self._processes.programs.running.get(key), StepTask):
                program.signalled = True
            self._processes.signal(key, number)

    def acknowledge(self, key: str) -> None:
        """Forget the outcome of an attempt."""
        self._processes.acknowledge(key)

    def describe(self, allocation: Allocation) -> Mapping[str, Any]:
        """Job and hosts of an allocation; nothing if the job has just gone, so that ``start`` will refuse it."""
        with self._lock:
            if not self._has(allocation):
                return {}
            block = self._nodes.block(allocation[0].node)
            return {"job": block.job, "hosts": [block.hosts[share.node] for share in allocation]}

    def poll(self, timeout_s: float | None) -> Sequence[BackendEvent]:
        """Wait until something happens; see ``Backend``."""
        found = self._processes.poll(timeout_s)
        with self._lock:
            if self._failure is not None:
                raise self._failure
            events, self._events = self._events, []
            for event in found:
                if isinstance(event, Exited):
                    event = self._exited(event, events)
                events.append(event)
        return events

    def wake(self) -> None:
        """End a ``poll`` that waits."""
        self._processes.wake()

    def _exited(self, event: Exited, events: list[BackendEvent]) -> Exited:
        """The end of an attempt, as lost if its node has gone; other tasks avoid its nodes until Slurm was asked."""
        attempt, outcome = self._attempts.pop(event.key, None), event.outcome
        lost = event.key in self._lost and event.key not in self._stopping
        self._lost.discard(event.key)
        self._stopping.discard(event.key)
        if attempt is None or outcome is None:
            return event
        if lost and (outcome.stopped or attempt.spec.function is None):  # srun's exit code may be 0
            outcome = AttemptOutcome(failure=Failure.LOST, message="a node that it ran on was lost")
        if outcome.failure is Failure.LOST:
            for share in attempt.allocation:
                self._nodes.suspect(share.node)
            self._query_now.set()
            events.append(self.nodes())
        return Exited(event.key, outcome)

    def _has(self, allocation: Allocation) -> bool:
        """Whether all nodes of an allocation can be used now."""
        return {share.node for share in allocation} <= self._nodes.usable()

    def _post(self, event: BackendEvent) -> None:
        self._events.append(event)
        self._processes.wake()

    def _watch(self) -> None:
        """Query Slurm again and again, in a thread of its own."""
        while True:
            self._query_now.wait(self._options.poll_s)
            self._query_now.clear()
            if self._closed:
                return
            try:
                self._query()
            except (LaunchError, OSError, ValueError) as error:  # running tasks go on
                log.warning("Slurm: %s", error)
            except BaseException as error:
                self._failure = error
                self._processes.wake()
                return

    def _query(self) -> None:
        with self._querying:
            update = self._nodes.query()
            with self._lock:
                lost = self._nodes.apply(update)
                ending = self._ending_attempts()
                before = self._reported
                if self.nodes() != before:
                    self._post(self._reported)
                for attempt in self._on_nodes(lost):
                    log.warning("a node is lost, and with it task %s", attempt.uid)
                    self._lost.add(attempt.key)
                    self._processes.stop(attempt.key, 0.0)
                for key in ending:
                    self._processes.stop(key, GRACE_S)

    def _ending_attempts(self) -> list[str]:
        """Attempts to stop because their job is about to end; a job without any is replaced.

        The end of the job in which this process runs is reported instead.
        """
        keys: list[str] = []
        for block in list(self._nodes.blocks):
            if block.left_s > self._options.warning_s:
                continue
            if self._nodes.inside:
                if not self._expires:
                    self._expires = True
                    self._post(AllocationExpires())
                continue
            block.ending = True
            attempts = self._on_nodes(block.hosts)
            keys += [attempt.key for attempt in attempts if attempt.key not in self._stopping]
            if not attempts:
                self._nodes.replace(block)
        return keys

    def _on_nodes(self, nodes: Collection[int]) -> list[Attempt]:
        return [a for a in self._attempts.values() if any(share.node in nodes for share in a.allocation)]

    def _end_other_steps(self, running: Collection[str]) -> None:
        """End steps that a former controller has started and that nothing watches any more."""
        known = {step_name(self._nodes, key) for key in running}
        for block in self._nodes.blocks:
            try:
                found = steps_of(block.job)
            except LaunchError:
                continue
            for name, step in found.items():
                if name.startswith(f"{self._nodes.name}.") and name not in known:
                    cancel(step)
