"""The main functions of an actor's rank, of the other ranks of its environment, and of the replacement of a lost actor.

A learner starts a replacement by ``python -m rlctl.distributed.modes.actor_rank``.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from rlctl.config.schema import Config
from rlctl.distributed.actor.loop import Actor, ChunkLimits
from rlctl.distributed.actor.vector_env import make_vector_env
from rlctl.distributed.comm.codec import decode
from rlctl.distributed.comm.collective_env import CollectiveGroup, follow_calls
from rlctl.distributed.comm.polling import receive
from rlctl.distributed.comm.rma_weights import WeightsWindow
from rlctl.distributed.comm.transition_spec import Seeds
from rlctl.distributed.comm.transport import MpiTransport
from rlctl.distributed.launch.abort import aborting_job
from rlctl.distributed.launch.signals import StopSignal, block_stop_signal
from rlctl.distributed.launch.topology import RankAssignment, Role
from rlctl.distributed.modes.lockstep import serve_steps
from rlctl.environments.reward_env import collective
from rlctl.plugins.preflight import check_training
from rlctl.plugins.registry import configured_game

if TYPE_CHECKING:
    from mpi4py.MPI import Comm, Intracomm

SIMULATIONS = "simulations"


def run_actor(
    config: Config,
    out: Path,
    own: RankAssignment,
    comm: Comm | None,
    peer: int,
    environment: Intracomm | None,
    window: WeightsWindow | None = None,
) -> None:
    """Run an actor, or another rank of its environment, until the learner says stop.

    Args:
        comm: with the learner; None on other ranks of the environment.
        peer: the learner's rank there.
        environment: all ranks of the environment.
    """
    section = config.training
    distributed = section.distributed
    game = configured_game(config)
    with config.source.located():
        learner = check_training(config, game)
    if own.role is Role.ENVIRONMENT:
        assert environment is not None
        assert collective(game)
        follow_calls(game.environment, environment)
        return
    assert comm is not None
    seed = config.seed if section.seed is None else section.seed
    count = distributed.envs_per_actor
    group = CollectiveGroup(environment) if environment is not None and collective(game) else None
    envs = make_vector_env(
        config,
        game,
        Seeds(seed, own.agent, own.actor * count),
        count,
        out / SIMULATIONS / f"actor-{own.actor}",
        with_mask=learner.with_mask,
        with_privileged=learner.with_privileged,
        env_setup=learner.env_setup,
        group=group,
    )
    try:
        if distributed.mode == "lockstep":
            serve_steps(comm, envs, peer)
            return
        steps = distributed.chunk_steps or learner.chunk_steps
        Actor(
            own.actor,
            envs,
            MpiTransport(comm),
            (0, peer),
            ChunkLimits(steps, distributed.chunk_s, distributed.chunk_episode),
            distributed.lease_s,
            [seed, own.agent, own.actor],
            # A step on several ranks comes to its end: they would wait in it for the one that was interrupted.
            _interrupt if distributed.ranks_per_env == 1 else None,
            None if window is None else window.newer,
        ).run()
    finally:
        envs.close()
        if group is not None:
            group.dismiss()


def _interrupt() -> None:
    """Get the main thread out of a step that takes too long."""
    os.kill(os.getpid(), signal.SIGTERM)


def _run_replacement() -> None:
    from mpi4py import MPI

    block_stop_signal()
    with aborting_job("a replaced actor", spared=True):
        StopSignal().install_handlers(learner=False)
        parent, world = MPI.Comm.Get_parent(), MPI.COMM_WORLD
        data = receive(parent, 0, 0)
        assert data is not None
        config, out, agent, learner, actor = decode(data)
        role = Role.ENVIRONMENT if world.rank else Role.ACTOR
        assignment = RankAssignment(-1, role, agent, learner, actor, world.rank)
        run_actor(config, out, assignment, parent if world.rank == 0 else None, 0, world)


if __name__ == "__main__":
    _run_replacement()
