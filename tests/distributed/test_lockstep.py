"""Environments on ranks, stepped together: exactly what they are in one process."""

import forms
import pytest
from mpi_runner import run_ranks, survives_a_dead_rank

SAME = """
import sys
import gymnasium, numpy as np, torch
from mpi4py import MPI
from functools import partial
from rlctl_agents.ranks_vec_env import RanksVecEnv, serve

torch.set_num_threads(1)
name = sys.argv[1]
game = "Pendulum-v1" if name == "SAC" else "CartPole-v1"
makers = [partial(gymnasium.make, game) for _ in range(2)]
if MPI.COMM_WORLD.rank:
    serve(MPI.COMM_WORLD, [makers[MPI.COMM_WORLD.rank - 1]])
    sys.exit()
import stable_baselines3 as sb3
from stable_baselines3.common.vec_env import DummyVecEnv
options = {
    "PPO": {"n_steps": 64, "batch_size": 32}, "A2C": {}, "DQN": {"learning_starts": 50, "train_freq": 4},
    "SAC": {"learning_starts": 50, "batch_size": 16, "policy_kwargs": {"net_arch": [16]}},
}[name]
found = []
for env in (RanksVecEnv(MPI.COMM_WORLD), DummyVecEnv(makers)):
    model = getattr(sb3, name)("MlpPolicy", env, seed=3, **options).learn(400)
    weights = torch.nn.utils.parameters_to_vector(model.policy.parameters()).detach().numpy()
    found.append((weights, env.get_attr("spec"), env.env_method("get_wrapper_attr", "action_space")))
    env.close()
assert np.array_equal(found[0][0], found[1][0]), "other weights"
assert str(found[0][1]) == str(found[1][1])
assert found[0][2] == found[1][2]
print("the same", len(found[0][0]), flush=True)
"""


@pytest.mark.parametrize("name", ["PPO", "SAC", *(["A2C", "DQN"] if forms.full() else [])])
def test_every_algorithm_learns_on_ranks_what_it_learns_in_one_process(name):
    done = run_ranks(SAME, 3, [name])
    assert done.returncode == 0, done.stderr
    assert "the same" in done.stdout


SEEN = """
import sys
import gymnasium, numpy as np
from gymnasium import spaces
from mpi4py import MPI
from rlctl_agents.ranks_vec_env import RanksVecEnv, WorkerError, serve

class Odd(gymnasium.Env):
    observation_space = spaces.Dict({"a": spaces.Discrete(3), "b": spaces.Box(0, 255, (4, 4, 3), np.uint8)})
    action_space = spaces.MultiDiscrete([2, 3])
    at = 0
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at = 0
        return self.see(), {"options": options}
    def see(self):
        return {"a": self.at % 3, "b": np.full((4, 4, 3), MPI.COMM_WORLD.rank, np.uint8)}
    def step(self, action):
        self.at += 1
        if action[0]:
            raise RuntimeError("the beam is off")
        return self.see(), 1.0, self.at == 4, False, {}
    def name(self, first, *, last):
        return f"{first}{MPI.COMM_WORLD.rank}{last}"

comm = MPI.COMM_WORLD
if comm.rank:
    serve(comm, [Odd, Odd])
    sys.exit()
env = RanksVecEnv(comm)
env.set_options([{"n": i} for i in range(4)])
seen = env.reset()
assert seen["b"][:, 0, 0, 0].tolist() == [1, 1, 2, 2]
assert [info["options"]["n"] for info in env.reset_infos] == [0, 1, 2, 3]
assert env.env_method("name", "<", indices=[3, 0], last=">") == ["<2>", "<1>"]
env.set_attr("at", 2, indices=[1, 2])
assert env.get_attr("at") == [0, 2, 2, 0]
assert env.env_is_wrapped(gymnasium.Wrapper) == [False] * 4
for _ in range(2):
    seen, rewards, dones, infos = env.step(np.zeros((4, 2), int))
assert dones.tolist() == [False, True, True, False]
assert infos[1]["terminal_observation"]["a"] == 1 and infos[1]["TimeLimit.truncated"] is False
try:
    env.step(np.array([[0, 0], [0, 0], [1, 0], [0, 0]]))
except WorkerError as error:
    assert "the beam is off" in str(error) and "rank 2" in str(error)
    print("told", flush=True)
env.close()
"""


def test_it_shows_all_spaces_and_tells_what_went_wrong_where():
    done = run_ranks(SEEN, 3)
    assert done.returncode == 0, done.stderr
    assert "told" in done.stdout


DEAD = """
import os, signal
import gymnasium, numpy as np
from mpi4py import MPI
from rlctl.core.errors import RanksLostError
from rlctl_agents.ranks_vec_env import RanksVecEnv, serve

class Deadly(gymnasium.Wrapper):
    def step(self, action):
        if MPI.COMM_WORLD.rank == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(action)

comm = MPI.COMM_WORLD
if comm.rank:
    try:
        serve(comm, [lambda: Deadly(gymnasium.make("CartPole-v1"))])
    finally:
        os._exit(0)  # with a dead rank, MPI_Finalize may not return
env = RanksVecEnv(comm)
env.reset()
try:
    env.step(np.zeros(2, int))
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
