"""This process and all that it has started, whoever their parents are by now: what they have used, and their end.

Executors detach processes: into sessions of their own, or as daemons whose parent has ended. ``adopt_orphans`` makes
this process the parent of such orphans (a subreaper), so that all stay descendants and can be counted. Processor time
is read twice, before and after the work, with the workers warm: per process from its own clock, in nanoseconds, and
for children that were waited for in between from ``/proc/PID/stat`` of the one that waited, in ticks of 10 ms.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from pathlib import Path

PROC = Path("/proc")
TICKS = os.sysconf("SC_CLK_TCK")


def adopt_orphans() -> None:
    """Descendants whose parent ends become children of this process."""
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


def tree() -> dict[int, list[str]]:
    """The fields of /proc/PID/stat from the state on, of this process and all descendants, by process number."""
    found: dict[int, list[str]] = {}
    for name in os.listdir(PROC):
        if name.isdigit():
            with contextlib.suppress(OSError):
                found[int(name)] = (PROC / name / "stat").read_text().rpartition(")")[2].split()
    chosen = {os.getpid()}
    grown = True
    while grown:
        grown = False
        for pid, fields in found.items():
            if pid not in chosen and int(fields[1]) in chosen:
                chosen.add(pid)
                grown = True
    return {pid: found[pid] for pid in chosen}


def cpu_s() -> float:
    """Processor seconds, user and system, of the tree so far."""
    total = 0.0
    for pid, fields in tree().items():
        total += (int(fields[13]) + int(fields[14])) / TICKS  # children that were waited for
        try:
            if fields[0] == "Z":
                raise OSError
            total += time.clock_gettime(~pid << 3 | 2)  # the processor-time clock of another process
        except OSError:
            total += (int(fields[11]) + int(fields[12])) / TICKS
    return total


def peak_mb() -> float:
    """The largest resident memory of each living process, added up, MiB: what they share counts several times."""
    total = 0
    for pid in tree():
        with contextlib.suppress(OSError):
            for line in (PROC / str(pid) / "status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    total += int(line.split()[1])
    return total / 1024


def resident_mb() -> float:
    """Resident memory of the tree now, MiB."""
    return sum(int(fields[21]) for fields in tree().values()) * os.sysconf("SC_PAGE_SIZE") / 2**20


def end_all() -> int:
    """Kill all descendants and wait until they are gone; how many were still alive."""
    killed: set[int] = set()
    while True:
        others = [pid for pid, fields in tree().items() if pid != os.getpid() and fields[0] != "Z"]
        if not others:
            break
        for pid in others:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        killed.update(others)
        time.sleep(0.02)
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    return len(killed)
