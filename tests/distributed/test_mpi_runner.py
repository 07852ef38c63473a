"""The tests' own way to run ranks: what it promises to the other tests."""

from mpi_runner import run_ranks, survives_a_dead_rank


def test_every_rank_runs_the_script_with_its_arguments() -> None:
    done = run_ranks("import sys; from mpi4py import MPI; print(MPI.COMM_WORLD.rank, *sys.argv[1:])", 3, ["a", "b c"])
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == ["0 a b c", "1 a b c", "2 a b c"]


DEATH = """
import os, signal, sys, time
from mpi4py import MPI
world = MPI.COMM_WORLD
world.Barrier()
if world.rank == 1:
    os.kill(os.getpid(), signal.SIGKILL)
time.sleep(1.0)
print("alive", world.rank, flush=True)
os._exit(0)
"""


def test_the_others_survive_a_dead_rank_only_where_that_is_asked_for() -> None:
    assert "alive" not in run_ranks(DEATH, 3).stdout
    if survives_a_dead_rank():
        assert sorted(run_ranks(DEATH, 3, survive=True).stdout.splitlines()) == ["alive 0", "alive 2"]
