"""The MPI of this rank: its communicators, what it survives, and how the job ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlctl.core.errors import LaunchError
from rlctl.distributed.comm.abort import ends_together, survives
from rlctl.distributed.comm.mpi_environment import world_size
from rlctl.distributed.comm.polling import Asleep, limit_s
from rlctl.distributed.launch import status_file
from rlctl.distributed.launch.shutdown import leave
from rlctl.distributed.launch.signals import Stop
from rlctl.distributed.launch.topology import Place, Role, Shape, split

if TYPE_CHECKING:
    from mpi4py.MPI import Intracomm


@dataclass(frozen=True, slots=True)
class World:
    """What a rank knows of the job.

    Attributes:
        place: of this rank.
        places: of all.
        comm: all ranks.
        agent: learners and actors of this rank's agent, the learners first; None on other ranks.
        learners: of this rank's agent; None on other ranks.
        environment: the ranks of this rank's environment, its actor first; None on learners and spare ranks.
        survives: the others go on when a rank is killed (Open MPI with ULFM).
        limit_s: the longest nap of a wait, which grows with the ranks of this machine.
        stop: whether a learner was asked to end.
    """

    place: Place
    places: tuple[Place, ...]
    comm: Intracomm
    agent: Intracomm | None
    learners: Intracomm | None
    environment: Intracomm | None
    survives: bool
    limit_s: float
    stop: Stop


@contextmanager
def bring_up(shape: Shape) -> Iterator[World]:
    """MPI on this rank, until the job has ended on all: leaving waits, asleep, for the last learner.

    An exception in the block ends the job, see ``rlctl.distributed.comm.abort``.

    Raises:
        ConfigError: too few ranks; it is told of once, and ends the job.
        LaunchError: launcher and mpi4py belong to different MPIs.
    """
    from mpi4py import MPI

    with ends_together():
        told = world_size()
        if told != MPI.COMM_WORLD.size:
            raise LaunchError(
                f"{told} ranks were started, but mpi4py ({MPI.Get_library_version().split(',')[0]}) sees "
                f"{MPI.COMM_WORLD.size}: launcher and mpi4py belong to different MPIs; see rlctl doctor"
            )
        places = split(told, shape)
    place = places[MPI.COMM_WORLD.rank]
    with ends_together(str(place), spared=place.role is not Role.LEARNER):
        stop = Stop()
        stop.listen(place.role is Role.LEARNER)
        Asleep(MPI.COMM_WORLD, limit_s(told)).barrier()  # what follows keeps cores busy until all are here
        world = _arrange(place, places, stop)
        control = world.comm.Dup()
        if place.rank == 0:
            status_file.tell_ready()
        yield world
        if not stop.orphaned():
            learners = [other.rank for other in places if other.role is Role.LEARNER]
            leave(control, learners, world.limit_s)


def _arrange(place: Place, places: tuple[Place, ...], stop: Stop) -> World:
    from mpi4py import MPI

    comm = MPI.COMM_WORLD.Dup()
    here = comm.Split_type(MPI.COMM_TYPE_SHARED)
    nap_s = limit_s(here.size)
    here.Free()

    def among(member: bool, color: int, key: int = 0) -> Intracomm | None:
        made: Intracomm = comm.Split(color if member else MPI.UNDEFINED, key)  # type: ignore[assignment]
        return made if member else None

    talks = place.role in (Role.LEARNER, Role.ACTOR)
    # Numbers of environments are the same for each agent: one colour for each (agent, actor).
    actors = 1 + max(other.actor for other in places)
    return World(
        place,
        places,
        comm,
        agent=among(talks, max(place.agent, 0)),
        learners=among(place.role is Role.LEARNER, max(place.agent, 0)),
        environment=among(place.environment_rank >= 0, max(place.agent * actors + place.actor, 0)),
        survives=survives(MPI.COMM_WORLD),
        limit_s=nap_s,
        stop=stop,
    )
