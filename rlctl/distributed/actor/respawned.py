"""An actor that a learner has started in place of a lost one: ``python -m rlctl.distributed.actor.respawned``."""

from __future__ import annotations

from pathlib import Path

from rlctl.config.schema import Config
from rlctl.config.yaml_source import Source
from rlctl.distributed.comm.abort import ends_together
from rlctl.distributed.launch.signals import Stop, defer
from rlctl.distributed.launch.topology import Place, Role
from rlctl.distributed.modes.asynchronous import act


def main() -> None:
    """Be that actor, or another rank of its environment."""
    from mpi4py import MPI

    defer()
    with ends_together("a replaced actor", spared=True):
        Stop().listen(False)
        parent, world = MPI.Comm.Get_parent(), MPI.COMM_WORLD
        told = parent.recv(source=0, tag=0)
        config = Config.model_validate(told["config"])
        config._source = Source(Path(told["file"]), {})
        role = Role.ENVIRONMENT if world.rank else Role.ACTOR
        place = Place(-1, role, told["agent"], told["learner"], told["actor"], world.rank)
        act(config, Path(told["out"]), place, parent if world.rank == 0 else None, 0, world)


if __name__ == "__main__":
    main()
