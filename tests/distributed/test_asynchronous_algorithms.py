"""Stable-Baselines3's algorithms learn from chunks, of the newest policy and of older ones."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from in_process import Players
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.noise import NormalActionNoise
from test_chunk import steps

from rlctl.distributed.actor.vector_env import SequentialVectorEnv
from rlctl.distributed.comm.chunk import ChunkRecorder, decode_chunk
from rlctl.distributed.comm.transition_spec import Seeds, TransitionSpec
from rlctl.distributed.learner.context import LearnerContext
from rlctl_agents.maskable_ppo.learner import ActorMaskablePPO
from rlctl_agents.off_policy.options import ReplayOptions
from rlctl_agents.off_policy.replay_buffer import TimedReplayBuffer
from rlctl_agents.off_policy.replay_from_actors import ActorDQN, ActorSAC, ActorTD3
from rlctl_agents.on_policy.chunk_batch import ChunkBatch
from rlctl_agents.on_policy.options import OnPolicyOptions
from rlctl_agents.on_policy.rollouts_from_actors import ActorPPO
from rlctl_agents.recurrent_ppo.learner import ActorRecurrentPPO
from rlctl_agents.recurrent_ppo.networks import CriticMemory, run_along
from rlctl_agents.vec_env import RemoteEnvSpec

torch.set_num_threads(1)


class Identity(gymnasium.Env):
    """The right action is shown; in ``late`` steps if it must be remembered, with a mask if it has ``masks``."""

    def __init__(self, action_space, late=0, masks=False):
        self.action_space, self.late, self.masks = action_space, late, masks
        width = action_space.n if isinstance(action_space, spaces.Discrete) else 1
        self.observation_space = spaces.Box(-1.0, 1.0, (width,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at, self.shown = 0, []
        return self.see(), self.info()

    def info(self):
        if not self.masks:
            return {}
        mask = self.np_random.random(self.action_space.n) < 0.5
        mask[self.shown[-1]] = True
        return {"action_mask": mask}

    def see(self):
        if isinstance(self.action_space, spaces.Discrete):
            self.shown.append(int(self.np_random.integers(self.action_space.n)))
            return np.eye(self.action_space.n, dtype=np.float32)[self.shown[-1]]
        self.shown.append(float(self.np_random.uniform(-1, 1)))
        return np.array([self.shown[-1]], np.float32)

    def step(self, action):
        right = self.shown[max(0, len(self.shown) - 1 - self.late)]
        if isinstance(self.action_space, spaces.Discrete):
            reward = float(action == right)
        else:
            reward = 1.0 - abs(float(action[0]) - right)
        self.at += 1
        return self.see(), reward, False, self.at == 20, self.info()


CHOICE, NUMBER = spaces.Discrete(3), spaces.Box(-1.0, 1.0, (1,), np.float32)


def players(make, count=4, lag=0, with_mask=False, steps=20):
    worlds = [SequentialVectorEnv([make, make], Seeds(1, 0, 2 * i), with_mask=with_mask) for i in range(count)]
    return Players(worlds, steps, lag)


def spec(make, n_mask=0):
    env = make()
    layout = TransitionSpec(int(spaces.flatdim(env.observation_space)), n_mask, 0, 1)
    return RemoteEnvSpec(layout, env.observation_space, env.action_space, mask_in_row=False)


def score(model, make):
    """Mean reward of a step."""
    env = make()
    return evaluate_policy(model, env, 10, warn=False)[0] / 20


@pytest.mark.parametrize("lag", [0, 3])
@pytest.mark.parametrize("space", [CHOICE, NUMBER], ids=["choice", "number"])
def test_ppo(space, lag):
    make = lambda: Identity(space)  # noqa: E731
    source = players(make, lag=lag)
    model = ActorPPO("MlpPolicy", spec(make), n_steps=320, batch_size=64, gamma=0.5, learning_rate=3e-3, seed=1)
    model.attach(LearnerContext(source), OnPolicyOptions())
    model.learn(9_600 if space is CHOICE else 16_000)
    assert score(model, make) > 0.85
    assert source.version > 10
    assert model.ep_info_buffer[-1]["l"] == 20


def test_maskable_ppo():
    make = lambda: Identity(CHOICE, masks=True)  # noqa: E731
    source = players(make, with_mask=True)
    model = ActorMaskablePPO(
        "MlpPolicy", spec(make, 3), n_steps=320, batch_size=64, gamma=0.5, learning_rate=3e-3, seed=1
    )
    model.attach(LearnerContext(source), OnPolicyOptions())
    model.learn(6_400)
    chunk = source.next_batch(1, lambda: False)[0]
    allowed = chunk.transitions["observation"][..., 3:] > 0.5
    assert np.take_along_axis(allowed, chunk.transitions["action"].astype(int), axis=2).all()
    assert chunk.transitions["reward"].mean() > 0.85


def test_recurrent_ppo_remembers_what_was_shown():
    make = lambda: Identity(CHOICE, late=1)  # noqa: E731
    source = players(make)
    model = ActorRecurrentPPO(
        "MlpLstmPolicy", spec(make), n_steps=640, batch_size=160, gamma=0.5, learning_rate=5e-3, seed=1,
        policy_kwargs={"lstm_hidden_size": 16, "net_arch": [16]},
    )  # fmt: skip
    model.attach(LearnerContext(source), OnPolicyOptions())
    model.learn(25_600)
    # Without memory, a third.
    assert score(model, make) > 0.8


def test_the_current_network_along_a_chunk_is_what_the_actor_had():
    """With the same policy, log-probabilities and memory are those of the actor."""
    make = lambda: Identity(CHOICE)  # noqa: E731
    source = players(make, count=2, steps=7)  # episodes go on from chunk to chunk
    model = ActorRecurrentPPO("MlpLstmPolicy", spec(make), policy_kwargs={"lstm_hidden_size": 8}, seed=1)
    model.attach(LearnerContext(source), OnPolicyOptions())
    model.publish()
    chunks = source.next_batch(150, lambda: False)
    batch = ChunkBatch(chunks)
    found = run_along(model.policy, batch, torch.as_tensor(batch.actions).long().flatten(), CriticMemory())
    assert found.log_probs == pytest.approx(batch.transitions["log_prob"], abs=1e-5)
    begins = found.more["hidden_states_pi"][batch.seams, 0]
    sent = np.concatenate([chunk.state for chunk in chunks])[:, :8]
    assert begins == pytest.approx(sent, abs=1e-5)
    assert np.abs(sent[4:]).max() > 0.01


def replayed(kind, make, **options):
    kwargs = {"replay_buffer_class": TimedReplayBuffer, "replay_buffer_kwargs": {"gamma": 0.5}, "gamma": 0.5}
    return kind("MlpPolicy", spec(make), seed=1, buffer_size=5_000, learning_starts=200, **kwargs, **options)


def test_dqn():
    make = lambda: Identity(CHOICE)  # noqa: E731
    model = replayed(ActorDQN, make, train_freq=8, target_update_interval=100, learning_rate=3e-3)
    source = players(make, steps=4)
    model.attach(LearnerContext(source), ReplayOptions(updates_per_decision=0.25))
    model.learn(6_000)
    assert score(model, make) > 0.9
    assert model._n_calls == model.num_timesteps
    assert source.published[0][2]  # at random at first
    assert not source.published[-1][2]
    assert source.published[-1][1] == pytest.approx(0.05)
    assert model._n_updates == pytest.approx(0.25 * (model.num_timesteps - 200), abs=10)


@pytest.mark.parametrize("kind", [ActorSAC, ActorTD3])
def test_actor_critics(kind):
    make = lambda: Identity(NUMBER)  # noqa: E731
    noise = {"action_noise": NormalActionNoise(np.zeros(1), 0.2 * np.ones(1))} if kind is ActorTD3 else {}
    small = {"net_arch": [32]}
    model = replayed(kind, make, train_freq=1, learning_rate=3e-3, batch_size=64, policy_kwargs=small, **noise)
    source = players(make, count=2, steps=4)
    model.attach(LearnerContext(source), ReplayOptions(updates_per_decision=0.5))
    model.learn(2_400)
    assert score(model, make) > 0.85
    assert source.published[-1][1] == pytest.approx(0.2 if kind is ActorTD3 else 0.0)


def some_chunks(count, seed=0):
    random, layout = np.random.default_rng(seed), TransitionSpec(4, 0, 0, 1)
    recorder = ChunkRecorder(layout, 0, 2, 50)
    chunks = []
    for _ in range(count):
        recorder.start()
        for rows, actions, log_probs, step in steps(random, layout, 2, 30, 0.2):
            recorder.add(rows, actions, log_probs, step, 1)
        last = random.random((2, 4)).astype("f4")
        chunks.append(decode_chunk(recorder.encode(last, {}, 1.0, 1.0).copy(), layout))
    return chunks


@pytest.mark.parametrize("size", [1000, 100])  # the smaller one goes round
def test_a_buffer_of_chunks_samples_as_stable_baselines3s_does(size):
    seen = spaces.Box(-1, 1, (4,), np.float32)
    ours, theirs = TimedReplayBuffer(size, seen, NUMBER, "cpu", gamma=0.9), ReplayBuffer(size, seen, NUMBER, "cpu")
    for chunk in some_chunks(5):
        ours.extend(chunk)
        after, kept = chunk.next_observations(), chunk.transitions
        for i in range(2):
            for t in range(len(kept)):
                done = kept["terminated"][t, i] or kept["truncated"][t, i]
                info = {"TimeLimit.truncated": bool(kept["truncated"][t, i] and not kept["terminated"][t, i])}
                parts = (kept["observation"][t, i], after[t, i], kept["action"][t, i], kept["reward"][t, i], done)
                theirs.add(*(np.array(part)[None] for part in parts), [info])
    assert (ours.pos, ours.full) == (theirs.pos, theirs.full)
    inds = np.arange(size if ours.full else ours.pos)
    a, b = ours._get_samples(inds), theirs._get_samples(inds)
    for name in ("observations", "actions", "next_observations", "dones", "rewards"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name
    assert a.discounts.flatten().numpy() == pytest.approx(0.9 ** ours.durations[inds, 0], rel=1e-6)


def test_what_takes_longer_is_discounted_more():
    chunks = some_chunks(1)
    buffer = TimedReplayBuffer(100, spaces.Box(-1, 1, (4,), np.float32), NUMBER, "cpu", gamma=0.25)
    buffer.extend(chunks[0])
    buffer.durations[:] = 0.5
    assert buffer.sample(8).discounts.unique().item() == pytest.approx(0.5)
