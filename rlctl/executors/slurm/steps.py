"""What runs on nodes of an allocation: programs and workers as steps, started by ``srun``.

rlctl owns the books, so steps overlap as far as Slurm knows, and each finds the cores and GPUs that it was given in the
lines of shell that stand before it. Signals reach a step by its name; ``srun`` ends its step when it gets SIGTERM.
"""

from __future__ import annotations

import os
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

from rlctl.core.task import Failure, TaskSpec
from rlctl.executors.application import Application
from rlctl.executors.devices import MASKS
from rlctl.executors.functions import serialization
from rlctl.executors.functions.worker_client import Worker
from rlctl.executors.launchers import Launcher, LaunchRequest, launch_command
from rlctl.executors.local.process_task import Program, application_of, own_command, variables_of
from rlctl.executors.local.processes import family, send_signal
from rlctl.executors.local.supervisor import AGAIN_S, LAUNCHER_S, TASK
from rlctl.executors.mpi import mpi_library
from rlctl.executors.naming import file_name
from rlctl.executors.pool import Placement, core_numbers
from rlctl.executors.scheduler import Ending
from rlctl.executors.slurm.allocation import Allocation
from rlctl.executors.slurm.commands import SIGNAL_STEP

PMI = {Launcher.OPENMPI: "pmix", Launcher.MPICH: "pmi2"}
"""How ranks of a family find each other under ``srun``."""

_LOST = re.compile(
    r"^(?:srun|slurmstepd[^:]*): (?:error: )?.*(Node failure|NODE FAILURE|DUE TO TIME LIMIT|has expired|"
    r"Expired or invalid job|Invalid job id|already completing or completed|Socket timed out|Unable to confirm|"
    r"Zero Bytes|Unable to contact|Communication connection failure|Job credential)",
    re.MULTILINE,
)
"""What ``srun`` says when it is the machine's fault; its exit code is 0 then at times."""

_ENDED = re.compile(
    r"^(?:srun: Job step aborted|slurmstepd[^:]*: error: \*\*\* (?:STEP|JOB) .* CANCELLED)", re.MULTILINE
)
"""What is said when a step is ended from outside, with its job for instance; also after a rank has failed."""

_RANK = re.compile(
    r"^srun: error: \S+: tasks? [\d,-]+: (?:Exited with exit code (\d+)|(.+?)(?: \(core dumped\))?)$", re.MULTILINE
)
"""How a rank ended; the first one to be told of is the one to blame."""

_SIGNALS = {signal.strsignal(number): int(number) for number in signal.valid_signals()}


def srun(
    allocation: Allocation,
    placement: Placement,
    name: str,
    *,
    gpus: int = 0,
    mpi: str | None = None,
    memory_mb: int | None = None,
    talks: bool = False,
    arguments: Sequence[str] = (),
) -> list[str]:
    """The command that starts a step on the nodes of a placement; the program follows.

    Args:
        name: of the step.
        gpus: devices per node that it may see, all of them: which are its own its environment says.
        mpi: as ``srun --mpi`` has it; None: what the site has set.
        memory_mb: limit per node.
        talks: whether it answers over its output; what others print comes by lines, which ranks do not mix up.
        arguments: further ones of ``srun``.
    """
    ranks = {allocation.host(part.node): max(1, part.ranks) for part in placement}
    job = str(allocation.block(placement[0].node).job)
    # Without --gres, a step takes all GPUs for itself; buffered, an answer without a newline would never come.
    flags = [
        f"--job-name={name}",
        f"--gres=gpu:{gpus}" if gpus else "--gres=none",
        *(["--unbuffered"] if talks else []),
    ]
    if memory_mb is not None:
        flags.append(f"--mem={memory_mb}M")
    return launch_command(Launcher.SRUN, LaunchRequest(ranks, job=job, pmi=mpi, flags=(*flags, *arguments)))[0]


def prologue(allocation: Allocation, placement: Placement, outputs: tuple[str, str] | None) -> str:
    """Lines of shell: this node's cores and GPUs, then the program, which follows as arguments.

    Args:
        outputs: files for standard output and error; None: through ``srun``.
    """
    cases = []
    for part in placement:
        block = allocation.block(part.node)
        here = block.cores[part.node]
        cores = sorted({here[core % len(here)] for core in core_numbers(part.cores)})
        gpus = block.gpus[part.node].variables_for(device for device, _ in part.gpus)
        told = " ".join(f"{name}={shlex.quote(value)}" for name, value in gpus.items())
        host = shlex.quote(block.hosts[part.node])
        cases.append(f"{host}) c={','.join(map(str, cores))}; export {told};;")
    append = "" if outputs is None else f" >>{shlex.quote(outputs[0])} 2>>{shlex.quote(outputs[1])}"
    return (
        f"unset {TASK} {' '.join(MASKS)}; case $SLURMD_NODENAME in {' '.join(cases)} esac; "
        f'[ -z "$c" ] || taskset -cp "$c" $$ >/dev/null 2>&1; exec "$@"{append}'
    )


