"""Environments that span several ranks: all ranks call the same, only the first one talks to the learner."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mpi_runner import mpiexec, run_ranks

from rlctl_envs.block_copolymer.film_env import FilmEnv

ROOT = Path(__file__).parents[2]

SUM = """
import json, sys, time
import gymnasium, numpy as np
from mpi4py import MPI
from rlctl.distributed.actor.env_guard import EnvFailure
from rlctl.distributed.comm.collective_env import CollectiveGroup, follow_calls
from rlctl.distributed.comm.transition_spec import Seeds
from rlctl.distributed.actor.vector_env import SequentialVectorEnv
from rlctl.config.schema import EnvironmentSection

class Sum(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1e9, 1e9, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(8)
    def __init__(self, comm):
        self.comm, self.calls = comm, 0
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.see(0), {}
    def step(self, action):
        self.calls += 1
        if self.calls == 3 and self.comm.size:
            raise RuntimeError("on all ranks")
        return self.see(action), 0.0, False, False, {}
    def see(self, action):
        # The seed was told to all ranks: each has drawn the same number.
        drawn = int(self.np_random.integers(100))
        assert self.comm.allreduce(drawn) == drawn * self.comm.size
        return np.array([self.comm.allreduce(int(action) * (1 + self.comm.rank))], np.float32)

comm = MPI.COMM_WORLD
if comm.rank:
    follow_calls(Sum, comm)
    print(json.dumps([comm.rank, "left", time.process_time()]))
else:
    leader = CollectiveGroup(comm)
    worlds = SequentialVectorEnv(leader.makers(Sum, 2), Seeds(1), section=EnvironmentSection(backoff_s=0.5))
    worlds.reset()
    seen = [worlds.step(np.array([[a], [2 * a]])).observations[:, 0].tolist() for a in (1, 2, 3)]
    seen.append(worlds.step(np.array([[4], [5]])).observations[:, 0].tolist())
    print(json.dumps([0, seen, dict(worlds.failures)]))
    worlds.close()
    leader.dismiss()
"""


def test_all_ranks_make_the_same_calls_and_fail_together() -> None:
    done = run_ranks(SUM, 3)
    assert done.returncode == 0, done.stderr
    told = sorted(json.loads(line) for line in done.stdout.splitlines())
    rank, seen, failures = told[0]
    # Ranks contribute action times 1, 2 and 3; the third step of each environment fails, and it begins anew.
    assert (rank, seen) == (0, [[6.0, 12.0], [12.0, 24.0], [0.0, 0.0], [24.0, 30.0]])
    assert failures == {"raised": 2}
    assert [line[:2] for line in told[1:]] == [[1, "left"], [2, "left"]]


FILM = """
import json
import numpy as np
from mpi4py import MPI
from rlctl_envs.block_copolymer.film_env import FilmEnv

comm = MPI.COMM_WORLD
env = FilmEnv(grid=64, steps=40, segments=6, communicator=comm)
seen, _ = env.reset(seed=7)
rewards, over = [], False
while not over:
    seen, reward, terminated, truncated, info = env.step(len(rewards) % env.action_space.n)
    rewards.append(reward)
    over = terminated or truncated
if comm.rank == 0:
    print(json.dumps([np.asarray(seen, float).tolist(), rewards]))
"""


def test_a_film_is_the_same_on_one_rank_and_on_two() -> None:
    one, two = (run_ranks(FILM, ranks) for ranks in (1, 2))
    assert one.returncode == two.returncode == 0, one.stderr + two.stderr
    (seen, rewards), (seen_2, rewards_2) = json.loads(one.stdout), json.loads(two.stdout)
    assert np.allclose(seen, seen_2, rtol=0.0, atol=1e-6)
    assert np.allclose(rewards, rewards_2, rtol=0.0, atol=1e-8)
    assert len(rewards) > 1


def test_a_film_is_an_environment_that_ends() -> None:
    env = FilmEnv(grid=32, steps=20, segments=3)
    first, _ = env.reset(seed=1)
    again, _ = env.reset(seed=1)
    assert np.array_equal(first, again)
    ends = [env.step(a)[2:4] for a in (1, 2, 3)]
    assert ends[-1] == (False, True)
    assert env.observation_space.contains(env.step(0)[0])
    with pytest.raises(ValueError, match="grid must be even"):
        FilmEnv(grid=33)


def train(out: Path, config: str, *options: str) -> subprocess.CompletedProcess[str]:
    mpiexec()  # or skip
    command = [sys.executable, "-P", "-m", "rlctl", "train", str(ROOT / "configs" / config), "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, *options], capture_output=True, text=True, timeout=120, env=environment, check=False
    )


@pytest.mark.parametrize("mode", ["asynchronous", "lockstep"])
def test_a_policy_is_trained_on_a_film_that_spans_two_ranks(tmp_path: Path, mode: str) -> None:
    sets = ["--set=train.decisions=80", "--set=train.validation_instances=0", f"--set=train.distributed.mode={mode}"]
    done = train(tmp_path / "run", "film.yaml", "--ranks=5", *sets)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "policy" / "weights.npz").exists()


@pytest.mark.parametrize("config", ["cartpole.yaml", "ensemble_small.yaml"])
def test_environments_without_a_communicator_span_one_rank_only(tmp_path: Path, config: str) -> None:
    done = train(tmp_path / "run", config, "--ranks=3", "--set=train.distributed.ranks_per_env=2")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "train.distributed.ranks_per_env" in line
    assert "take no MPI communicator" in line
    assert not (tmp_path / "run").exists()
