"""Programs and warm workers that run as steps of a Slurm job."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlctl.core.errors import LaunchError
from rlctl.core.task import Failure, TaskSpec
from rlctl.executors.application import ProgramEnvironments
from rlctl.executors.backend import Attempt, AttemptOutcome
from rlctl.executors.functions import serialization
from rlctl.executors.functions.worker_client import Worker
from rlctl.executors.local.process_task import LOGS, ProcessTask
from rlctl.executors.local.processes import family, send_signal
from rlctl.executors.local.supervised_program import AGAIN_S, LAUNCHER_S
from rlctl.executors.mpi import with_home, without_job
from rlctl.executors.node_share import Allocation, NodeShare
from rlctl.executors.slurm.commands import pmi_problem
from rlctl.executors.slurm.job_nodes import JobNodes
from rlctl.executors.slurm.options import SlurmOptions
from rlctl.executors.slurm.steps import (
    machine_failure,
    pmi_of,
    rank_exit_code,
    signal_command,
    srun_command,
    step_cores,
    step_name,
    step_script,
)


class StepTask(ProcessTask):
    """One attempt of a program as a step.

    Attributes:
        signalled: a signal was requested.
    """

    under_launcher = True

    def __init__(self, site: SlurmSite, attempt: Attempt, scratch: Path) -> None:
        super().__init__(attempt, site.workdir, scratch, site.environments)
        self._site = site
        self.signalled = False

    def launch(self, command: list[str], environment: dict[str, str], gpus: Mapping[str, str]) -> dict[str, Any]:
        """The request that starts a command by ``srun`` on the nodes of its allocation."""
        need, allocation = self.attempt.need, self.attempt.allocation
        nodes, options = self._site.nodes, self._site.options
        name = step_name(nodes, self.attempt.key)
        mpi = options.mpi
        if mpi is None and need.ranks > 1:
            mpi = pmi_of(command, self._environments.variables(self.attempt.spec))
        outputs = (f"{self.errors[:-3]}out", self.errors)
        step = srun_command(
            nodes,
            allocation,
            name,
            gpus=self._site.node_gpus if need.gpus_per_rank else 0,
            mpi=mpi,
            memory_mb=None if need.memory_per_rank_mb is None else max(share.memory_mb for share in allocation),
            arguments=options.arguments,
        )
        # srun merges the output of several ranks; a single process writes its own files, so that srun does not wait
        # for background processes that keep its output open.
        script = step_script(nodes, allocation, outputs if need.ranks == 1 else None)
        self.command = [*step, "sh", "-c", script, "step", *command]
        self.control = signal_command(nodes.block(allocation[0].node).job, name)
        return {
            "command": [shutil.which("srun") or "srun", *self.command[1:]],
            "environment": environment,
            "outputs": outputs,
            "cores": None,
            "control": self.control,
        }

    def read(self, why: str | None, code: int | None) -> AttemptOutcome:
        """How it ended; ``srun`` may have lost it, and returns the highest of the ranks' exit codes."""
        errors = self.last_errors()
        if why is None and not self.stopping and (lost := machine_failure(errors, self.signalled)):
            return AttemptOutcome(failure=Failure.LOST, message=lost)
        code = rank_exit_code(errors, code) if code else code
        outcome = super().read(why, code)
        if code in (126, 127) and outcome.message.startswith("step: "):  # the script could not start the program
            return AttemptOutcome(failure=Failure.LAUNCH, message=outcome.message.rpartition("exec: ")[2])
        return outcome


