"""Programs as steps of a Slurm job: the ``srun`` command, the shell script that precedes a program, srun's messages.

The engine owns the placement, so steps overlap as far as Slurm knows, and a shell script before each program restricts
it to its cores and GPUs. Signals reach a step by its name; ``srun`` ends its step when it gets SIGTERM.
"""

from __future__ import annotations

import re
import shlex
import shutil
import signal
from collections.abc import Mapping, Sequence
from urllib.parse import quote

from rlctl.executors.devices import MASKS
from rlctl.executors.launchers import Launcher, LaunchRequest, launch_command
from rlctl.executors.local.pid_file import TASK
from rlctl.executors.mpi import mpi_library
from rlctl.executors.naming import file_name
from rlctl.executors.node_share import Allocation, NodeShare, core_numbers
from rlctl.executors.slurm.commands import SIGNAL_STEP
from rlctl.executors.slurm.job_nodes import JobNodes

PMI = {Launcher.OPENMPI: "pmix", Launcher.MPICH: "pmi2"}
"""Process management interface by which ranks of an MPI find each other under ``srun``."""

_LOST = re.compile(
    r"^(?:srun|slurmstepd[^:]*): (?:error: )?.*(Node failure|NODE FAILURE|DUE TO TIME LIMIT|has expired|"
    r"Expired or invalid job|Invalid job id|already completing or completed|Socket timed out|Unable to confirm|"
    r"Zero Bytes|Unable to contact|Communication connection failure|Job credential)",
    re.MULTILINE,
)
"""Messages of ``srun`` about failures of the machine; its exit code is 0 then at times."""

_CANCELLED = re.compile(
    r"^(?:srun: Job step aborted|slurmstepd[^:]*: error: \*\*\* (?:STEP|JOB) .* CANCELLED)", re.MULTILINE
)
"""Messages about a step that was ended from outside, with its job for instance; also after a rank has failed."""

_RANK = re.compile(
    r"^srun: error: \S+: tasks? [\d,-]+: (?:Exited with exit code (\d+)|(.+?)(?: \(core dumped\))?)$", re.MULTILINE
)
"""Messages about the end of a rank; the first one names the cause."""

_SIGNALS = {signal.strsignal(number): int(number) for number in signal.valid_signals()}


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


def machine_failure(errors: str, signalled: bool) -> str:
    """The message in a step's standard error that tells of a failure of the machine; empty: there is none.

    If the step was ``signalled`` by request, its end from outside is expected.
    """
    found, rank = _LOST.search(errors), _RANK.search(errors)
    if found is None and not signalled:
        found = _CANCELLED.search(errors, 0, rank.start() if rank is not None else len(errors))
    return errors[found.start() :].splitlines()[0] if found else ""


def rank_exit_code(errors: str, code: int) -> int:
    """Exit code of the rank that failed first, 128 + n for a signal; ``srun`` returns the highest one of all ranks."""
    rank = _RANK.search(errors)
    if rank is None:
        return code
    return int(rank[1]) if rank[1] else 128 + _SIGNALS.get(rank[2], code - 128)


def pmi_of(command: Sequence[str], variables: Mapping[str, str]) -> str | None:
    """The interface that the MPI of a command needs, as for ``srun --mpi``; None: its MPI is unknown."""
    program = shutil.which(command[0], path=variables.get("PATH"))
    family = None if program is None else mpi_library(program, variables)
    return None if family is None else PMI[family]
