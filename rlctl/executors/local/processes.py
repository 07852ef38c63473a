"""Processes of this machine, as far as an executor must know them: who is alive, who belongs together."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import signal
import time
from collections.abc import Collection, Iterable
from pathlib import Path

GRACE_S = 2.0
"""Seconds between SIGTERM and SIGKILL where the user names none."""

_PROC = Path("/proc")
_LONGEST_S = 86_400.0
_LAUNCHERS = frozenset(
    ("mpiexec", "mpirun", "orterun", "orted", "prterun", "prted", "mpiexec.hydra", "hydra_pmi_proxy")
)


def capped(seconds: float | None) -> float | None:
    """How long to sleep where so much time is left; the caller looks at the clock and sleeps again.

    The system takes milliseconds of 31 bits at most, which are 24.8 days.
    """
    return seconds if seconds is None else min(seconds, _LONGEST_S)


def signal_name(number: int) -> str:
    """Name of a signal; those between the first and the last of real time have none of their own.

    >>> signal_name(9), signal_name(signal.SIGRTMIN + 3)
    ('SIGKILL', 'SIGRTMIN+3')
    """
    try:
        return signal.Signals(number).name
    except ValueError:
        first = getattr(signal, "SIGRTMIN", None)
        return f"signal {number}" if first is None or number < first else f"SIGRTMIN+{number - first}"


def start_time(pid: int) -> int:
    """When a process started, in clock ticks since boot; with the pid it names a process uniquely. 0 if unknown."""
    fields = _stat(pid)
    return int(fields[19]) if fields else 0


def family(roots: Iterable[int], token: bytes = b"") -> list[int]:
    """Living processes of these sessions, their descendants, and those with ``token`` in their environment.

    A process that leaves its session stays a descendant; one whose parent has died as well keeps its environment.
    Zombies do not count. Without /proc: the sessions themselves, if anything of them lives.
    """
    sessions = set(roots)
    if not _PROC.is_dir():
        return [-sid for sid in sessions if _lives(sid)]
    parents, found = {}, set()
    for pid in _pids():
        fields = _stat(pid)
        if not fields:
            continue
        parents[pid] = int(fields[1])
        if fields[0] in "ZX":
            continue
        if int(fields[3]) in sessions or (token and token in _environment(pid)):
            found.add(pid)
    grown = True
    while grown:
        grown = False
        for pid, parent in parents.items():
            if (parent in found or parent in sessions) and pid not in found:
                found.add(pid)
                grown = True
    return [pid for pid in found if pid != os.getpid() and (fields := _stat(pid)) and fields[0] not in "ZX"]


def children() -> list[int] | None:
    """Children of this process, zombies included; None where the system does not tell cheaply."""
    try:
        pid = os.getpid()
        with open(f"/proc/{pid}/task/{pid}/children", "rb") as file:
            return [int(child) for child in file.read().split()]
    except OSError:
        return None


def send_signal(pids: Iterable[int], number: int) -> None:
    """Signal processes; those that have gone meanwhile are ignored. A negative one means a process group."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def ask_to_end(pids: Collection[int]) -> Collection[int]:
    """Send SIGTERM; returns those that got it.

    Launchers of MPI programs do not, unless there is nothing else: they would end their ranks at once, whatever these
    have to save, and end by themselves after them.
    """
    asked = [pid for pid in pids if _name(pid) not in _LAUNCHERS] or pids
    send_signal(asked, signal.SIGTERM)
    return asked


def reap(sessions: Iterable[int], mark: bytes, grace_s: float) -> None:
    """Stop all that belongs to these sessions or has the mark in its environment; returns when none of it is alive."""
    began, terminated = time.monotonic(), set[int]()
    while alive := family(sessions, mark):
        late = time.monotonic() - began > grace_s
        if late:
            send_signal(alive, signal.SIGKILL)
        else:
            terminated.update(ask_to_end([pid for pid in alive if pid not in terminated]))
        time.sleep(0.02)


def resident_mb(pids: Iterable[int]) -> float:
    """Memory that processes have for themselves, MiB; what they share with others is left out."""
    pages = 0
    for pid in pids:
        with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{pid}/statm", "rb") as file:
            fields = file.read().split()
            pages += int(fields[1]) - int(fields[2])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@functools.cache
def boot() -> str:
    """Host and boot of this machine: process numbers and shared memory are valid within one boot."""
    file = _PROC / "sys/kernel/random/boot_id"
    return f"{platform.node()} {file.read_text().strip() if file.exists() else ''}"


def _pids() -> list[int]:
    return [int(name) for name in os.listdir(_PROC) if name.isdigit()] if _PROC.is_dir() else []


def _lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):  # macOS answers EPERM for a group of zombies
        return False
    return True


def _environment(pid: int) -> bytes:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read()
    except OSError:
        return b""


def _name(pid: int) -> str:
    """Name of its executable, up to 15 characters; empty if it has gone, or where there is no /proc."""
    try:
        return (_PROC / str(pid) / "comm").read_text().rstrip("\n")
    except (OSError, UnicodeDecodeError):
        return ""


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the state on (state, parent, group, session ...); empty if it has gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            return file.read(4096).rpartition(b")")[2].decode().split()  # the name before may hold spaces
    except OSError:
        return []
