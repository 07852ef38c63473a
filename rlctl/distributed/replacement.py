"""An actor that a learner has started in place of a lost one: ``python -m rlctl.distributed.replacement``."""

from __future__ import annotations

from pathlib import Path

from rlctl.config import Config
from rlctl.distributed.run import act
from rlctl.distributed.stopping import Stop, defer
from rlctl.distributed.together import ends_together
from rlctl.distributed.topology import Place, Role
from rlctl.yaml_source import Source


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
