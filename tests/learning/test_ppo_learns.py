"""PPO on a game in which the right answer is seen, the mask never forbids it, and chance cannot find it."""

import json
import os
import signal
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from stable_baselines3 import PPO
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rlctl.bundle import saved_policy
from rlctl.config.schema import Config
from rlctl.core.campaign import Decision
from rlctl.core.errors import ConfigError
from rlctl.distributed.actor.gymnasium_vector_env import GymnasiumVectorEnv
from rlctl.monitoring.progress import Silent
from rlctl_agents import training
from rlctl_agents.sb3_learner import ppo
from rlctl_agents.vec_env import TrainingVecEnv

HEADS, COLOURS, LENGTH = (5, 3), 5, 8


class Colours(gymnasium.vector.VectorEnv):
    """A colour is shown; head 0 should name it, head 1 its remainder by 3: a reward of 0.5 each.

    A hidden nuisance, constant over an episode, is added to every reward; only the critic sees it.
    """

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012
    single_observation_space = spaces.Box(-np.inf, np.inf, (COLOURS,), np.float32)
    single_action_space = spaces.MultiDiscrete(HEADS)

    def __init__(self, num_envs, seed):
        self.num_envs = num_envs
        self.random = np.random.default_rng(seed)
        self.nuisance = self.random.normal(size=(num_envs, 1)).astype(np.float32)
        self.age = self.random.integers(LENGTH, size=num_envs)

    def reset(self, *, seed=None, options=None):
        self._show()
        return self.observation, self._infos()

    def step(self, actions):
        assert self.mask[:, :5][np.arange(self.num_envs), actions[:, 0]].all()
        torch.set_num_threads(2)  # as a twin does that shares the OpenMP runtime
        right = 0.5 * (actions[:, 0] == self.colour) + 0.5 * (actions[:, 1] == self.colour % 3)
        self.age += 1
        ended = self.age >= LENGTH
        truncated = ended & (self.colour == 0)
        reward = right + self.nuisance[:, 0]
        before = self.observation, self.mask, self.nuisance.copy()
        self.age[ended] = 0
        self.nuisance[ended] = self.random.normal(size=(ended.sum(), 1))
        self._show()
        infos = self._infos()
        for i in np.flatnonzero(ended):
            final = {"action_mask": before[1][i], "privileged": before[2][i], "successes": int(right[i] == 1.0)}
            infos = self._add_info(
                infos, {"final_obs": before[0][i], "final_info": final | {"node_seconds": 8.0}}, int(i)
            )
        return self.observation, reward, ended & ~truncated, truncated, infos

    def _show(self):
        self.colour = self.random.integers(COLOURS, size=self.num_envs)
        self.observation = np.eye(COLOURS, dtype=np.float32)[self.colour]
        self.mask = self.random.random((self.num_envs, sum(HEADS))) < 0.5
        rows = np.arange(self.num_envs)
        self.mask[rows, self.colour] = self.mask[rows, 5 + self.colour % 3] = True

    def _infos(self):
        return {"action_mask": self.mask, "privileged": self.nuisance.copy()}


@pytest.fixture
def factory(monkeypatch):
    made = []

    def vector_env(num_envs, seed, capacity):
        made.append(Colours(num_envs, seed))
        return made[-1]

    factory = SimpleNamespace(name="colours", version=3, vector_env=vector_env, made=made)
    monkeypatch.setattr(training, "configured_game", lambda config: factory)
    return factory


def config(decisions=20_000, **options):
    # 64 environments x 16 decisions: 1024 in each update.
    options = {"n_steps": 16, "batch_size": 256, "learning_rate": 3e-3, "net_arch": [32]} | options
    train = {"decisions": decisions, "num_envs": 64, "checkpoint_decisions": 2048, "options": options}
    return Config.model_validate({"schema": 1, "seed": 1, "campaign": {"name": "colours"}, "train": train})


def score(policy, count=400):
    """Mean reward without the nuisance; the answers of a policy that chooses at random among what is allowed: 0.5."""
    env = Colours(count, seed=9)
    env.reset()
    answers = np.array([policy(row, mask) for row, mask in zip(env.observation, env.mask, strict=True)], dtype=np.int64)
    return float(0.5 * (answers[:, 0] == env.colour).mean() + 0.5 * (answers[:, 1] == env.colour % 3).mean())


@pytest.mark.quick
def test_it_learns_what_chance_cannot_and_leaves_a_whole_run(factory, tmp_path):
    folder = ppo(config()).train(tmp_path / "run", False, Silent())
    policy = saved_policy.load(folder)
    random = np.random.default_rng(0)

    def chance(row, mask):
        return [random.choice(np.flatnonzero(part)) for part in np.split(mask, [5])]

    assert score(chance) < 0.7
    assert score(lambda row, mask: policy.act(Decision("", 0.0, {}, row, mask))) > 0.9
    env = Colours(1, seed=0)
    policy.require("colours", 3, env.single_observation_space, env.single_action_space)
    assert folder == tmp_path / "run" / "policy"
    assert PPO.load(folder / "model.zip").num_timesteps == 20_480
    assert any((tmp_path / "run" / "tensorboard").iterdir())
    assert torch.get_num_threads() == 1
    with pytest.raises(ConfigError, match="already holds a training"):
        ppo(config()).train(tmp_path / "run", False, Silent())


