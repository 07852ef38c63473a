"""The main function of a learner's rank."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rlctl.config.schema import Config
from rlctl.distributed.comm.codec import encode
from rlctl.distributed.comm.heartbeat import Heartbeat
from rlctl.distributed.comm.polling import RankGroup
from rlctl.distributed.comm.rma_weights import WeightsWindow
from rlctl.distributed.comm.transport import MpiTransport, Peer
from rlctl.distributed.launch.mpi_context import MpiContext
from rlctl.distributed.launch.topology import RankAssignment, Role
from rlctl.distributed.learner.actor_registry import ActorRegistry
from rlctl.distributed.learner.chunk_log import ChunkLog
from rlctl.distributed.learner.collector import Collector
from rlctl.distributed.learner.context import LearnerContext
from rlctl.distributed.modes.lockstep import LockstepVectorEnv
from rlctl.plugins.preflight import check_training
from rlctl.plugins.registry import configured_game
from rlctl.system.files import storage_errors

if TYPE_CHECKING:
    from rlctl.monitoring.progress import Progress

REPLACEMENT = "rlctl.distributed.modes.actor_rank"


def run_learner(
    config: Config, out: Path, resume: bool, progress: Progress, context: MpiContext, window: WeightsWindow | None
) -> Path | None:
    """Learn from this learner's actors until the training ends, see ``rlctl.distributed.modes.rank.run_rank``."""
    distributed, own, comm = config.training.distributed, context.assignment, context.agent
    assert comm is not None
    peers = {
        one.actor: distributed.learners + one.actor
        for one in context.assignments
        if (one.role, one.agent, one.learner) == (Role.ACTOR, own.agent, own.learner)
    }
    alone = distributed.learners == 1 or context.learners is None
    learner_context = LearnerContext(
        stop=context.stop,
        learners=None if alone or context.learners is None else RankGroup(context.learners, context.limit_s),
        agent=own.agent,
        environments=len(peers) * distributed.envs_per_actor,
        ranks=sum(one.agent == own.agent for one in context.assignments),
    )
    with config.source.located(), storage_errors(out, "then go on with --resume"):
        learner = check_training(config, configured_game(config))
        if distributed.mode == "lockstep":
            learner_context.lockstep = LockstepVectorEnv(comm, list(peers.values()), context.limit_s)
            return learner.train_on_ranks(out, resume, progress, learner_context)
        transport = MpiTransport(comm)
        replace = _replacer(config, out, own, transport) if context.survives else None
        actors = {number: (0, rank) for number, rank in peers.items()}
        registry = ActorRegistry(actors, distributed.lease_s, replace, distributed.respawn)
        out.mkdir(parents=True, exist_ok=True)
        chunk_log = ChunkLog(out / "chunks" / str(own.learner))
        put = None if window is None else window.put
        collector = Collector(transport, registry, distributed.lease_s, chunk_log, put)
        learner_context.collector = collector
        try:
            with Heartbeat(collector.beat, distributed.lease_s):
                learner_context.spaces = collector.wait_for_actor(context.stop)
                folder = None
                if learner_context.spaces is not None:
                    folder = learner.train_on_ranks(out, resume, progress, learner_context)
                collector.stop()
                return folder
        finally:
            chunk_log.close()


def _replacer(config: Config, out: Path, own: RankAssignment, transport: MpiTransport) -> Callable[[int], Peer]:
    """A function that starts an actor in place of a lost one."""
    ranks = config.training.distributed.ranks_per_env

    def replace(actor: int) -> Peer:
        from mpi4py import MPI

        comm = MPI.COMM_SELF.Spawn(sys.executable, ["-m", REPLACEMENT], ranks)
        data = encode((config, out, own.agent, own.learner, actor))
        for rank in range(ranks):
            comm.Send([data, MPI.BYTE], rank, 0)
        return transport.add(comm), 0

    return replace
