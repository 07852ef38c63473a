"""Waits that sleep: what the collectives give, and how much of a core a waiting rank takes."""

from __future__ import annotations

import json

import pytest
from mpi_runner import run_ranks

from rlctl.distributed.comm.polling import FIRST_S, LIMIT_S, Backoff, limit_s


def test_naps_are_an_eighth_of_the_wait_up_to_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    naps: list[float] = []
    monkeypatch.setattr("time.sleep", naps.append)
    backoff = Backoff(limit_s=300e-6)
    for _ in range(30):
        backoff.nap()
    for number, nap in enumerate(naps):
        assert nap == pytest.approx(min(max(FIRST_S, sum(naps[:number]) / 8), 300e-6))
    assert (naps[0], naps[-1]) == (FIRST_S, 300e-6)
    backoff.reset()
    backoff.nap()
    assert naps[-1] == FIRST_S


def test_all_ranks_of_a_machine_together_look_no_more_often_than_sixteen() -> None:
    assert [limit_s(ranks) for ranks in (1, 16, 32, 64)] == [LIMIT_S, LIMIT_S, 2 * LIMIT_S, 4 * LIMIT_S]
    assert limit_s(100_000) == 0.1


COLLECTIVES = """
import json, time
import numpy as np
from mpi4py import MPI
from rlctl.distributed.comm.polling import RankGroup, wait

world = MPI.COMM_WORLD
asleep = RankGroup(world)
total = np.full(3, world.rank, np.float32)
asleep.sum(total)
largest = np.array([world.rank])
asleep.max(largest)
gathered = asleep.gather("x" * world.rank)
late = world.Irecv(np.zeros(1), source=world.rank, tag=9)
gave_up = not wait(late, until_s=0.05)
late.Cancel()
asleep.barrier()
print(json.dumps([world.rank, asleep.total(world.rank), total.tolist(), largest.tolist(), gathered, gave_up]))
"""


def test_collectives_give_what_blocking_ones_do() -> None:
    done = run_ranks(COLLECTIVES, 3)
    assert done.returncode == 0, done.stderr
    told = {line[0]: line[1:] for line in map(json.loads, done.stdout.splitlines())}
    assert set(told) == {0, 1, 2}
    for rank, (count, total, largest, gathered, gave_up) in told.items():
        assert count == 3
        assert total == [3, 3, 3]
        assert largest == [2]
        assert gathered == (["", "x", "xx"] if rank == 0 else None)
        assert gave_up


NAPS = """
import json, time
from mpi4py import MPI
from rlctl.distributed.comm import polling as waiting

asleep = waiting.RankGroup(MPI.COMM_WORLD)
asleep.barrier()
naps, sleep = [], time.sleep
waiting.time.sleep = lambda seconds: (naps.append(seconds), sleep(seconds))
if MPI.COMM_WORLD.rank == 0:
    sleep(3.0)
asleep.barrier()
said = asleep.gather(naps)
if said:
    print(json.dumps([waiting.LIMIT_S, said[1:]]))
"""


def test_a_rank_that_waits_leaves_its_core_to_others() -> None:
    done = run_ranks(NAPS, 4)
    assert done.returncode == 0, done.stderr
    limit_s, ranks = json.loads(done.stdout)
    assert len(ranks) == 3
    for naps in ranks:  # it looks often at first, and then as seldom as it may
        assert len(naps) > 10
        assert set(naps[60:]) <= {limit_s}