def learning_rates(folder):
    """By decision, from all event files of a training."""
    rates = {}
    for file in folder.glob("*tfevents*"):
        events = EventAccumulator(str(file)).Reload()
        rates |= {scalar.step: scalar.value for scalar in events.Scalars("learning/learning_rate")}
    return rates


class Interrupts(Silent):
    """Sends this process a signal after some decisions."""

    def __init__(self, number, after):
        self.number, self.left, self.total = number, after, 0

    def start(self, what, total, unit, done=0):
        self.total = done

    def advance(self, amount, note=""):
        self.total += amount
        self.left -= amount
        if self.left <= 0 and self.number is not None:
            number, self.number = self.number, None
            os.kill(os.getpid(), number)


class Notes(Silent):
    """Keeps what is said beside the progress."""

    def __init__(self):
        self.said = []

    def advance(self, amount, note=""):
        self.said.append((amount, note))


def test_no_cost_is_told_before_every_environment_has_ended_a_campaign(factory, tmp_path):
    """Those that end first are the cheap ones, and alone would show a policy that gets worse as it learns."""
    notes = Notes()
    ppo(config(20 * 64, n_steps=2)).train(tmp_path, False, notes)
    told = np.cumsum([amount for amount, _ in notes.said])[[bool(note) for _, note in notes.said]]
    # The youngest of 64 environments has all of its eight decisions before it; two of each are told of together.
    assert told[0] == LENGTH * 64
    assert "node-seconds per success" in notes.said[-1][1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_stops_and_resume_goes_on_to_the_same_total(factory, tmp_path, number):
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt):
        ppo(config(6000)).train(tmp_path, False, Interrupts(number, 3000))
    assert signal.getsignal(number) == before
    saved = sorted(folder.name for folder in (tmp_path / "checkpoints").iterdir())
    assert saved == [f"{2048:012d}", f"{3072:012d}"]
    assert not (tmp_path / "policy").exists()

    with pytest.raises(ConfigError, match="was trained with train"):
        ppo(config(6000, gamma=0.5)).train(tmp_path, True, Silent())
    again = Interrupts(None, 0)
    folder = ppo(config(6000)).train(tmp_path, True, again)
    assert again.total == 6144
    model = PPO.load(folder / "model.zip")
    assert model.num_timesteps == 6144
    # The learning rate fell as if nothing had happened: 3e-3 at the start, 5 % of that at the end.
    rates = learning_rates(tmp_path / "tensorboard")
    # An update is logged with the next 1024 decisions, so the last one before the signal is not.
    assert sorted(rates) == [2048, 3072, 5120, 6144]
    assert all(rate == pytest.approx(3e-3 * (1 - 0.95 * (at - 1024) / 6000), rel=1e-4) for at, rate in rates.items())
    assert json.loads((folder / "manifest.json").read_text())["decisions"] == 6144
    first, second = factory.made[0], factory.made[-1]
    assert first.random.bit_generator.seed_seq.entropy != second.random.bit_generator.seed_seq.entropy


def test_a_checkpoint_that_was_never_finished_is_passed_over(factory, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        ppo(config(6000)).train(tmp_path, False, Interrupts(signal.SIGTERM, 3000))
    (tmp_path / "checkpoints" / ".torn").mkdir()
    (tmp_path / "checkpoints" / ".torn" / "model.zip").write_text("half")
    again = Interrupts(None, 0)
    ppo(config(4000)).train(tmp_path, True, again)
    assert again.total == 4096
    assert not (tmp_path / "checkpoints" / ".torn").exists()


def test_the_adapter_tells_stable_baselines3_how_episodes_ended():
    env = TrainingVecEnv(GymnasiumVectorEnv(Colours(32, 0)))
    rows, ended = env.reset(), 0
    assert rows.shape == (32, COLOURS + sum(HEADS) + 1) == (32, *env.observation_space.shape)
    assert env.env_method("action_masks", indices=[3])[0].tolist() == rows[3, 5:13].astype(bool).tolist()
    total = np.zeros(32)
    for _ in range(20):
        masks = rows[:, 5:13].astype(bool)
        last = rows
        actions = np.stack([masks[:, :5].argmax(1), masks[:, 5:].argmax(1)], axis=1)
        rows, rewards, dones, infos = env.step(actions)
        total += rewards
        for i, info in enumerate(infos):
            assert bool(info) == dones[i]
            if info:
                ended += 1
                assert np.array_equal(info["terminal_observation"], last[i])
                assert info["TimeLimit.truncated"] == (last[i, 0] == 1.0)
                assert info["episode"]["r"] == pytest.approx(total[i], abs=1e-4)
                assert info["campaign"].keys() == {"successes", "node_seconds"}
                total[i] = 0.0
    assert ended > 32


@pytest.mark.parametrize("options", [{"gama": 0.9}, {"gamma": 2.0}, {"logit_bias": [1.0]}])
def test_options_that_cannot_be_used_are_refused_in_one_line(factory, tmp_path, options):
    with pytest.raises(ConfigError, match=rf"train\.options\.{next(iter(options))}") as error:
        ppo(config(**options)).train(tmp_path, False, Silent())
    assert "\n" not in str(error.value)
