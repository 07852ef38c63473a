"""Attention on a game of sets: the right choice is told by its likeness to a row of another set, wherever they lie."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from rlctl.bundle import saved_policy
from rlctl.config.schema import Config
from rlctl.core.campaign import Decision
from rlctl.core.sets import SetLayout
from rlctl.monitoring.progress import Silent
from rlctl_agents import training
from rlctl_agents.sb3_learner import maskable_ppo, ppo

CHOICES, OTHERS, COLOURS = 5, 3, 5
LAYOUT = SetLayout(1, ((CHOICES, 1 + COLOURS), (OTHERS, 1 + COLOURS)))


class Alike(gymnasium.vector.VectorEnv[Any, Any, Any]):
    """Choices have a colour each, some are not there; one of the other rows is, and has the colour that is wanted."""

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012
    single_observation_space = spaces.Box(-np.inf, np.inf, (LAYOUT.length,), np.float32)
    single_action_space = spaces.Discrete(CHOICES)

    def __init__(self, num_envs: int, seed: int) -> None:
        self.num_envs = num_envs
        self.random = np.random.default_rng(seed)

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        self.show()
        return self.observation, {"action_mask": self.mask}

    def step(self, actions: Any) -> Any:
        right = (np.ravel(actions) == self.right).astype(np.float64)
        before, masks = self.observation, self.mask
        self.show()
        infos: dict[str, Any] = {"action_mask": self.mask}
        for i in range(self.num_envs):
            final = {"action_mask": masks[i], "successes": int(right[i]), "node_seconds": 1.0}
            infos = self._add_info(infos, {"final_obs": before[i], "final_info": final}, i)
        return self.observation, right, np.ones(self.num_envs, np.bool_), np.zeros(self.num_envs, np.bool_), infos

    def show(self) -> None:
        n, every = self.num_envs, np.arange(self.num_envs)
        colours = self.random.permuted(np.tile(np.arange(COLOURS), (n, 1)), axis=1)
        self.right = self.random.integers(CHOICES, size=n)
        self.mask = self.random.random((n, CHOICES)) < 0.7
        self.mask[every, self.right] = True
        choices = np.concatenate([np.ones((n, CHOICES, 1)), np.eye(COLOURS)[colours]], axis=2) * self.mask[:, :, None]
        others = np.zeros((n, OTHERS, 1 + COLOURS))
        row = self.random.integers(OTHERS, size=n)
        others[every, row, 0] = others[every, row, 1 + colours[every, self.right]] = 1.0
        parts = [np.ones((n, 1)), choices.reshape(n, -1), others.reshape(n, -1)]
        self.observation = np.concatenate(parts, axis=1).astype(np.float32)


def score(policy: Callable[[Any, Any], int], count: int = 400) -> float:
    """Share of right answers."""
    env = Alike(count, seed=9)
    env.reset()
    rows = zip(env.observation, env.mask, env.right, strict=True)
    return float(np.mean([policy(row, mask) == right for row, mask, right in rows]))


@pytest.mark.parametrize("algorithm", [ppo, maskable_ppo])
def test_it_finds_what_is_alike(algorithm: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    factory = SimpleNamespace(
        name="alike",
        version=1,
        campaign=lambda seed: SimpleNamespace(layout=LAYOUT),  # all that is asked of it
        vector_env=lambda num_envs, seed, capacity: Alike(num_envs, seed),
    )
    monkeypatch.setattr(training, "configured_game", lambda config: factory)
    options = {"n_steps": 8, "batch_size": 256, "n_epochs": 4, "learning_rate": 3e-3, "gamma": 1.0}
    options |= {"network": "attention", "attention": {"width": 16, "heads": 2, "layers": 1}}
    train = {"decisions": 25_000, "num_envs": 64, "validation_instances": 0, "options": options}
    config = Config.model_validate({"schema": 1, "seed": 1, "campaign": {"name": "alike"}, "train": train})
    folder = algorithm(config).train(tmp_path / "run", False, Silent())
    assert folder is not None
    policy, random = saved_policy.load(folder), np.random.default_rng(0)
    assert score(lambda row, mask: random.choice(np.flatnonzero(mask))) < 0.4
    assert score(lambda row, mask: policy.act(Decision("", 0.0, {}, row, mask))[0]) > 0.8