class StepProgram(Program):
    """One attempt of an exec as a step.

    Attributes:
        allocation: where it runs.
        mpi: as ``srun --mpi`` has it; None: what its MPI needs.
        arguments: further ones of ``srun``.
        gpus: devices of a node.
        gone: what has happened to a node that it ran on; empty: nothing.
        signalled: whether it was sent a signal, as asked for.
    """

    under_launcher = True
    allocation: Allocation
    mpi: str | None = None
    arguments: tuple[str, ...] = ()
    gpus = 0
    gone = ""
    signalled = False

    def launch(
        self, command: list[str], environment: dict[str, str], variables: Mapping[str, str], gpus: Mapping[str, str]
    ) -> dict[str, Any]:
        """How this command is started: by ``srun``, on the nodes of its placement."""
        need, placement = self.task.need, self.task.placement
        name = step_name(self.allocation, self.name)
        mpi = self.mpi
        if mpi is None and need.ranks > 1:
            mpi = _pmi(command, variables)
        memory_mb = None if need.memory_per_rank_mb is None else max(p.memory_mb for p in placement)
        outputs = (f"{self.errors[:-3]}out", self.errors)
        # What ranks write goes through one place; a single process writes itself, so that nobody waits for what it
        # leaves behind with its output open.
        own = outputs if need.ranks == 1 else None
        step = srun(
            self.allocation,
            placement,
            name,
            gpus=self.gpus if need.gpus_per_rank else 0,
            mpi=mpi,
            memory_mb=memory_mb,
            arguments=self.arguments,
        )
        self.command = [*step, "sh", "-c", prologue(self.allocation, placement, own), "step", *command]
        job = self.allocation.block(placement[0].node).job
        self.control = [_path("sh"), "-c", SIGNAL_STEP, "signal", str(job), name]
        return {
            "command": [_path("srun"), *self.command[1:]],
            "environment": environment,
            "outputs": outputs,
            "cores": None,
            "control": self.control,
        }

    def read(self, why: str | None, code: int | None) -> Ending:
        """How it ended; ``srun`` may have lost it, and tells of the highest of the ranks' exit codes."""
        said = self._said()
        lost = self.gone or (self.lost(said) if why is None else "")
        if lost and self.task.stop is None:
            return Ending(failure=Failure.LOST, message=lost)
        if code and (blamed := _RANK.search(said)) is not None:
            code = int(blamed[1]) if blamed[1] else 128 + _SIGNALS.get(blamed[2], code - 128)
        ending = super().read(why, code)
        if code in (126, 127) and ending.message.startswith("step: "):  # the shell before it could not start it
            return Ending(failure=Failure.LAUNCH, message=ending.message.rpartition("exec: ")[2])
        return ending

    def lost(self, said: str) -> str:
        """What of ``srun``'s words tells that it was not the program's fault; empty: nothing."""
        found, rank = _LOST.search(said), _RANK.search(said)
        if found is None and not self.signalled:
            found = _ENDED.search(said, 0, rank.start() if rank is not None else len(said))
        return said[found.start() :].splitlines()[0] if found else ""

    def _said(self) -> str:
        try:
            with open(self.errors, "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - (1 << 16)))
                return file.read().decode(errors="replace")
        except OSError:
            return ""


def pmi(spec: TaskSpec, applications: Mapping[str, Application], bare: Mapping[str, str]) -> str | None:
    """How the ranks of a program find each other, as ``srun --mpi`` has it; None: its MPI cannot be told."""
    application = application_of(spec, applications)
    variables = variables_of(application, bare)
    if application is not None and application.container:  # what is inside cannot be seen from here
        return None
    return _pmi(own_command(spec, application, variables), variables)


def _pmi(command: Sequence[str], variables: Mapping[str, str]) -> str | None:
    program = shutil.which(command[0], path=variables.get("PATH"))
    flavour = None if program is None else mpi_library(program, variables)
    return None if flavour is None else PMI[flavour]


def step_name(allocation: Allocation, name: str) -> str:
    """Name of a step; no other in the job has it."""
    escaped = re.sub(r"[^A-Za-z0-9_.%-]", lambda found: quote(found[0], safe=""), file_name(name))
    return f"{allocation.name}.{escaped.replace('~', '-')}"


class StepWorker(Worker):
    """A worker on a node. It talks over the input and output of ``srun``, so no port is open anywhere."""

    last_word = signal.SIGTERM
    most = serialization.QUICK_BYTES

    def __init__(
        self,
        step: Sequence[str],
        environment: Mapping[str, str],
        scratch: Path,
        mark: str,
        workdir: Path,
        log: Path,
        initializer: bytes | None,
    ) -> None:
        self._step = step
        self._first_told = float("inf")
        self._told_again = 0.0
        super().__init__(environment, scratch, mark, workdir, log, initializer)

    def start(
        self, theirs: socket.socket, life: int, environment: Mapping[str, str], workdir: Path | None, output: int | None
    ) -> subprocess.Popen[bytes]:
        """Start it by ``srun``, whose end is its own."""
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
        """Have its step ended."""
        self.kill_at = grace_kill_at
        self.kill()

    def kill(self) -> bool:
        """Have its step ended, by ``srun`` itself as long as it can; whether anything of it is still alive."""
        alive = family([self.pid], self.mark)
        now = time.monotonic()
        self._first_told = min(self._first_told, now)
        if now > self._first_told + LAUNCHER_S + 1.0:
            send_signal(alive, signal.SIGKILL)
        elif now > self._told_again:
            late = now > self._first_told + LAUNCHER_S  # its own death ends the step too, that of all of it would not
            send_signal([self.pid] if alive else [], signal.SIGKILL if late else signal.SIGTERM)
            self._told_again = now + AGAIN_S
        return bool(alive)

    def signal(self, number: int) -> None:
        """To its step."""
        name = next(part for part in self._step if part.startswith("--job-name=")).partition("=")[2]
        job = next(part for part in self._step if part.startswith("--jobid=")).partition("=")[2]
        names = signal.Signals(number).name.removeprefix("SIG")
        subprocess.run(["sh", "-c", SIGNAL_STEP, "signal", job, name, names], stdin=subprocess.DEVNULL, check=False)


def _path(program: str) -> str:
    return shutil.which(program) or program
