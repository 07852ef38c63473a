"""The MPI of this rank: whether there is one, its communicators, what it survives, and how the job ends.

MPI is loaded by the functions that need it: to ask whether there are other ranks costs nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlctl.distributed.leaving import leave
from rlctl.distributed.stopping import Stop
from rlctl.distributed.together import ends_together, survives
from rlctl.distributed.topology import Place, Role, Shape, split
from rlctl.distributed.waiting import Asleep, limit_s
from rlctl.errors import LaunchError

if TYPE_CHECKING:
    from mpi4py.MPI import Intracomm

_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "JSM_NAMESPACE_SIZE")
_STEP_SIZES = ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS")
_RANKS = ("PMIX_RANK", "PMI_RANK", "PMI_FD")


def world_size(environment: Mapping[str, str] = os.environ) -> int:
    """Ranks of the MPI job that this process is part of, by what its launcher has told it; 1 if of none.

    >>> world_size({"OMPI_COMM_WORLD_SIZE": "4"}), world_size({"PMI_RANK": "1", "PMI_SIZE": "2"})
    (4, 2)
    >>> world_size({"SLURM_NTASKS": "8", "PMIX_RANK": "0"}), world_size({"SLURM_NTASKS": "8"})
    (8, 1)
    """
    told = [environment[name] for name in _SIZES if name in environment]
    if not told and any(name in environment for name in _RANKS):  # srun: only a step with MPI has these
        told = [environment[name] for name in _STEP_SIZES if name in environment]
    return int(told[0]) if told and told[0].isdigit() else 1


def under_mpi(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is one of several ranks."""
    return world_size(environment) > 1


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

    An exception in the block ends the job, see ``rlctl.distributed.together``.

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
    with ends_together(str(place)):
        stop = Stop()
        stop.listen(place.role is Role.LEARNER)
        Asleep(MPI.COMM_WORLD, limit_s(told)).barrier()  # what follows keeps cores busy until all are here
        world = _arrange(place, places, stop)
        control = world.comm.Dup()
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
