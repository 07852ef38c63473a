"""The orderly end of a job: no rank leaves before the last learner, and no rank waits for one that hangs.

``MPI_Finalize`` waits for all ranks, with a busy core each, and without end where one of them never comes. So ranks
wait asleep for rank 0, which waits for those that are alive, and all finalize at once.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import time
from collections.abc import Collection
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

from rlctl.distributed.comm.polling import Backoff, wait
from rlctl.distributed.launch.abort import kill_job
from rlctl.system import interrupts
from rlctl.system.crash_report import EXIT_CODE

if TYPE_CHECKING:
    from mpi4py.MPI import Comm

log = logging.getLogger(__name__)

_DONE, _END = 1, 2
_OUT_S = 0.5
"""Time for ranks that were told to end to flush their output."""
_KILLED_S = 10.0
"""Time after which a rank that was to be killed exits by itself."""


class ShutdownMode(IntEnum):
    """How the processes of the job end."""

    FINALIZE = 1
    """By ``MPI_Finalize``."""
    EXIT = 2
    """Without it, since some have died: it may wait for them."""
    KILL = 3
    """By the launcher, at rank 0's word, since some hang. Were others to leave before, MPICH would end the job at once,
    with those that still write."""


def finish_job(comm: Comm, learners: Collection[int], limit_s: float, patience_s: float = 30.0) -> None:
    """Wait asleep until the job may end; each rank calls it once, last of all.

    Where ranks have died or hang, the process ends without ``MPI_Finalize``, at the end of Python.

    Args:
        comm: all ranks, for this alone.
        learners: ranks that may take as long as they like.
        limit_s: the longest nap.
        patience_s: time for the others after the last learner has come.
    """
    if comm.rank != 0:
        mode = _follow(comm, limit_s)
    else:
        mode, dead, hanging = _lead(comm, learners, limit_s, patience_s)
        for what, ranks in (("have died", dead), ("do not come to the end", hanging)):
            if ranks:
                log.warning("ranks that %s: %s", what, ", ".join(map(str, sorted(ranks))))
    if mode is not ShutdownMode.FINALIZE:
        atexit.register(_exit, mode, comm.rank == 0)


def _lead(
    comm: Comm, learners: Collection[int], limit_s: float, patience_s: float
) -> tuple[ShutdownMode, set[int], set[int]]:
    """On rank 0: decide how all end, and tell them; also the ranks that died, and those that hang."""
    from mpi4py import MPI

    done = np.zeros(comm.size, np.uint8)
    waited = {rank: comm.Irecv(done[rank : rank + 1], rank, _DONE) for rank in range(1, comm.size)}
    dead: set[int] = set()
    backoff, end = Backoff(limit_s), None
    while waited:
        before = len(waited)
        for rank, request in list(waited.items()):
            try:
                if request.Test():
                    del waited[rank]
            except MPI.Exception:
                dead.add(rank)
                del waited[rank]
        if end is None and not waited.keys() & set(learners):
            end = time.monotonic() + patience_s
        if end is not None and time.monotonic() > end:
            break
        if len(waited) < before:
            backoff.reset()
        if waited:
            backoff.nap()
    for request in waited.values():
        request.Cancel()
    mode = ShutdownMode.KILL if waited else ShutdownMode.EXIT if dead else ShutdownMode.FINALIZE
    flag = np.array([mode], np.uint8)
    for rank in set(range(1, comm.size)) - dead - set(waited):
        try:
            wait(comm.Isend(flag, rank, _END), limit_s, until_s=1.0)
        except MPI.Exception:
            dead.add(rank)
    return mode, dead, set(waited)


def _follow(comm: Comm, limit_s: float) -> ShutdownMode:
    """On the other ranks: report to rank 0, and wait for its decision."""
    from mpi4py import MPI

    flag = np.zeros(1, np.uint8)
    try:
        comm.Isend(np.zeros(1, np.uint8), 0, _DONE)
        wait(comm.Irecv(flag, 0, _END), limit_s)
    except MPI.Exception:
        log.debug("rank 0 is dead")
        sys.stdout.flush()
        os._exit(EXIT_CODE)
    return ShutdownMode(int(flag[0]))


def _exit(mode: ShutdownMode, first: bool) -> None:
    interrupts.end()
    sys.stdout.flush()
    sys.stderr.flush()
    if mode is ShutdownMode.KILL:
        time.sleep(_OUT_S if first else _KILLED_S)
        if first:
            kill_job(0)
    os._exit(0)
