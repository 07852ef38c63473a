"""The life of an MPI rank of a training, from the configuration to the saved policy."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlctl.config.load import config_data
from rlctl.config.schema import Config, DistributedSection
from rlctl.distributed.actor.loop import Actor, Cut
from rlctl.distributed.actor.vector_env import make_worlds
from rlctl.distributed.comm.collective_env import Leader, follow
from rlctl.distributed.comm.heartbeat import Attendant
from rlctl.distributed.comm.messages import Peer
from rlctl.distributed.comm.mpi_context import World, bring_up
from rlctl.distributed.comm.rma_weights import Window
from rlctl.distributed.comm.transition_spec import Seeds
from rlctl.distributed.comm.transport import MpiTransport
from rlctl.distributed.launch.topology import Place, Role, Shape
from rlctl.distributed.learner.actor_registry import Roster
from rlctl.distributed.learner.chunk_log import ChunkLog
from rlctl.distributed.learner.collector import Collector
from rlctl.distributed.learner.context import AllLearners, Ranks
from rlctl.distributed.modes.multi_agent import of_agent, training
from rlctl.environments.reward_env import collective
from rlctl.plugins.preflight import check_training
from rlctl.plugins.registry import game_factory
from rlctl.system.files import writing

if TYPE_CHECKING:
    from mpi4py.MPI import Comm, Intracomm

    from rlctl.monitoring.progress import Progress

SIMULATIONS = "simulations"
REPLACEMENT = "rlctl.distributed.actor.respawned"


def run_rank(config: Config, out: Path, resume: bool, progress: Progress) -> Path | None:
    """What this rank does; returns when the job has ended on all ranks.

    Returns:
        on rank 0 the folder of the saved policy, or None if it was asked to stop and has written a checkpoint.

    Raises:
        ConfigError: see ``rlctl.train``.
    """
    section = training(config)
    with bring_up(Shape.of(section.distributed)) as world:
        place = world.place
        config, out = of_agent(config, out, place.agent)
        match place.role:
            case Role.LEARNER:
                return _learn(config, out, resume, progress, world)
            case Role.ACTOR | Role.ENVIRONMENT:
                with_window = section.distributed.weights == "window" and world.agent is not None
                window = Window(world.agent, place.learner) if with_window and world.agent is not None else None
                act(config, out, place, world.agent, place.learner, world.environment, window)
    return None


def act(
    config: Config,
    out: Path,
    place: Place,
    comm: Comm | None,
    peer: int,
    environment: Intracomm | None,
    window: Window | None = None,
) -> None:
    """Be an actor, or another rank of its environment, until the learner says stop.

    Args:
        comm: with the learner; None on other ranks of the environment.
        peer: the learner's rank there.
        environment: all ranks of the environment.
    """
    section = training(config)
    distributed = section.distributed
    game = game_factory(config.campaign.name, config.campaign.options)
    with config.source.located():
        algorithm = check_training(config, game)
    if place.role is Role.ENVIRONMENT:
        assert environment is not None
        assert collective(game)
        follow(game.environment, environment)
        return
    seed = config.seed if section.seed is None else section.seed
    count = distributed.envs_per_actor
    assert comm is not None
    leader = Leader(environment) if environment is not None and collective(game) else None
    worlds = make_worlds(
        config,
        game,
        Seeds(seed, place.agent, place.actor * count),
        count,
        out / SIMULATIONS / f"actor-{place.actor}",
        with_mask=algorithm.with_mask,
        with_privileged=algorithm.with_privileged,
        prepare=algorithm.env_setup,
        leader=leader,
    )
    try:
        if distributed.mode == "lockstep":
            from rlctl.distributed.modes.lockstep import serve

            serve(comm, worlds, peer)
            return
        steps = distributed.chunk_steps or algorithm.chunk_steps
        cut = Cut(steps, distributed.chunk_s, distributed.chunk_episode)
        newer = None if window is None else window.newer
        entropy = [seed, place.agent, place.actor]
        transport = MpiTransport(comm)
        # A step on several ranks comes to its end: they would wait in it for the one that was interrupted.
        interrupt = _interrupt if distributed.ranks_per_env == 1 else None
        actor = Actor(place.actor, worlds, transport, (0, peer), cut, distributed.lease_s, entropy, interrupt, newer)
        actor.run()
    finally:
        worlds.close()
        if leader is not None:
            leader.dismiss()


def _interrupt() -> None:
    """Get the main thread out of a step that takes too long."""
    os.kill(os.getpid(), signal.SIGTERM)


def _learn(config: Config, out: Path, resume: bool, progress: Progress, world: World) -> Path | None:
    section = training(config)
    distributed, place = section.distributed, world.place
    assert world.agent is not None
    mine = [p for p in world.places if p.agent == place.agent and p.role is Role.ACTOR and p.learner == place.learner]
    learners = distributed.learners
    peers = {p.actor: learners + p.actor for p in mine}
    alone = learners == 1 or world.learners is None
    ranks = Ranks(
        agent=place.agent,
        learners=None if alone or world.learners is None else AllLearners(world.learners, world.limit_s),
        actors=list(peers),
        environments=len(peers) * distributed.envs_per_actor,
        stop=world.stop,
        collector=None,
        comm=world.agent,
        workers=list(peers.values()),
        limit_s=world.limit_s,
    )
    with config.source.located(), writing(out, "then go on with --resume"):
        algorithm = check_training(config, game_factory(config.campaign.name, config.campaign.options))
        if distributed.mode == "lockstep":
            return algorithm.train_on_ranks(out, resume, progress, ranks)
        transport = MpiTransport(world.agent)
        replace = _replacer(config, out, place, distributed, transport) if world.survives else None
        roster = Roster({n: (0, rank) for n, rank in peers.items()}, distributed.lease_s, replace, distributed.respawn)
        out.mkdir(parents=True, exist_ok=True)
        chunk_log = ChunkLog(out / "chunks" / str(place.learner))
        window = Window(world.agent, world.agent.Get_rank()) if distributed.weights == "window" else None
        put = None if window is None else window.put
        ranks.collector = collector = Collector(transport, roster, distributed.lease_s, chunk_log, put)
        try:
            with Attendant(collector.attend, distributed.lease_s):
                ranks.spaces = collector.meet(ranks.stop)
                found = None
                if ranks.spaces is not None:
                    found = algorithm.train_on_ranks(out, resume, progress, ranks)
                collector.stop()
                return found
        finally:
            chunk_log.close()


def _replacer(config: Config, out: Path, place: Place, distributed: DistributedSection, transport: MpiTransport) -> Any:
    """Starts an actor in place of a lost one."""
    data = config_data(config)

    def replace(actor: int) -> Peer:
        from mpi4py import MPI

        command = [sys.executable, "-m", REPLACEMENT]
        comm = MPI.COMM_SELF.Spawn(command[0], command[1:], distributed.ranks_per_env)
        told = {
            "config": data,
            "file": str(config.source.path),
            "out": str(out),
            "agent": place.agent,
            "learner": place.learner,
            "actor": actor,
        }
        for rank in range(distributed.ranks_per_env):
            comm.send(told, rank, tag=0)
        return transport.add(comm), 0

    return replace
