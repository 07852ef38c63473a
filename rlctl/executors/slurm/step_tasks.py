"""Programs and warm workers that run as steps of a Slurm job."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlctl.core.task import Failure
from rlctl.executors.application import ProgramEnvironments
from rlctl.executors.backend import Attempt, AttemptOutcome
from rlctl.executors.functions import serialization
from rlctl.executors.functions.worker_client import Worker
from rlctl.executors.local.process_task import LOGS, ProcessTask
from rlctl.executors.local.processes import family, send_signal
from rlctl.executors.local.supervised_program import AGAIN_S, LAUNCHER_S
from rlctl.executors.node_share import NodeShare
from rlctl.executors.slurm.job_nodes import JobNodes
from rlctl.executors.slurm.options import SlurmOptions
from rlctl.executors.slurm.steps import (
    machine_failure,
    pmi_of,
    rank_exit_code,
    signal_command,
    srun_command,
    step_name,
    step_script,
)


class StepTask(ProcessTask):
    """One attempt of a program as a step."""

    under_launcher = True

    def __init__(
        self,
        attempt: Attempt,
        workdir: Path,
        scratch: Path,
        environments: ProgramEnvironments,
        nodes: JobNodes,
        options: SlurmOptions,
    ) -> None:
        super().__init__(attempt, workdir, scratch, environments)
        self._nodes, self._options = nodes, options

    def launch(self, command: list[str], environment: dict[str, str], gpus: Mapping[str, str]) -> dict[str, Any]:
        """The request that starts a command by ``srun`` on the nodes of its allocation."""
        need, allocation = self.attempt.need, self.attempt.allocation
        nodes, options = self._nodes, self._options
        name = step_name(nodes, self.attempt.key)
        mpi = options.mpi
        if mpi is None and need.ranks > 1:
            mpi = pmi_of(command, self._environments.variables(self.attempt.spec))
        outputs = (f"{self.errors[:-3]}out", self.errors)
        step = srun_command(
            nodes,
            allocation,
            name,
            gpus=nodes.capacity.gpus if need.gpus_per_rank else 0,
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

    def __init__(
        self,
        environment: Mapping[str, str],
        scratch: Path,
        mark: str,
        workdir: Path,
        initializer: bytes | None,
        nodes: JobNodes,
        node: int,
        arguments: Sequence[str],
    ) -> None:
        self._job, self._name = nodes.block(node).job, step_name(nodes, mark.rpartition(":")[2])
        self._step = srun_command(nodes, (NodeShare(node, 1, 1),), self._name, interactive=True, arguments=arguments)
        self._first_kill, self._last_kill = float("inf"), 0.0
        super().__init__(environment, scratch, mark, workdir, workdir / LOGS / "calls.out", initializer)

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
