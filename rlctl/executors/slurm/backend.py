"""The Slurm executor: the books, the journal and the supervisor of the local one; what runs, runs in steps."""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlctl.core.errors import AllocationEnds, LaunchError
from rlctl.core.machine import Capacity, Scoring
from rlctl.core.spec_values import asked, count
from rlctl.core.task import Failure, TaskSpec
from rlctl.executors.functions.worker_client import Worker
from rlctl.executors.local.backend import LocalExecutor, Settings
from rlctl.executors.local.process_task import LOGS
from rlctl.executors.local.supervisor import GRACE_S, TASK
from rlctl.executors.local.supervisor_client import own
from rlctl.executors.mpi import with_home, without_job
from rlctl.executors.pool import Part, Placement, core_numbers
from rlctl.executors.recovery import Past
from rlctl.executors.scheduler import Ending, Task
from rlctl.executors.served import check_call
from rlctl.executors.sharing import Share
from rlctl.executors.slurm import commands
from rlctl.executors.slurm.allocation import Allocation, Request, end
from rlctl.executors.slurm.steps import StepProgram, StepWorker, pmi, srun, step_name

if TYPE_CHECKING:
    from rlctl.core.records import Recorder

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SlurmSettings:
    """What is particular to Slurm.

    Attributes:
        submit: how to ask for an allocation; None: use the job that this process runs in.
        mpi: as ``srun --mpi`` has it, for all programs; None: what the program's MPI needs.
        arguments: further ones of every ``srun``.
        poll_s: seconds between two looks at the nodes and the time limit.
        warning_s: so long before the end of the allocation what runs is stopped.
    """

    submit: Request | None = None
    mpi: str | None = None
    arguments: tuple[str, ...] = ()
    poll_s: float = 10.0
    warning_s: float = 60.0


