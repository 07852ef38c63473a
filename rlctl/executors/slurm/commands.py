"""Slurm's commands that the executor needs, and how it reads their output; what tasks may use on the nodes of a job."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rlctl.core.errors import LaunchError
from rlctl.core.machine import Capacity
from rlctl.system.devices import AMD, MASKS, NVIDIA, SELECTOR, Devices, VendorCounts, visible_devices
from rlctl.system.launchers import Launcher

PMI = {Launcher.OPENMPI: "pmix", Launcher.MPICH: "pmi2"}
"""Process management interface by which ranks of an MPI find each other under ``srun``."""

_FAILED = ("down", "fail", "unk", "no_respond", "power", "reboot")


@dataclass(frozen=True, slots=True)
class SlurmJob:
    """A job as ``squeue`` lists it; ``left_s`` is infinite where it has no limit, or has not begun."""

    number: int
    state: str
    hosts: tuple[str, ...] = ()
    left_s: float = float("inf")

    @property
    def waits(self) -> bool:
        """Whether it may still begin."""
        return self.state in ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SUSPENDED")

    @property
    def runs(self) -> bool:
        """Whether its nodes can be used now."""
        return self.state == "RUNNING" and bool(self.hosts)


def run_command(*command: str, script: str = "", workdir: Path | None = None) -> str:
    """What a command prints; ``script`` is its input. LaunchError tells the last line of one that fails."""
    try:
        done = subprocess.run(
            command, input=script, capture_output=True, text=True, timeout=60.0, errors="replace", cwd=workdir
        )
    except FileNotFoundError as error:
        raise LaunchError(f"there is no {command[0]}: run where Slurm is, or choose another executor") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LaunchError(f"{command[0]} does not answer: {error}") from error
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
        raise LaunchError(f"{' '.join(command[:3])} fails (it says: {said})")
    return done.stdout


def submit_job(flags: Sequence[str], script: str, workdir: Path) -> int:
    """Submit a job by ``sbatch``; returns its number, or raises LaunchError if Slurm refuses it."""
    command = ["sbatch", "--parsable", "--no-requeue", "--output=/dev/null", *flags]
    try:
        text = run_command(*command, script=f"#!/bin/sh\n{script}\n", workdir=workdir)
    except LaunchError as error:
        raise LaunchError(f"{error}: correct executor.options.submit") from error
    return int(text.strip().partition(";")[0])


def cancel(number: int | str) -> None:
    """End a job or a step, unless it has ended."""
    with contextlib.suppress(LaunchError):
        run_command("scancel", str(number))


def current_job() -> int | None:
    """Number of the job that this process runs in."""
    number = os.environ.get("SLURM_JOB_ID", "")
    return int(number) if number.isdigit() else None


def query_job(number: int) -> SlurmJob | None:
    """A job; None: Slurm does not know it any more.

    A LaunchError means that Slurm does not answer. This may last for minutes and harms no running task.
    """
    try:
        text = run_command("squeue", "--noheader", "--jobs", str(number), "--states=all", "--format=%i|%T|%N|%e")
    except LaunchError as error:
        if "Invalid job id" in str(error):
            return None
        raise
    return next(_jobs(text), None)


def query_jobs(name: str) -> list[SlurmJob]:
    """The user's jobs of this name that wait or run."""
    text = run_command("squeue", "--noheader", "--me", f"--name={name}", "--format=%i|%T|%N|%e")
    return sorted(_jobs(text), key=lambda found: found.number)


def _jobs(text: str) -> Iterator[SlurmJob]:
    for line in text.splitlines():
        number, state, nodes, end = line.strip().split("|")
        left_s = float("inf")
        if state == "RUNNING" and end[:1].isdigit():
            left_s = datetime.fromisoformat(end).timestamp() - time.time()
        yield SlurmJob(int(number), state, hostnames(nodes) if nodes else (), left_s)


def hostnames(nodes: str) -> tuple[str, ...]:
    """The hosts of a node list such as ``n[1-3,7]``."""
    if not set("[,") & set(nodes):
        return (nodes,)
    return tuple(run_command("scontrol", "show", "hostnames", nodes).split())


def failed_hosts(hosts: Sequence[str]) -> set[str]:
    """Those of these hosts that Slurm reports as down or unresponsive."""
    text = run_command("sinfo", "--noheader", "--Node", f"--nodes={','.join(hosts)}", "--format=%N|%T")
    states = (line.strip().split("|") for line in text.splitlines())
    return {host for host, state in states if state.endswith("*") or state.lower().startswith(_FAILED)}


