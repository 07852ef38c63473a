"""Several learners are one learner with the joined batch."""

import threading
from functools import partial

import numpy as np
import pytest
import torch
from gymnasium import spaces
from mpi_runner import run_ranks
from stable_baselines3 import PPO
from stable_baselines3.common.logger import Logger

from rlctl.distributed.comm.transition_spec import TransitionSpec
from rlctl.distributed.learner.context import LearnerContext
from rlctl_agents.gradient_averaging import OutOfStepError, require_same_weights
from rlctl_agents.on_policy.options import OnPolicyOptions
from rlctl_agents.on_policy.rollouts_from_actors import ActorPPO
from rlctl_agents.vec_env import RemoteEnvSpec

SEEN = spaces.Box(-np.inf, np.inf, (3,), np.float32)
LAYOUT = TransitionSpec(3, 0, 0, 1)


class Meeting:
    """Learners in threads of this process; ``of(rank)`` is like a ``RankGroup``."""

    def __init__(self, size):
        self.size, self.barrier, self.table = size, threading.Barrier(size, timeout=30), {}

    def of(self, rank):
        return Seat(self, rank)


class Seat:
    def __init__(self, meeting, rank):
        self.meeting, self.size, self.rank = meeting, meeting.size, rank

    def reduce(self, array, how):
        self.meeting.table[self.rank] = array.copy()
        self.meeting.barrier.wait()
        array[...] = how([self.meeting.table[r] for r in range(self.size)], axis=0)
        self.meeting.barrier.wait()

    def total(self, number):
        return number * self.size

    def sum(self, array):
        self.reduce(array, np.sum)

    def max(self, array):
        self.reduce(array, np.max)


def data(seed, count):
    random = np.random.default_rng(seed)
    return {
        "observations": random.normal(size=(count, 3)).astype("f4"),
        "actions": random.integers(2, size=(count, 1)),
        "values": random.normal(size=count).astype("f4"),
        "log_probs": (-0.7 + 0.05 * random.normal(size=count)).astype("f4"),
        "returns": random.normal(size=count).astype("f4"),
        "advantages": (3.0 * random.normal(size=count) + 1.0).astype("f4"),
    }


def joined(parts):
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


class NoActors:
    """Where nothing is published."""

    transition_spec, version = LAYOUT, 0


def ppo(learners=None, **options):
    options = {"n_steps": 64, "batch_size": 16, "n_epochs": 3, "ent_coef": 0.01, "max_grad_norm": 0.3} | options
    env = RemoteEnvSpec(LAYOUT, SEEN, spaces.Discrete(2))
    model = ActorPPO("MlpPolicy", env, seed=4, **options)
    attach(model, learners)
    model.set_logger(Logger(None, []))
    return model


def attach(model, learners):
    model.attach(LearnerContext(NoActors(), learners=learners), OnPolicyOptions())


def in_given_order(model, minibatches):
    """Minibatches of these indices, instead of random ones."""
    model.rollout_buffer.get = lambda batch_size=None: (model.rollout_buffer._get_samples(m) for m in minibatches)


def vector(model):
    return torch.nn.utils.parameters_to_vector(model.policy.parameters()).detach().numpy().copy()


def side_by_side(models, meeting, work):
    errors = []

    def run(rank):
        try:
            attach(models[rank], meeting.of(rank))
            work(models[rank])
        except BaseException as error:
            errors.append(error)
            meeting.barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(len(models))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    if errors:
        raise errors[0]


@pytest.mark.parametrize("options", [{}, {"clip_range_vf": 0.2}], ids=str)
@pytest.mark.parametrize("sizes", [(32, 32), (40, 24)])
def test_they_learn_what_one_learns_from_the_joined_batch(options, sizes):
    """Three updates of three epochs; minibatch j of the one is that of all together."""
    parts, cuts = 4, [np.array_split(np.arange(size), 4) for size in sizes]
    one = ppo(**options)
    two = [ppo(**options) for _ in sizes]
    with torch.no_grad():  # the others begin as the first one
        for parameter in two[1].policy.parameters():
            parameter.add_(1.0)
    updates = [[data(10 * update + i, size) for i, size in enumerate(sizes)] for update in range(3)]
    kinds = []
    for update in updates:
        one.rollout_buffer.fill(joined(update))
        in_given_order(one, [np.concatenate([cuts[0][j], sizes[0] + cuts[1][j]]) for j in range(parts)])
        one.train()
        kinds.append(one._n_updates)

    def work(model):
        which = two.index(model)
        for update in updates:
            model.rollout_buffer.fill(update[which])
            in_given_order(model, cuts[which])
            model.train()

    side_by_side(two, Meeting(2), work)
    assert vector(two[0]) == pytest.approx(vector(one), abs=1e-6)
    assert np.array_equal(vector(two[0]), vector(two[1]))
    assert two[0]._n_updates == two[1]._n_updates == one._n_updates
    assert np.abs(vector(one) - vector(ppo())).max() > 1e-3


def test_a_single_one_is_stable_baselines3s_own():
    ours, theirs = ppo(Meeting(1).of(0)), ppo()
    for model, train in ((ours, ours.train), (theirs, partial(PPO.train, theirs))):
        model.rollout_buffer.fill(data(1, 64))
        np.random.seed(5)
        train()
    assert np.array_equal(vector(ours), vector(theirs))


def test_those_out_of_step_are_told():
    models = [ppo() for _ in range(2)]

    def work(model):
        if model is models[1]:
            with torch.no_grad():
                next(model.policy.parameters()).add_(1e-6)
        require_same_weights(model.policy.parameters(), model.context.learners)

    with pytest.raises(OutOfStepError):
        side_by_side(models, Meeting(2), work)


RANKS = """
import sys
import numpy as np, torch
from mpi4py import MPI
sys.path.insert(0, HERE)
from test_several_learners import data, ppo, require_same_weights, vector
from rlctl.distributed.comm.polling import RankGroup
learners = RankGroup(MPI.COMM_WORLD, 5e-3)
model = ppo(learners)
for update in range(3):
    model.rollout_buffer.fill(data(10 * update + learners.rank, 32 + 8 * learners.rank))
    model.train()
require_same_weights(model.policy.parameters(), learners)
print(learners.total(1), vector(model).sum(), flush=True)
"""


def test_on_ranks():
    from pathlib import Path

    done = run_ranks(RANKS.replace("HERE", repr(str(Path(__file__).parent))), 2)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.split("\n")
    assert lines[0] == lines[1]
    assert lines[0].startswith("2 ")
