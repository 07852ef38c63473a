"""Environments on ranks, stepped together: exactly what they are in one process."""

import pytest
from mpi_runner import run_ranks, survives_a_dead_rank

SETUP = """
import os, signal, sys
import gymnasium, numpy as np
from mpi4py import MPI
from rlctl.core.errors import RanksLostError
from rlctl.distributed.actor.vector_env import SequentialVectorEnv
from rlctl.distributed.comm.transition_spec import Seeds
from rlctl.distributed.modes.lockstep import LockstepVectorEnv, serve_steps

def cartpoles(first, count=2, wrapper=lambda env: env):
    maker = lambda: wrapper(gymnasium.make("CartPole-v1"))
    return SequentialVectorEnv([maker] * count, Seeds(3, 0, first))

comm = MPI.COMM_WORLD
"""
SAME = """
if comm.rank:
    serve_steps(comm, cartpoles(2 * (comm.rank - 1)), 0)
    sys.exit()
remote, local = LockstepVectorEnv(comm, [1, 2]), cartpoles(0, 4)
assert (remote.count, remote.transition_spec) == (local.count, local.transition_spec)
assert (remote.observation_space, remote.action_space) == (local.observation_space, local.action_space)
random = np.random.default_rng(0)
ended = 0

def same_steps(number):
    global ended
    for _ in range(number):
        actions = random.integers(2, size=(4, 1))
        ours, theirs = remote.step(actions), local.step(actions)
        for name in ("observations", "rewards", "durations", "terminated", "truncated"):
            a, b = getattr(ours, name), getattr(theirs, name)
            assert a.dtype == b.dtype and np.array_equal(a, b), name
        for one, other in zip(ours.episode_ends, theirs.episode_ends, strict=True):
            assert np.array_equal(one.observation, other.observation)
            assert (one.environment, one.episode_return, one.length, one.metrics) == (
                other.environment, other.episode_return, other.length, other.metrics)
            ended += 1

assert np.array_equal(remote.reset(), local.reset())
same_steps(60)
states = remote.save(), local.save()
same_steps(40)
assert np.array_equal(remote.restore(states[0]), local.restore(states[1]))
same_steps(60)
remote.close()
print("the same", ended, flush=True)
"""


def test_remote_environments_step_save_and_restore_as_local_ones_do():
    done = run_ranks(SETUP + SAME, 3)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) > 10


UNSAVED = """
class Connected(gymnasium.Wrapper):
    def __reduce__(self):
        raise TypeError("holds a connection")

if comm.rank:
    serve_steps(comm, cartpoles(0, 1, Connected if comm.rank == 2 else lambda env: env), 0)
    sys.exit()
remote = LockstepVectorEnv(comm, [1, 2])
remote.reset()
for _ in range(100):
    remote.step(np.ones((2, 1)))
state = remote.save()
assert remote.restore(state) is None
try:
    LockstepVectorEnv(comm, [1]).restore(state)
except RanksLostError as error:
    print(error, flush=True)
remote.close()
"""


def test_environments_that_cannot_be_saved_and_missing_workers_are_reported():
    done = run_ranks(SETUP + UNSAVED, 3)
    assert done.returncode == 0, done.stderr
    assert "2 actors were saved, and now there are 1" in done.stdout


DEAD = """
class Deadly(gymnasium.Wrapper):
    def step(self, action):
        if comm.rank == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(action)

if comm.rank:
    try:
        serve_steps(comm, cartpoles(0, 1, Deadly), 0)
    finally:
        os._exit(0)  # with a dead rank, MPI_Finalize may not return
remote = LockstepVectorEnv(comm, [1, 2])
remote.reset()
try:
    remote.step(np.zeros((2, 1), int))
except RanksLostError as error:
    print(error, flush=True)
comm.Revoke()
os._exit(0)
"""


def test_a_dead_rank_is_reported_at_once():
    if not survives_a_dead_rank():
        pytest.skip("this MPI ends the job when a rank dies")
    done = run_ranks(SETUP + DEAD, 3, survive=True, timeout_s=30)
    assert "rank 2 is dead" in done.stdout, done.stderr
