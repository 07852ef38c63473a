"""Programs and warm workers as steps of a Slurm job: ``srun``, the shell script before a program, srun's messages.

The engine owns the placement, so steps overlap as far as Slurm knows, and a shell script before each program restricts
it to its cores and GPUs. Signals reach a step by its name; ``srun`` ends its step when it gets SIGTERM.
"""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rlctl.core.task import Failure
from rlctl.executors.application import ProgramEnvironments
from rlctl.executors.backend import Attempt, AttemptOutcome
from rlctl.executors.functions import serialization
from rlctl.executors.functions.worker_client import Worker
from rlctl.executors.local.pid_file import TASK
from rlctl.executors.local.process_task import LOGS, ProcessTask
from rlctl.executors.local.processes import family, send_signal
from rlctl.executors.local.supervised_program import AGAIN_S, LAUNCHER_S
from rlctl.executors.naming import file_name
from rlctl.executors.node_share import Allocation, NodeShare, core_numbers
from rlctl.executors.slurm.commands import PMI, SIGNAL_STEP
from rlctl.executors.slurm.job_nodes import JobNodes
from rlctl.executors.slurm.options import SlurmOptions
from rlctl.system.devices import MASKS
from rlctl.system.launchers import Launcher, LaunchRequest, launch_command
from rlctl.system.mpi import mpi_library
from rlctl.system.srun_messages import machine_failure, rank_exit_code


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
        # A wrapper of several ranks runs here, and starts srun; that of a single one runs where its program does.
        wrapper = self._environments.wrapper(self.attempt.spec)
        before, inside = (wrapper, []) if need.ranks > 1 else ([], wrapper)
        step[0] = shutil.which("srun") or "srun"
        self.command = [*before, *step, "sh", "-c", script, "step", *inside, *command]
        self.control = signal_command(nodes.block(allocation[0].node).job, name)
        return {
            "command": self.command,
            "environment": environment,
            "outputs": outputs,
            "cores": None,
            "control": self.control,
        }

    def read(self, why: str | None, code: int | None) -> AttemptOutcome:
        """How it ended; ``srun`` may have lost it, and returns the highest of the ranks' exit codes."""
        errors = self.last_errors()
        if why is None and (lost := machine_failure(errors, self.signalled)):
            # Where it is being stopped, its job was ended before the supervisor got the request.
            return AttemptOutcome(stopped=True) if self.stopping else AttemptOutcome(failure=Failure.LOST, message=lost)
        if code and not (self.attempt.spec.wrapper and self.attempt.need.ranks > 1):  # else it is the wrapper's
            code = rank_exit_code(errors, code)
        outcome = super().read(why, code)
        if code in (126, 127) and outcome.message.startswith("step: "):  # the script could not start the program
            return AttemptOutcome(failure=Failure.LAUNCH, message=outcome.message.rpartition("exec: ")[2])
        return outcome


class StepWorker(Worker):
    """A worker on a node, connected over the input and output of ``srun``, so that no port is open."""

    end_signal = signal.SIGTERM
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


def srun_command(
    nodes: JobNodes,
    allocation: Allocation,
    name: str,
    *,
    gpus: int = 0,
    mpi: str | None = None,
    memory_mb: int | None = None,
    interactive: bool = False,
    arguments: Sequence[str] = (),
) -> list[str]:
    """The command that starts a step on allocated nodes; the program follows.

    Args:
        gpus: devices per node that the step sees, all of them: its script selects its own.
        memory_mb: limit per node.
        interactive: the step answers over its output, unbuffered; otherwise output comes by whole lines of a rank.
    """
    ranks = {nodes.block(share.node).hosts[share.node]: max(1, share.ranks) for share in allocation}
    # Without --gres, a step takes all GPUs for itself; buffered, an answer without a newline would never come.
    flags = [f"--job-name={name}", f"--gres=gpu:{gpus}" if gpus else "--gres=none"]
    flags += ["--unbuffered"] if interactive else []
    flags += [] if memory_mb is None else [f"--mem={memory_mb}M"]
    job = str(nodes.block(allocation[0].node).job)
    return launch_command(Launcher.SRUN, LaunchRequest(ranks, job=job, pmi=mpi, flags=(*flags, *arguments)))[0]


def step_script(nodes: JobNodes, allocation: Allocation, outputs: tuple[str, str] | None) -> str:
    """Shell script that selects this node's cores and GPUs, then runs the program, given as its arguments.

    Standard output and error go to these files; None: both go through ``srun``.
    """
    cases = []
    for share in allocation:
        block = nodes.block(share.node)
        cores = step_cores(nodes, share)
        gpus = block.inventory[share.node].gpus.variables_for(device for device, _ in share.gpus)
        variables = " ".join(f"{name}={shlex.quote(value)}" for name, value in gpus.items())
        host = shlex.quote(block.hosts[share.node])
        cases.append(f"{host}) c={','.join(map(str, cores))}; export {variables};;")
    append = "" if outputs is None else f" >>{shlex.quote(outputs[0])} 2>>{shlex.quote(outputs[1])}"
    return (
        f"unset {TASK} {' '.join(MASKS)}; case $SLURMD_NODENAME in {' '.join(cases)} esac; "
        f'[ -z "$c" ] || taskset -cp "$c" $$ >/dev/null 2>&1; exec "$@"{append}'
    )


def step_cores(nodes: JobNodes, share: NodeShare) -> list[int]:
    """Numbers of the cores that a share of a node stands for."""
    cores = nodes.block(share.node).inventory[share.node].cores
    return sorted({cores[core % len(cores)] for core in core_numbers(share.cores)})


def signal_command(job: int, name: str) -> list[str]:
    """The command that signals all processes of a step; names of signals follow."""
    return [shutil.which("sh") or "sh", "-c", SIGNAL_STEP, "signal", str(job), name]


def step_name(nodes: JobNodes, key: str) -> str:
    """Name of an attempt's step, unique in the job."""
    escaped = re.sub(r"[^A-Za-z0-9_.%-]", lambda found: quote(found[0], safe=""), file_name(key))
    return f"{nodes.name}.{escaped.replace('~', '-')}"


def pmi_of(command: Sequence[str], variables: Mapping[str, str]) -> str | None:
    """The interface that the MPI of a command needs, as for ``srun --mpi``; None: its MPI is unknown."""
    program = shutil.which(command[0], path=variables.get("PATH"))
    family = None if program is None else mpi_library(program, variables)
    return None if family is None else PMI[family]