@functools.cache
def pmi_problem(kind: str) -> str | None:
    """Why ranks do not find each other under ``srun --mpi=KIND`` here, and what to do; None: they do."""
    text = run_command("srun", "--mpi=list")
    there = [line.strip() for line in text.splitlines() if re.fullmatch(r"\s*[a-z]\w*\s*", line)]
    if kind not in there:
        return f"srun has no {kind} here (it has {', '.join(there)}): have the plugin installed"
    try:  # a listed plugin may lack its library; this starts nothing
        run_command("srun", f"--mpi={kind}", "--test-only", "--nodes=1", "--ntasks=1", "true")
    except LaunchError as error:
        if "Invalid MPI type" in str(error):
            return f"srun cannot load {kind} here: {_REMEDIES.get(kind, 'have its library installed')}"
    return None


_REMEDIES = {"pmix": "have the library libpmix.so installed, by `apt-get install libpmix-dev` on Debian"}


def steps_of(number: int) -> dict[str, str]:
    """Ids (``JOB.STEP``) of a job's steps, by name."""
    text = run_command("squeue", "--noheader", "--steps", f"--jobs={number}", "--format=%i|%j")
    return {name: step for step, _, name in (line.strip().partition("|") for line in text.splitlines())}


SIGNAL_STEP = """
number=$1 name=$2; shift 2
for look in 1 2 3 4 5 6 7 8 9 10; do
  found=$(squeue --noheader --steps --jobs="$number" --format='%i|%M|%j' |
    sed -n "s/^ *\\([0-9.]*|[0-9:-]*\\)|$name *$/\\1/p")
  [ -z "$found" ] || break
  sleep 0.2
done
case ${found#*|} in 0:00|0:01) sleep 0.3 ;; esac
for signal; do [ -z "$found" ] || scancel --signal="$signal" "${found%|*}" 2>/dev/null; done
"""
"""Shell script that signals all processes of a step; arguments: number of the job, name of the step, signal names.

A new step appears within moments, and its processes some moments later: a signal to a step that is at most a second old
waits for them.
"""


@dataclass(frozen=True, slots=True)
class NodeInventory:
    """What tasks may use on a node: numbers of cores, and GPUs."""

    cores: tuple[int, ...]
    gpus: Devices


def survey(job: int, hosts: list[str], step: str, capacity: Capacity) -> dict[str, NodeInventory]:
    """Query hosts of a running job by a step of this name; those that do not answer are left out.

    Raises:
        LaunchError: a node has fewer cores or GPUs than ``capacity``, or the step fails.
    """
    gres = f"gpu:{capacity.gpus}" if capacity.gpus else "none"
    text = run_command(
        "srun",
        f"--jobid={job}",
        f"--job-name={step}",
        "--overlap",
        "--cpu-bind=none",
        f"--nodes={len(hosts)}",
        f"--ntasks={len(hosts)}",
        "--ntasks-per-node=1",
        f"--nodelist={','.join(hosts)}",
        f"--gres={gres}",
        "sh",
        "-c",
        _REPORT,
    )
    reports = {host: rest for host, _, rest in (line.partition("|") for line in text.splitlines())}
    return {host: _inventory(job, host, reports[host], capacity) for host in hosts if host in reports}


_REPORT = (
    'echo "$SLURMD_NODENAME|$SLURM_CPUS_ON_NODE|$(taskset -cp $$ 2>/dev/null)|'
    '$(ls -d /dev/nvidia[0-9]* /dev/kfd 2>/dev/null | tr "\\n" " ")|'
    f'$(env | grep -E "^({"|".join((*MASKS, SELECTOR))}|SLURM_STEP_GPUS)=" | tr "\\n" "\\t")"'
)
"""Shell script that prints a node's name, number of cores, affinity, device files and masks of GPUs."""


def _inventory(job: int, host: str, report: str, capacity: Capacity) -> NodeInventory:
    count, affinity, files, masks = report.split("|", 3)
    if int(count) < capacity.cores:
        raise LaunchError(
            f"{capacity.cores} cores are asked for, job {job} has {count} on {host}: "
            "lower machine.cores, or ask for more, e.g. by --exclusive",
            ("machine", "cores"),
        )
    cores = _numbers(affinity.rpartition(":")[2].strip()) or tuple(range(int(count)))
    drivers = ((NVIDIA, "/dev/nvidia"), (AMD, "/dev/kfd"))
    vendors: VendorCounts = {vendor: None for vendor, file in drivers if file in files}
    variables: Mapping[str, str] = dict(mask.split("=", 1) for mask in masks.strip().split("\t") if mask)
    gpus = visible_devices(variables, vendors)
    if gpus.names is not None and len(gpus.names) < capacity.gpus:
        raise LaunchError(
            f"{capacity.gpus} GPUs are asked for, {gpus.source} allows {len(gpus.names)} on {host}: "
            "lower machine.gpus, or ask for more, e.g. by --gres",
            ("machine", "gpus"),
        )
    return NodeInventory(cores, gpus)


def _numbers(text: str) -> tuple[int, ...]:
    """
    >>> _numbers("0,4-6")
    (0, 4, 5, 6)
    """
    numbers: list[int] = []
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        numbers += range(int(first), int(last or first) + 1)
    return tuple(numbers)
