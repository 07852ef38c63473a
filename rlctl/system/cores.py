"""Cores: how many this process may keep busy, and why not more."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath


def affinity() -> list[int]:
    """Numbers of the cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def available_cores() -> list[int]:
    """Numbers of as many cores as this process may keep busy."""
    return affinity()[: usable_cores()[0]]


def usable_cores(environment: Mapping[str, str] = os.environ) -> tuple[int, str]:
    """How many cores this process may keep busy, at least 1, and what limits them other than its affinity.

    A quota says how much time cores may take, not which: of one for 2.5 cores, 2 can be kept busy without being
    halted. Inside a Slurm job what the job has on this node counts, since not all sites confine it by affinity.
    """
    limits: list[tuple[float, str]] = [(len(affinity()), "")]
    if (own := quota()) is not None:
        limits.append((own, f"CPU quota of {own:g} cores"))
    for name in ("SLURM_CPUS_ON_NODE", "PYTHON_CPU_COUNT"):
        value = environment.get(name, "")
        if value.isdecimal() and (name[:5] != "SLURM" or "SLURM_JOB_ID" in environment):
            limits.append((int(value), f"{name}={value}"))
    count, why = min(limits, key=lambda limit: limit[0])
    return max(1, int(count)), why


def quota(process: Path = Path("/proc/self")) -> float | None:
    """Cores' worth of time that control groups leave this process, the least over all that it is in; None: no limit."""
    try:
        groups = [line.split(":", 2) for line in (process / "cgroup").read_text().splitlines()]
        mounts = [line.split() for line in (process / "mountinfo").read_text().splitlines()]
    except OSError:
        return None
    found: list[float] = []
    for _, controllers, group in groups:
        if controllers and "cpu" not in controllers.split(","):
            continue
        for mount in mounts:
            kind, options = mount[mount.index("-") + 1], mount[-1].split(",")
            if kind == "cgroup2" if not controllers else kind == "cgroup" and "cpu" in options:
                found += _quotas(_unescaped(mount[3]), Path(_unescaped(mount[4])), group)
    return min(found, default=None)


def _quotas(root: str, at: Path, group: str) -> Iterator[float]:
    """The quotas of a group and of those around it, as far as they are seen where the hierarchy is mounted."""
    inside = PurePosixPath(group)
    # In a container that sees its own group only, the group's name may still be the host's.
    inside = inside.relative_to(root) if inside.is_relative_to(root) else PurePosixPath()
    folder = at.joinpath(*(part for part in inside.parts if part not in ("/", "..")))
    for place in (folder, *folder.parents):
        if not place.is_relative_to(at):
            return
        try:
            if (place / "cpu.max").exists():
                most, period = (place / "cpu.max").read_text().split()
            else:
                most, period = (_word(place / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
            if most != "max" and int(most) > 0 and int(period) > 0:
                yield int(most) / int(period)
        except (OSError, ValueError):  # the outermost has none
            continue


def _word(file: Path) -> str:
    return file.read_text().strip()


def _unescaped(path: str) -> str:
    """Unescape a path of ``/proc``, where a space is ``\\040``."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), path)
