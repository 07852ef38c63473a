"""The Slurm backend: the local backend, which starts programs and workers as steps on the nodes of jobs."""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlctl.core.errors import LaunchError
from rlctl.core.machine import Capacity
from rlctl.core.task import Failure, TaskSpec
from rlctl.executors.application import ProgramEnvironments
from rlctl.executors.backend import AllocationExpires, Attempt, AttemptOutcome, BackendEvent, NodesChanged
from rlctl.executors.functions.worker_client import Initializer, initializer_message
from rlctl.executors.local.backend import LocalBackend
from rlctl.executors.local.options import LocalOptions
from rlctl.executors.local.pid_file import of_pool
from rlctl.executors.local.process_task import LOGS
from rlctl.executors.local.processes import GRACE_S
from rlctl.executors.local.site import Site
from rlctl.executors.node_share import Allocation
from rlctl.executors.slurm.commands import cancel, current_job, pmi_problem, steps_of
from rlctl.executors.slurm.job_nodes import JobNodes
from rlctl.executors.slurm.options import SlurmOptions
from rlctl.executors.slurm.steps import StepTask, StepWorker, pmi_of, step_cores, step_name
from rlctl.system.mpi import with_home, without_job

log = logging.getLogger(__name__)


def slurm_backend(
    capacity: Capacity,
    workdir: Path,
    options: SlurmOptions | None = None,
    *,
    pool: str = "",
    first_node: int = 0,
    initializer: Initializer | None = None,
) -> LocalBackend:
    """A backend that runs attempts on the nodes of the job that this process runs in, or of jobs that it submits.

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
    options, workdir = options or SlurmOptions(), workdir.absolute()
    site = SlurmSite(capacity, workdir, options, pool, first_node, initializer_message(initializer))
    limits = LocalOptions(lease_s=options.lease_s, output_mb=options.output_mb, enforce_memory=False)
    site.backend = LocalBackend(capacity, workdir, limits, pool=pool, site=site)
    return site.backend


class SlurmSite(Site):
    """Starts programs and workers as steps; see ``slurm_backend``.

    Attributes:
        backend: whose site it is; its lock guards ``JobNodes`` and all that is set below.
    """

    backend: LocalBackend

    def __init__(
        self,
        capacity: Capacity,
        workdir: Path,
        options: SlurmOptions,
        pool: str,
        first_node: int,
        initializer: bytes | None,
    ) -> None:
        self.bare = with_home(without_job(os.environ))
        self._environments = ProgramEnvironments(self.bare, options.applications)
        self._capacity, self._workdir, self._options = capacity, workdir, options
        self._pool, self._first_node, self._initializer = pool, first_node, initializer
        self._letters = workdir / of_pool(".calls", pool)  # what is too long for a worker's input, seen by all nodes
        self._querying = threading.Lock()  # held by the one that asks Slurm about nodes, or changes jobs
        self._query_now = threading.Event()
        self._closed = False
        self._reported = NodesChanged()
        self._expires = False

    def open(self) -> None:
        """Take the nodes of the job, or submit jobs; raises LaunchError if Slurm has less, or does not answer."""
        self._workdir.mkdir(parents=True, exist_ok=True)
        submit = self._options.submit if current_job() is None else None
        if submit is None and self._first_node:
            raise LaunchError(f"pool {self._pool}: another pool has this job's nodes: start outside, or join the two")
        self._nodes = JobNodes(self._capacity, self._workdir, submit, self._pool)
        self.group = self._nodes.group

    def begin(self, running: Collection[str]) -> None:
        """End what nothing watches any more, and query Slurm from now on."""
        shutil.rmtree(self._letters, ignore_errors=True)  # of a controller that was killed, and its workers with it
        self._end_other_steps(running)
        self._watcher = threading.Thread(target=self._watch, name="rlctl-slurm", daemon=True)
        self._watcher.start()

    def close(self) -> None:
        """End the jobs that were submitted."""
        self._closed = True
        self._query_now.set()
        self._watcher.join()
        self._end_other_steps(())
        shutil.rmtree(self._letters, ignore_errors=True)
        self._nodes.close()

    def nodes(self) -> NodesChanged:
        """Nodes that cannot be used now."""
        with self.backend.lock:
            self._reported = NodesChanged(frozenset(range(self._nodes.wanted)) - self._nodes.usable())
            return self._reported

    def resize(self, nodes: int) -> None:
        """Ask Slurm for more nodes, or give some back."""
        with self._querying, self.backend.lock:
            self._nodes.resize(nodes)

    def describe(self, allocation: Allocation) -> Mapping[str, Any]:
        """Job and hosts of an allocation; nothing if the job has just gone, so that ``start`` will refuse it."""
        with self.backend.lock:
            if not self.accepts(allocation):
                return {}
            block = self._nodes.block(allocation[0].node)
            return {"job": block.job, "hosts": [block.hosts[share.node] for share in allocation]}

    def accepts(self, allocation: Allocation) -> bool:
        """See ``Site``."""
        return {share.node for share in allocation} <= self._nodes.usable()

    def exited(self, attempt: Attempt, outcome: AttemptOutcome) -> Sequence[BackendEvent]:
        """Keep other tasks off the nodes of a lost attempt until Slurm was asked."""
        if outcome.failure is not Failure.LOST:
            return ()
        with self.backend.lock:
            for share in attempt.allocation:
                self._nodes.suspect(share.node)
            self._query_now.set()
            return (self.nodes(),)

    def check(self, spec: TaskSpec) -> None:
        """Raise LaunchError if the ranks of a program would not find each other under ``srun``."""
        if spec.resources.ranks == 1 or self._options.mpi is not None:
            return
        application = self._environments.application(spec)
        if application is not None and application.container:  # the programs inside are not visible here
            return
        wanted = pmi_of(self._environments.command(spec), self._environments.variables(spec))
        if wanted is not None and (why := pmi_problem(wanted)) is not None:
            raise LaunchError(
                f"task {spec.uid}: the ranks of {spec.executable} find each other by {wanted}, and each would run "
                f"alone: {why}, or set executor.options.mpi"
            )

    def cores(self, allocation: Allocation) -> list[int]:
        """Numbers of the cores on the first node."""
        return step_cores(self._nodes, allocation[0])

    def gpus(self, allocation: Allocation) -> Mapping[str, str]:
        """Empty: the script of a step selects the GPUs of each node."""
        return {}

    def program(self, attempt: Attempt, scratch: Path) -> StepTask:
        """See ``Site``."""
        return StepTask(attempt, self._workdir, scratch, self._environments, self._nodes, self._options)

    def worker(self, node: int, mark: str, environment: Mapping[str, str], scratch: Path) -> StepWorker:
        """See ``Site``."""
        (self._workdir / LOGS).mkdir(exist_ok=True)
        arguments = self._options.arguments
        return StepWorker(
            environment, self._letters, mark, self._workdir, self._initializer, self._nodes, node, arguments
        )

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
                self.backend.post(error)
                return

    def _query(self) -> None:
        with self._querying:
            blocks, lost = self._nodes.query()
            with self.backend.lock:
                lost = self._nodes.apply(blocks, lost)
                ending = self._ending_attempts()
                before = self._reported
                if self.nodes() != before:
                    self.backend.post(self._reported)
                for attempt, _ in self._on_nodes(lost):
                    log.warning("a node is lost, and with it task %s", attempt.uid)
                    self.backend.stop(attempt.key, 0.0, lost=True)
                for key in ending:
                    self.backend.stop(key, GRACE_S)

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
                    self.backend.post(AllocationExpires())
                continue
            block.ending = True
            attempts = self._on_nodes(block.hosts)
            keys += [attempt.key for attempt, stopping in attempts if not stopping]
            if not attempts:
                self._nodes.replace(block)
        return keys

    def _on_nodes(self, nodes: Collection[int]) -> list[tuple[Attempt, bool]]:
        """Attempts on these nodes, and whether they are being stopped."""
        running = self.backend.attempts()
        return [each for each in running if any(share.node in nodes for share in each[0].allocation)]

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