class SlurmExecutor(LocalExecutor):
    """An executor on the nodes of a Slurm allocation; see ``rlctl.executors.base.Executor`` for the contract.

    It lives on a node of the allocation, or, if it asks for the allocation itself, wherever Slurm's commands are. The
    working folder has to be seen from all nodes.
    """

    def __init__(
        self,
        capacity: Capacity,
        workdir: Path,
        journal: Recorder | None = None,
        start_s: float = 0.0,
        *,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        eager: bool = False,
        scoring: Scoring | None = None,
        backfill: bool = False,
        settings: Settings | None = None,
        slurm: SlurmSettings | None = None,
        past: Past | None = None,
        share: Share | None = None,
    ) -> None:
        """Take the allocation; nodes that Slurm has not given yet join when it has.

        Args:
            capacity: nodes, cores and GPUs to use.
            workdir: working directory of all tasks, made if need be.
            slurm: what is particular to Slurm; the rest as for ``LocalExecutor``.

        Raises:
            LaunchError: Slurm has less, does not answer, or another executor uses the folder.
        """
        self._slurm = slurm or SlurmSettings()
        workdir = workdir.absolute()
        workdir.mkdir(parents=True, exist_ok=True)
        if self._slurm.submit is None and share is not None and share.beside:
            raise LaunchError(f"pool {share.pool}: another pool has this job's nodes: start outside, or join the two")
        pool = "" if share is None else share.pool
        self._allocation = Allocation(capacity, workdir, self._slurm.submit, pool)
        # What is too long for a worker's input lies here, seen by all nodes.
        self._letters = workdir / own(".calls", pool)
        self._ends = False
        self._looking = threading.Lock()
        self._doubt = threading.Event()  # whether to look now
        super().__init__(
            capacity,
            workdir,
            journal,
            start_s,
            initializer=initializer,
            initargs=initargs,
            eager=eager,
            scoring=scoring,
            backfill=backfill,
            settings=settings,
            past=past,
            share=share,
        )
        with self._mutex:
            shutil.rmtree(self._letters, ignore_errors=True)  # of a controller that was killed, and its workers with it
            self._sweep()
        self._watcher = threading.Thread(target=self._guarded, args=(self._watch,), name="rlctl-slurm", daemon=True)
        self._watcher.start()

    def resize(self, nodes: int) -> None:
        """Have so many nodes: ask Slurm for more, or give some back."""
        nodes = asked("nodes", nodes, count)
        with self._looking, self._mutex:
            self._allocation.resize(nodes)
            self._gate, gate = False, self._gate
            super().resize(nodes)
            self._miss()
            self._gate = gate
            self._pump()

    def heed_the_end(self) -> None:
        """Interrupt whoever waits.

        Raises:
            AllocationEnds: the job that this process runs in comes to its end.
        """
        if self._ends and not self._closing:
            raise AllocationEnds

    # What is different from this machine.

    def _find_layout(self, capacity: Capacity) -> _Nodes:
        self._books.pool.group = self._allocation.group
        self._miss()
        return _Nodes(self._allocation)

    def _find_environment(self) -> dict[str, str]:
        return with_home(without_job(os.environ))

    def _program(self, task: Task) -> StepProgram:
        settings = self._settings
        program = StepProgram(task, self._workdir, self._supervision.scratch, settings.applications, self._bare)
        program.allocation, program.mpi = self._allocation, self._slurm.mpi
        program.arguments, program.gpus = self._slurm.arguments, self.capacity.gpus
        return program

    def _make_worker(self, node: int, mark: str, environment: Mapping[str, str]) -> Worker:
        (self._workdir / LOGS).mkdir(exist_ok=True)
        name = step_name(self._allocation, mark.partition(":")[2])
        step = srun(self._allocation, (Part(node, 1, 1),), name, talks=True, arguments=self._slurm.arguments)
        log = self._workdir / LOGS / "calls.out"
        return StepWorker(step, environment, self._letters, f"{TASK}={mark}", self._workdir, log, self._initializer)

    def _accept(self, spec: TaskSpec) -> None:
        check_call(spec)
        if (why := self.cannot_start(spec)) is not None:
            raise LaunchError(f"task {spec.uid}: {why}")

    def cannot_start(self, spec: TaskSpec) -> str | None:
        """Why the ranks of a program would not find each other under ``srun``; None: they do, or nobody knows."""
        if spec.function is not None or spec.resources.ranks == 1 or self._slurm.mpi is not None:
            return None
        wanted = pmi(spec, self._settings.applications, self._bare)
        why = None if wanted is None else commands.cannot_gather(wanted)
        if why is None:
            return None
        return (
            f"the ranks of {spec.executable} find each other by {wanted}, and each would run alone: {why}, or set "
            "executor.options.mpi"
        )

    def _send(self, task: Task, number: int) -> None:
        run = self._programs.get(task.key)
        if isinstance(run, StepProgram):
            run.signalled = True
        super()._send(task, number)

    def _where(self, placement: Placement) -> Mapping[str, Any]:
        block = self._allocation.block(placement[0].node)
        return {**super()._where(placement), "job": block.job, "hosts": [block.hosts[part.node] for part in placement]}

    def _release_all(self) -> None:
        super()._release_all()
        self._doubt.set()
        if self._watcher is not threading.current_thread():
            self._watcher.join()
        self._sweep()
        shutil.rmtree(self._letters, ignore_errors=True)
        self._allocation.close()

    # Nodes come and go.

    def _miss(self) -> None:
        """Nodes that are not there are not in the books."""
        there = self._allocation.there()
        for state in list(self._books.pool.states()):
            if state.index not in there:
                self._books.pool.down(state.index)

    def _sweep(self) -> None:
        """Steps that a former controller has started and nobody watches any more."""
        mine = {step_name(self._allocation, run.name) for run in self._programs.values()}
        mine |= {step_name(self._allocation, key) for key in self._supervision.left.running}
        for block in self._allocation.blocks:
            try:
                found = commands.steps(block.job)
            except LaunchError:
                continue
            for name, step in found.items():
                if name.startswith(f"{self._allocation.name}.") and name not in mine:
                    end(step)

    def _watch(self) -> None:
        """The thread that asks Slurm."""
        while not self._closing or self._books.tasks:
            self._doubt.wait(self._slurm.poll_s)
            self._doubt.clear()
            if self._let_go:
                return
            try:
                self._look()
            except (LaunchError, OSError, ValueError) as error:  # what runs, runs on
                log.warning("Slurm: %s", error)

    def _look(self) -> None:
        with self._looking:
            seen = self._allocation.look()
            with self._mutex:
                self._allocation.commit(seen)
                for node in seen.down:
                    self._lose(node)
                for node in seen.up:
                    self._books.pool.up(node)
                self._books.touch()
                self._foresee()
                self._pump()
                if self.machine_changed:
                    self._news.notify_all()

    def _ended(self, task: Task, ending: Ending) -> None:
        if ending.failure is Failure.LOST:  # nothing more is started there until Slurm has been asked
            for part in task.placement:
                self._allocation.doubt(part.node)
                self._books.pool.down(part.node)
            self._doubt.set()
        super()._ended(task, ending)

    def _lose(self, node: int) -> None:
        """A node has gone, with what runs on it."""
        self._books.pool.down(node)
        for task in self._books.on_nodes([node]):
            log.warning("node %d is lost, and with it task %s", node, task.uid)
            self._lost(task)

    def _lost(self, task: Task) -> None:
        if task.spec.function is None:
            run = self._programs.get(task.key)
            if isinstance(run, StepProgram):
                run.gone = "a node that it ran on was lost"
                self._supervision.send("stop", key=task.key, grace_s=0.0)
        elif (worker := self._worker_of(task)) is not None:
            worker.stopped = "lost"
            worker.kill()

    def _foresee(self) -> None:
        """The end of an allocation: whoever decides is told, if it is our own end; otherwise another one takes over."""
        for block in list(self._allocation.blocks):
            if block.left_s > self._slurm.warning_s:
                continue
            if self._allocation.inside:
                self._ends = True
                self._news.notify_all()
                continue
            block.ending = True
            tasks = self._books.on_nodes(block.hosts)
            for node in block.hosts:
                self._books.pool.down(node)
            for task in tasks:
                if self._books.preempt(task):
                    self._stop(task, GRACE_S)
            if not tasks:
                self._allocation.replace(block)


class _Nodes:
    """What a placement means on the nodes of an allocation."""

    def __init__(self, allocation: Allocation) -> None:
        self._allocation = allocation

    def cores(self, placement: Placement) -> list[int]:
        """Of one node: numbers of its cores."""
        part = placement[0]
        here = self._allocation.block(part.node).cores[part.node]
        return sorted({here[core % len(here)] for core in core_numbers(part.cores)})

    def gpus(self, placement: Placement) -> dict[str, str]:
        """Each node of a step has its own: see ``steps.prologue``."""
        return {}
