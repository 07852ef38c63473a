"""MPI on a rank: the communicators of real worlds, and how a job ends that goes wrong on one of its ranks."""

from __future__ import annotations

import json

import pytest
from mpi_runner import run_ranks, survives_a_dead_rank

from rlctl.distributed.launch.topology import Role, TrainingShape, assign_roles

TELL = """
import json, sys
from rlctl.distributed.launch.topology import TrainingShape
from rlctl.distributed.comm.polling import RankGroup
from rlctl.distributed.launch.mpi_context import open_mpi_context

def members(comm):
    return None if comm is None else comm.allgather(world.assignment.rank)

with open_mpi_context(TrainingShape(*map(int, sys.argv[1:]))) as world:
    told = {
        "place": str(world.assignment),
        "agent": members(world.agent),
        "learners": members(world.learners),
        "environment": members(world.environment),
        "survives": world.survives,
    }
    together = RankGroup(world.comm).gather(told)
    if world.assignment.rank == 0:
        print(json.dumps(together))
"""


@pytest.mark.parametrize(
    ("ranks", "shape"),
    [(2, TrainingShape()), (6, TrainingShape(1, 2, 2)), (5, TrainingShape(2, 1, 1)), (5, TrainingShape(1, 1, 3))],
)
def test_communicators_join_those_who_belong_together(ranks: int, shape: TrainingShape) -> None:
    numbers = [str(number) for number in (shape.agents, shape.learners, shape.ranks_per_env)]
    done = run_ranks(TELL, ranks, numbers, survive=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    places = assign_roles(ranks, shape)
    for place, said in zip(places, told, strict=True):
        assert said["place"] == str(place)
        assert said["survives"] == survives_a_dead_rank()
        same = [other for other in places if other.agent == place.agent]
        talking = [other.rank for other in same if other.role in (Role.LEARNER, Role.ACTOR)]
        learners = [other.rank for other in same if other.role is Role.LEARNER]
        group = [other.rank for other in same if other.actor == place.actor and other.actor >= 0]
        assert said["agent"] == (talking if place.role in (Role.LEARNER, Role.ACTOR) else None)
        assert said["learners"] == (learners if place.role is Role.LEARNER else None)
        assert said["environment"] == (group or None)


def test_without_with_ft_no_rank_survives_another() -> None:
    done = run_ranks(TELL, 2, ["1", "1", "1"])
    assert [said["survives"] for said in json.loads(done.stdout)] == [False, False]


FAIL = """
import sys, time
from rlctl.distributed.launch.topology import TrainingShape
from rlctl.distributed.launch.mpi_context import open_mpi_context
from rlctl.core.errors import ConfigError

how = sys.argv[1]
with open_mpi_context(TrainingShape()) as world:
    if how == "bug" and world.assignment.rank == 2:
        raise ZeroDivisionError("no such luck")
    if how == "all" or (how == "one" and world.assignment.rank == 2):
        raise ConfigError("train.options: no such thing")
    time.sleep(120)
"""


@pytest.mark.parametrize("survive", [True, False])
def test_an_exception_on_one_rank_ends_the_job_within_seconds(survive: bool) -> None:
    done = run_ranks(FAIL, 4, ["bug"], survive=survive, timeout_s=20)
    assert done.returncode != 0
    assert "rlctl: rank 2 (actor 1 of agent 0) ends the job:\nTraceback" in done.stderr
    assert done.stderr.count("ZeroDivisionError: no such luck") == 1


@pytest.mark.parametrize("survive", [True, False])
def test_what_the_user_can_mend_is_said_once_by_all_ranks_together(survive: bool) -> None:
    done = run_ranks(FAIL, 4, ["all"], survive=survive, timeout_s=20)
    said = [line for line in done.stderr.splitlines() if line.startswith("rlctl: ")]
    assert said == ["rlctl: train.options: no such thing"]
    assert "Traceback" not in done.stderr


def test_what_the_user_can_mend_on_one_rank_names_the_rank() -> None:
    done = run_ranks(FAIL, 4, ["one"], timeout_s=20)
    assert "rlctl: rank 2 (actor 1 of agent 0): train.options: no such thing" in done.stderr.splitlines()
    assert done.returncode == 2


def test_too_few_ranks_end_the_job_with_the_smallest_world() -> None:
    done = run_ranks(TELL, 3, ["1", "2", "1"], timeout_s=20)
    assert done.returncode == 2
    assert done.stderr.count("want at least 4 ranks, not 3") == 1


LEAVE = """
import logging, os, signal, sys, time
from rlctl.distributed.launch import shutdown as leaving
from rlctl.distributed.launch import mpi_context as module
from rlctl.distributed.launch.topology import TrainingShape

logging.basicConfig()
how = sys.argv[1]
real = leaving.finish_job
module.finish_job = lambda *arguments: real(*arguments, patience_s=1.0)
with module.open_mpi_context(TrainingShape()) as world:
    if world.assignment.rank == 2 and how == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if world.assignment.rank == 2 and how == "hangs":
        time.sleep(600)
    if world.assignment.rank == 0:
        time.sleep(0.5)
print("out", world.assignment.rank, flush=True)
"""


def test_all_leave_together_when_the_learner_is_done() -> None:
    done = run_ranks(LEAVE, 4, [""])
    assert sorted(done.stdout.splitlines()) == [f"out {rank}" for rank in range(4)], done.stderr
    assert done.returncode == 0


def test_a_rank_that_died_keeps_nobody_from_leaving() -> None:
    if not survives_a_dead_rank():
        pytest.skip("this MPI ends all ranks with one")
    done = run_ranks(LEAVE, 4, ["dies"], survive=True, timeout_s=30)
    assert sorted(done.stdout.splitlines()) == ["out 0", "out 1", "out 3"]
    assert "ranks that have died: 2" in done.stderr


@pytest.mark.parametrize("survive", [True, False])
def test_a_rank_that_hangs_is_not_waited_for(survive: bool) -> None:
    done = run_ranks(LEAVE, 4, ["hangs"], survive=survive, timeout_s=30)
    assert sorted(line for line in done.stdout.splitlines() if line.startswith("out")) == ["out 0", "out 1", "out 3"]
    assert "ranks that do not come to the end: 2" in done.stderr
