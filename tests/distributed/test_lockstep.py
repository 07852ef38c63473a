"""Environments on ranks, stepped together: exactly what they are in one process."""

import forms
import pytest
from mpi_runner import run_ranks, survives_a_dead_rank

SAME = """
import sys
import gymnasium, numpy as np, torch
from mpi4py import MPI
from functools import partial
from rlctl.distributed.actor.vector_env import SequentialVectorEnv
from rlctl.distributed.comm.transition_spec import Seeds
from rlctl.distributed.modes.lockstep import LockstepVectorEnv, serve_steps

torch.set_num_threads(1)
name, comm = sys.argv[1], MPI.COMM_WORLD
make = partial(gymnasium.make, "Pendulum-v1" if name == "SAC" else "CartPole-v1")
if comm.rank:
    serve_steps(comm, SequentialVectorEnv([make], Seeds(5, 0, comm.rank - 1)), 0)
    sys.exit()
import stable_baselines3 as sb3
from rlctl_agents.vec_env import TrainingVecEnv
options = {
    "PPO": {"n_steps": 64, "batch_size": 32}, "A2C": {}, "DQN": {"learning_starts": 50, "train_freq": 4},
    "SAC": {"learning_starts": 50, "batch_size": 16, "policy_kwargs": {"net_arch": [16]}},
}[name]
found = []
for environments in (LockstepVectorEnv(comm, [1, 2]), SequentialVectorEnv([make, make], Seeds(5))):
    env = TrainingVecEnv(environments)
    model = getattr(sb3, name)("MlpPolicy", env, seed=3, **options).learn(400)
    weights = torch.nn.utils.parameters_to_vector(model.policy.parameters()).detach().numpy()
    found.append((weights, [info["r"] for info in model.ep_info_buffer]))
    env.close()
assert np.array_equal(found[0][0], found[1][0]), "other weights"
assert found[0][1] == found[1][1]
print("the same", len(found[0][0]), flush=True)
"""


@pytest.mark.parametrize("name", ["PPO", "SAC", *(["A2C", "DQN"] if forms.full() else [])])
def test_every_algorithm_learns_on_ranks_what_it_learns_in_one_process(name):
    done = run_ranks(SAME, 3, [name])
    assert done.returncode == 0, done.stderr
    assert "the same" in done.stdout


DEAD = """
import os, signal
import gymnasium, numpy as np
from mpi4py import MPI
from rlctl.distributed.actor.vector_env import SequentialVectorEnv
from rlctl.distributed.comm.transition_spec import Seeds
from rlctl.core.errors import RanksLostError
from rlctl.distributed.modes.lockstep import LockstepVectorEnv, serve_steps

class Deadly(gymnasium.Wrapper):
    def step(self, action):
        if MPI.COMM_WORLD.rank == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(action)

comm = MPI.COMM_WORLD
if comm.rank:
    try:
        make = lambda: Deadly(gymnasium.make("CartPole-v1"))
        serve_steps(comm, SequentialVectorEnv([make], Seeds(1, 0, comm.rank)), 0)
    finally:
        os._exit(0)  # with a dead rank, MPI_Finalize may not return
env = LockstepVectorEnv(comm, [1, 2])
env.reset()
try:
    env.step(np.zeros((2, 1)))
except RanksLostError as error:
    print(error, flush=True)
comm.Revoke()
os._exit(0)
"""


def test_a_dead_rank_is_told_of_at_once():
    if not survives_a_dead_rank():
        pytest.skip("this MPI ends the job when a rank dies")
    done = run_ranks(DEAD, 3, survive=True, timeout_s=30)
    assert "rank 2 is dead" in done.stdout, done.stderr