class StepWorker(Worker):
    """A worker on a node, connected over the input and output of ``srun``, so that no port is open."""

    last_word = signal.SIGTERM
    most = serialization.QUICK_BYTES

    def __init__(self, site: SlurmSite, node: int, mark: str, environment: Mapping[str, str]) -> None:
        self._job, self._name = site.nodes.block(node).job, step_name(site.nodes, mark.rpartition(":")[2])
        share, arguments = (NodeShare(node, 1, 1),), site.options.arguments
        self._step = srun_command(site.nodes, share, self._name, interactive=True, arguments=arguments)
        self._first_kill, self._last_kill = float("inf"), 0.0
        log = site.workdir / LOGS / "calls.out"
        super().__init__(environment, site.letters, mark, site.workdir, log, site.initializer)

    def start(
        self, theirs: socket.socket, life: int, environment: Mapping[str, str], workdir: Path | None, output: int | None
    ) -> subprocess.Popen[bytes]:
        """Start ``srun``, which ends with the worker."""
        command = [*self._step, sys.executable, "-m", "rlctl.executors.functions.worker", "-", "-", str(self._scratch)]
        return subprocess.Popen(
            command,
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            stderr=output,
            start_new_session=True,
            cwd=workdir,
            env=dict(environment),
        )

    def terminate(self, grace_kill_at: float) -> None:
        """End its step."""
        self.kill_at = grace_kill_at
        self.kill()

    def kill(self) -> bool:
        """End its step, by ``srun`` if it responds; whether any process of it on this machine is still alive."""
        alive = family([self.pid], self.mark)
        now = time.monotonic()
        self._first_kill = min(self._first_kill, now)
        if now > self._first_kill + LAUNCHER_S + 1.0:
            send_signal(alive, signal.SIGKILL)
        elif now > self._last_kill + AGAIN_S:
            late = now > self._first_kill + LAUNCHER_S  # the death of srun alone ends the step too, not that of all
            send_signal([self.pid] if alive else [], signal.SIGKILL if late else signal.SIGTERM)
            self._last_kill = now
        return bool(alive)

    def signal(self, number: int) -> None:
        """Signal all processes of its step."""
        name = signal.Signals(number).name.removeprefix("SIG")
        subprocess.run([*signal_command(self._job, self._name), name], stdin=subprocess.DEVNULL, check=False)


class SlurmSite:
    """Starts programs and workers as steps, for a ``LocalBackend``; see ``rlctl.executors.local.site.Site``.

    Args:
        letters: folder for messages to workers that are too long for their input, seen by all nodes.
        node_gpus: devices of a node.
        initializer: first message to each worker.
    """

    def __init__(
        self,
        nodes: JobNodes,
        workdir: Path,
        letters: Path,
        options: SlurmOptions,
        node_gpus: int,
        initializer: bytes | None,
    ) -> None:
        self.bare: Mapping[str, str] = with_home(without_job(os.environ))
        self.nodes, self.workdir, self.letters = nodes, workdir, letters
        self.options, self.node_gpus, self.initializer = options, node_gpus, initializer
        self.environments = ProgramEnvironments(self.bare, options.applications)

    def check(self, spec: TaskSpec) -> None:
        """Raise LaunchError if the ranks of a program would not find each other under ``srun``."""
        if spec.resources.ranks == 1 or self.options.mpi is not None:
            return
        application = self.environments.application(spec)
        if application is not None and application.container:  # the programs inside are not visible here
            return
        wanted = pmi_of(self.environments.command(spec), self.environments.variables(spec))
        if wanted is not None and (why := pmi_problem(wanted)) is not None:
            raise LaunchError(
                f"task {spec.uid}: the ranks of {spec.executable} find each other by {wanted}, and each would run "
                f"alone: {why}, or set executor.options.mpi"
            )

    def cores(self, allocation: Allocation) -> list[int]:
        """Numbers of the cores on the first node."""
        return step_cores(self.nodes, allocation[0])

    def gpus(self, allocation: Allocation) -> Mapping[str, str]:
        """Empty: the script of a step selects the GPUs of each node."""
        return {}

    def program(self, attempt: Attempt, scratch: Path) -> StepTask:
        """An attempt of a program, not started yet."""
        return StepTask(self, attempt, scratch)

    def worker(self, node: int, mark: str, environment: Mapping[str, str], scratch: Path) -> StepWorker:
        """Start a worker on a node."""
        (self.workdir / LOGS).mkdir(exist_ok=True)
        return StepWorker(self, node, mark, environment)
