"""A replacement of a lost actor, started by its learner: ``python -m rlctl.distributed.modes.respawned``."""

from __future__ import annotations

from pathlib import Path

from rlctl.config.schema import Config
from rlctl.config.yaml_source import Source
from rlctl.distributed.comm.codec import decode
from rlctl.distributed.comm.polling import receive
from rlctl.distributed.launch.abort import aborting_job
from rlctl.distributed.launch.signals import StopSignal, block_stop_signal
from rlctl.distributed.launch.topology import RankAssignment, Role
from rlctl.distributed.modes.actor_rank import run_actor


def main() -> None:
    """Run the actor, or another rank of its environment."""
    from mpi4py import MPI

    block_stop_signal()
    with aborting_job("a replaced actor", spared=True):
        StopSignal().install_handlers(learner=False)
        parent, world = MPI.Comm.Get_parent(), MPI.COMM_WORLD
        data = receive(parent, 0, 0)
        assert data is not None
        note = decode(data)[0]
        config = Config.model_validate(note["config"])
        config._source = Source(Path(note["file"]), {})
        role = Role.ENVIRONMENT if world.rank else Role.ACTOR
        assignment = RankAssignment(-1, role, note["agent"], note["learner"], note["actor"], world.rank)
        run_actor(config, Path(note["out"]), assignment, parent if world.rank == 0 else None, 0, world)


if __name__ == "__main__":
    main()
