"""Slurm's commands, as far as an executor needs them: what they are asked, and how their answers are read."""

from __future__ import annotations

import functools
import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from rlctl.core.errors import LaunchError

_LOST = ("down", "fail", "unk", "no_respond", "power", "reboot")


@dataclass(frozen=True, slots=True)
class Job:
    """A job as Slurm tells of it.

    Attributes:
        state: ``PENDING``, ``RUNNING``, ...
        hosts: its nodes, once it runs.
        left_s: until its time limit; infinite: it has none, or has not begun.
        reason: why it waits.
    """

    number: int
    state: str
    hosts: tuple[str, ...] = ()
    left_s: float = float("inf")
    reason: str = ""

    @property
    def waits(self) -> bool:
        """Whether it may still begin."""
        return self.state in ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SUSPENDED")

    @property
    def runs(self) -> bool:
        """Whether its nodes are ours now."""
        return self.state == "RUNNING" and bool(self.hosts)


def ask(*command: str, timeout_s: float = 60.0) -> str:
    """What a command prints.

    Raises:
        LaunchError: there is none, it fails, or it does not answer; its own words.
    """
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s, errors="replace"
        )
    except FileNotFoundError as error:
        raise LaunchError(f"there is no {command[0]}: run where Slurm is, or choose another executor") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LaunchError(f"{command[0]} does not answer: {error}") from error
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
        raise LaunchError(f"{' '.join(command[:3])} fails (it says: {said})")
    return done.stdout


def job(number: int) -> Job | None:
    """A job; None: Slurm does not know it any more.

    Raises:
        LaunchError: Slurm does not answer; as it may be for minutes without harm to what runs.
    """
    try:
        text = ask("squeue", "--noheader", "--jobs", str(number), "--states=all", "--format=%i|%T|%N|%e|%r")
    except LaunchError as error:
        if "Invalid job id" in str(error):
            return None
        raise
    return next(_jobs(text), None)


def jobs_named(name: str) -> list[Job]:
    """One's own jobs of this name that wait or run."""
    text = ask("squeue", "--noheader", "--me", f"--name={name}", "--format=%i|%T|%N|%e|%r")
    return sorted(_jobs(text), key=lambda found: found.number)


def _jobs(text: str) -> Iterator[Job]:
    for line in text.splitlines():
        number, state, nodes, end, reason = line.strip().split("|", 4)
        left_s = float("inf")
        if state == "RUNNING" and end[:1].isdigit():
            left_s = datetime.fromisoformat(end).timestamp() - time.time()
        yield Job(int(number), state, hostnames(nodes) if nodes else (), left_s, reason)


def hostnames(nodes: str) -> tuple[str, ...]:
    """Names out of Slurm's short form, ``n[1-3,7]``."""
    if not set("[,") & set(nodes):
        return (nodes,)
    return tuple(ask("scontrol", "show", "hostnames", nodes).split())


def lost(hosts: Sequence[str]) -> set[str]:
    """Those of these nodes that Slurm takes for dead."""
    text = ask("sinfo", "--noheader", "--Node", f"--nodes={','.join(hosts)}", "--format=%N|%T")
    found = set()
    for line in text.splitlines():
        host, state = line.strip().split("|")
        if state.endswith("*") or state.lower().startswith(_LOST):
            found.add(host)
    return found


@functools.cache
def cannot_gather(kind: str) -> str | None:
    """Why ranks do not find each other under ``srun --mpi=KIND`` here, and what to do; None: they do.

    Raises:
        LaunchError: there is no ``srun``, or it does not answer.
    """
    text = ask("srun", "--mpi=list")
    there = [line.strip() for line in text.splitlines() if re.fullmatch(r"\s*[a-z]\w*\s*", line)]
    if kind not in there:
        return f"srun has no {kind} here (it has {', '.join(there)}): have the plugin installed"
    try:  # what is listed may lack its library; nothing is started
        ask("srun", f"--mpi={kind}", "--test-only", "--nodes=1", "--ntasks=1", "true")
    except LaunchError as error:
        if "Invalid MPI type" in str(error):
            return f"srun cannot load {kind} here: {_CURES.get(kind, 'have its library installed')}"
    return None


_CURES = {"pmix": "have the library libpmix.so installed, by `apt-get install libpmix-dev` on Debian"}


def steps(number: int) -> dict[str, str]:
    """Numbers (``JOB.STEP``) of a job's steps, by name."""
    text = ask("squeue", "--noheader", "--steps", f"--jobs={number}", "--format=%i|%j")
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
"""Shell script: number of a job, name of a step, names of signals for all processes of that step.

A step that has been asked for appears within moments, and its processes some moments later: a signal to one that is a
second old waits for them.
"""
