"""What tasks may use on the nodes of a job: a step on each node reports its cores and GPUs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rlctl.core.errors import LaunchError
from rlctl.core.machine import Capacity
from rlctl.executors.slurm.commands import run_command
from rlctl.system.devices import AMD, MASKS, NVIDIA, SELECTOR, Devices, VendorCounts, visible_devices


@dataclass(frozen=True, slots=True)
class NodeInventory:
    """What tasks may use on a node: numbers of cores, and GPUs."""

    cores: tuple[int, ...]
    gpus: Devices


def survey(job: int, hosts: list[str], step: str, capacity: Capacity) -> dict[str, NodeInventory]:
    """Query hosts of a running job; those that do not answer are left out.

    Args:
        step: name of the step that queries them.
        capacity: what each node must have.

    Raises:
        LaunchError: a node has fewer cores or GPUs, or the step fails.
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
