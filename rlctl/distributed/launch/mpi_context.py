"""MPI context of a rank: its role, communicators and fault-tolerance capability, and the orderly end of the job."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlctl.core.errors import LaunchError
from rlctl.distributed.comm.mpi_environment import world_size
from rlctl.distributed.comm.polling import RankGroup, limit_s
from rlctl.distributed.launch import status_file
from rlctl.distributed.launch.abort import aborting_job, survives
from rlctl.distributed.launch.shutdown import finish_job
from rlctl.distributed.launch.signals import StopSignal
from rlctl.distributed.launch.topology import RankAssignment, Role, TrainingShape, assign_roles

if TYPE_CHECKING:
    from mpi4py.MPI import Intracomm


@dataclass(frozen=True, slots=True)
class MpiContext:
    """MPI context of a rank.

    Attributes:
        assignment: of this rank.
        assignments: of all.
        comm: all ranks.
        agent: learners and actors of this rank's agent, the learners first; None on other ranks.
        learners: of this rank's agent; None on other ranks.
        environment: the ranks of this rank's environment, its actor first; None on learners and spare ranks.
        survives: whether the other ranks survive the death of one (Open MPI with ULFM).
        limit_s: the longest nap of a wait, which grows with the ranks of this machine.
        stop: whether a learner was asked to end.
    """

    assignment: RankAssignment
    assignments: tuple[RankAssignment, ...]
    comm: Intracomm
    agent: Intracomm | None
    learners: Intracomm | None
    environment: Intracomm | None
    survives: bool
    limit_s: float
    stop: StopSignal


@contextmanager
def open_mpi_context(shape: TrainingShape) -> Iterator[MpiContext]:
    """Initialise MPI on this rank; leaving the context waits, asleep, until the last learner has finished.

    An exception in the block ends the job, see ``rlctl.distributed.launch.abort``.

    Raises:
        ConfigError: too few ranks; printed once, and ends the job.
        LaunchError: launcher and mpi4py belong to different MPIs.
    """
    from mpi4py import MPI

    with aborting_job():
        size = world_size()
        if size != MPI.COMM_WORLD.size:
            raise LaunchError(
                f"{size} ranks were started, but mpi4py ({MPI.Get_library_version().split(',')[0]}) sees "
                f"{MPI.COMM_WORLD.size}: launcher and mpi4py belong to different MPIs; see rlctl doctor"
            )
        assignments = assign_roles(size, shape)
    own = assignments[MPI.COMM_WORLD.rank]
    with aborting_job(str(own), spared=own.role is not Role.LEARNER):
        stop = StopSignal()
        stop.install_handlers(own.role is Role.LEARNER)
        RankGroup(MPI.COMM_WORLD, limit_s(size)).barrier()  # what follows keeps cores busy until all are here
        context = _context(own, assignments, stop)
        control = context.comm.Dup()
        if own.rank == 0:
            status_file.report_ready()
        yield context
        if not stop.orphaned():
            learners = [one.rank for one in assignments if one.role is Role.LEARNER]
            finish_job(control, learners, context.limit_s)


def _context(own: RankAssignment, assignments: tuple[RankAssignment, ...], stop: StopSignal) -> MpiContext:
    from mpi4py import MPI

    comm = MPI.COMM_WORLD.Dup()
    here = comm.Split_type(MPI.COMM_TYPE_SHARED)
    nap_s = limit_s(here.size)
    here.Free()

    def among(member: bool, color: int, key: int = 0) -> Intracomm | None:
        made: Intracomm = comm.Split(color if member else MPI.UNDEFINED, key)  # type: ignore[assignment]
        return made if member else None

    # Numbers of environments are the same for each agent: one colour for each (agent, actor).
    actors = 1 + max(one.actor for one in assignments)
    return MpiContext(
        own,
        assignments,
        comm,
        agent=among(own.role in (Role.LEARNER, Role.ACTOR), max(own.agent, 0)),
        learners=among(own.role is Role.LEARNER, max(own.agent, 0)),
        environment=among(own.environment_rank >= 0, max(own.agent * actors + own.actor, 0)),
        survives=survives(MPI.COMM_WORLD),
        limit_s=nap_s,
        stop=stop,
    )
