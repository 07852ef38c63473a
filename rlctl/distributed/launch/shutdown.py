"""The end of a job in order: nobody leaves before the last learner, and nobody waits for a rank that hangs.

``MPI_Finalize`` waits for all ranks, with a busy core each, and for ever where one of them never comes. So ranks wait
asleep for rank 0, which waits for those that are alive, and all go into it at once.
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

from rlctl.distributed.comm.abort import kill_job
from rlctl.distributed.comm.polling import Backoff, wait
from rlctl.system import interrupts
from rlctl.system.crash_report import EXIT_CODE

if TYPE_CHECKING:
    from mpi4py.MPI import Comm

log = logging.getLogger(__name__)

_DONE, _END = 1, 2
_OUT_S = 0.5
"""After which ranks that were told to end have written what they had to."""

_KILLED_S = 10.0
"""After which a rank that was to be ended goes by itself."""


class How(IntEnum):
    """How the processes of the job end."""

    FINALIZED = 1
    """By ``MPI_Finalize``."""
    LEFT = 2
    """Without it, since some have died: it may wait for them."""
    KILLED = 3
    """By the launcher, at rank 0's word, since some hang. Were others to leave before, MPICH would end the job at once,
    with those that still write."""


def leave(comm: Comm, learners: Collection[int], limit_s: float, patience_s: float = 30.0) -> None:
    """Wait asleep until the job may end; each rank calls it once, last of all.

    Where ranks have died or do not come, the process ends without ``MPI_Finalize``, at the end of Python.

    Args:
        comm: all ranks; for nothing else.
        learners: who may take as long as they like.
        limit_s: the longest nap.
        patience_s: that the others have after the last learner has come.
    """
    if comm.rank != 0:
        how = _told(comm, limit_s)
    else:
        how, dead, hanging = _collect(comm, learners, limit_s, patience_s)
        for what, ranks in (("have died", dead), ("do not come to the end", hanging)):
            if ranks:
                log.warning("ranks that %s: %s", what, ", ".join(map(str, sorted(ranks))))
    if how is not How.FINALIZED:
        atexit.register(_end, how, comm.rank == 0)


def _collect(
    comm: Comm, learners: Collection[int], limit_s: float, patience_s: float
) -> tuple[How, set[int], set[int]]:
    """Rank 0: how all end, which the others were told; those that died, and those that did not come."""
    from mpi4py import MPI

    word = np.zeros(comm.size, np.uint8)
    waited = {rank: comm.Irecv(word[rank : rank + 1], rank, _DONE) for rank in range(1, comm.size)}
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
    how = How.KILLED if waited else How.LEFT if dead else How.FINALIZED
    flag = np.array([how], np.uint8)
    for rank in set(range(1, comm.size)) - dead - set(waited):
        try:
            wait(comm.Isend(flag, rank, _END), limit_s, until_s=1.0)
        except MPI.Exception:
            dead.add(rank)
    return how, dead, set(waited)


def _told(comm: Comm, limit_s: float) -> How:
    """Any other rank: says that it is done, and waits for the word of rank 0."""
    from mpi4py import MPI

    flag = np.zeros(1, np.uint8)
    try:
        comm.Isend(np.zeros(1, np.uint8), 0, _DONE)
        wait(comm.Irecv(flag, 0, _END), limit_s)
    except MPI.Exception:
        log.debug("rank 0 is dead")
        sys.stdout.flush()
        os._exit(EXIT_CODE)
    return How(int(flag[0]))


def _end(how: How, first: bool) -> None:
    interrupts.end()
    sys.stdout.flush()
    sys.stderr.flush()
    if how is How.KILLED:
        time.sleep(_OUT_S if first else _KILLED_S)
        if first:
            kill_job(0)
    os._exit(0)
