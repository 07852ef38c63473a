"""Puts a training that does nothing in the place of the real one; the variable RLCTL_TEST_RUN says how it goes."""

import os
import signal
import sys
import time
import types


def run_rank(config, out, resume, progress):
    """Learners count to 0.3 s or, where they are to wait, until they are asked to stop; actors nap in between."""
    from rlctl.distributed.launch.mpi_context import open_mpi_context
    from rlctl.distributed.launch.topology import Role, TrainingShape

    how = os.environ.get("RLCTL_TEST_RUN", "")
    with open_mpi_context(TrainingShape.of(config.train.distributed)) as world:
        place = world.assignment
        if how == "boom" and place.rank == 2:
            raise ZeroDivisionError("no such luck")
        if how in ("killed actor", "killed learner"):
            (out / "checkpoints" / "1").mkdir(parents=True, exist_ok=True)
            if place.rank == (2 if how == "killed actor" else 0):
                os.kill(os.getpid(), signal.SIGKILL)
        if how == "hang":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if place.rank == 0:
            out.mkdir(parents=True, exist_ok=True)
            (out / "began").touch()
            end = time.monotonic() + (0.3 if how in ("", "killed actor") else 60.0)
            while time.monotonic() < end and not (world.stop.asked and how != "hang"):
                time.sleep(0.01)
        elif how and how != "killed actor" and place.role is Role.ACTOR:
            while (out / "checkpoints").exists() is False:
                time.sleep(0.01)
        if world.stop.asked:
            (out / "checkpoints" / "1").mkdir(parents=True)
            return None
    return out / "policy"


if "RLCTL_TEST_RUN" in os.environ:  # not where doctests are looked for
    fake = types.ModuleType("rlctl.distributed.modes.rank")
    fake.run_rank = run_rank
    sys.modules["rlctl.distributed.modes.rank"] = fake
