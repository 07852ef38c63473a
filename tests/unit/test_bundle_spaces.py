"""Every kind of action and observation: what NumPy answers is what Stable-Baselines3's PPO answers."""

from __future__ import annotations

import json

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from pydantic import TypeAdapter
from stable_baselines3 import PPO
from torch import nn

from rlctl.bundle import saved_policy
from rlctl.bundle.spaces import Space, build, describe_space
from rlctl.core.errors import PolicyError
from rlctl_agents.policy_export import actor_network, actor_weights

ACTIONS = [
    spaces.Discrete(5),
    spaces.MultiDiscrete([4, 3, 2]),
    spaces.MultiBinary(6),
    spaces.Box(np.array([-0.1, -1.0, 0.0], np.float32), np.array([0.1, 50.0, 0.3], np.float32)),
]
OBSERVATIONS = [
    spaces.Box(-1.0, 2.0, (2, 3), np.float32),
    spaces.Discrete(7),
    spaces.MultiDiscrete([3, 4]),
    spaces.MultiBinary(4),
]
OTHERS = [
    spaces.Dict({"b": spaces.Discrete(3, start=2), "a": spaces.Tuple([spaces.Box(-np.inf, np.inf, (2,))])}),
    spaces.Box(np.array([0, 3], np.uint8), np.array([9, 255], np.uint8), dtype=np.uint8),
    spaces.Box(-np.inf, 0.1, (), np.float64),
    spaces.MultiBinary([2, 2]),
]


class Blank(gymnasium.Env):
    def __init__(self, observation, action):
        self.observation_space, self.action_space = observation, action

    def reset(self, *, seed=None, options=None):
        return self.observation_space.sample(), {}


def trained(observation, action, activation=nn.Tanh):
    torch.set_num_threads(1)
    kwargs = {"net_arch": [24, 24], "activation_fn": activation, "log_std_init": -1.0}
    model = PPO("MlpPolicy", Blank(observation, action), policy_kwargs=kwargs, seed=1, device="cpu")
    with torch.no_grad():  # at first its answers are all alike
        for parameter in model.policy.action_net.parameters():
            parameter.normal_()
    return model


def observed(space):
    return np.array([spaces.flatten(space, space.sample()) for _ in range(70)], np.float32)


def saved(model, folder, deterministic=True):
    manifest = {
        "name": "blank",
        "campaign": {"name": "blank", "version": 1},
        "spaces": saved_policy.describe(model.observation_space, model.action_space),
        "network": actor_network(model),
        "deterministic": deterministic,
    }
    saved_policy.save(folder, actor_weights(model), manifest, observed(model.observation_space))
    return saved_policy.load(folder)


@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU])
@pytest.mark.parametrize("action", ACTIONS, ids=lambda space: type(space).__name__)
@pytest.mark.parametrize("observation", OBSERVATIONS, ids=lambda space: type(space).__name__)
def test_numpy_answers_as_plain_ppo_for_every_kind_of_space(observation, action, activation, tmp_path):
    model = trained(observation, action, activation)
    policy = saved(model, tmp_path / "p")
    observation.seed(3)
    seen = set()
    for _ in range(60):
        asked = observation.sample()
        expected, _ = model.predict(asked, deterministic=True)
        ours = policy.predict(asked)
        assert action.contains(ours)
        assert np.asarray(ours).shape == np.shape(expected)
        assert np.asarray(ours) == pytest.approx(np.asarray(expected), abs=1e-5)
        seen.add(np.asarray(ours).tobytes())
    assert len(seen) > 1


@pytest.mark.parametrize("action", ACTIONS[2:], ids=lambda space: type(space).__name__)
def test_drawn_answers_are_distributed_as_ppos(action, tmp_path):
    model = trained(OBSERVATIONS[0], action)
    policy = saved(model, tmp_path / "p", deterministic=False)
    asked = np.full((2, 3), 0.5, np.float32)
    policy.reset(0)
    ours = np.array([policy.predict(asked) for _ in range(20_000)], np.float64)
    theirs = model.predict(np.repeat(asked[None], 20_000, axis=0))[0].astype(np.float64)
    spread = np.sqrt(ours.var(axis=0) + theirs.var(axis=0)) / np.sqrt(20_000)
    assert (np.abs(ours.mean(axis=0) - theirs.mean(axis=0)) <= 5 * spread + 1e-6).all()
    assert ours.std(axis=0) == pytest.approx(theirs.std(axis=0), rel=0.05, abs=1e-6)
    assert ours.std() > 0


@pytest.mark.parametrize("space", [*ACTIONS, *OBSERVATIONS, *OTHERS], ids=str)
def test_a_space_is_the_same_after_its_description(space):
    said = json.loads(json.dumps(describe_space(space), allow_nan=False))
    again = build(TypeAdapter(Space).validate_python(said))
    assert again == space
    assert describe_space(again) == describe_space(space)


def test_structured_observations_are_flattened(tmp_path):
    flat = spaces.flatten_space(OTHERS[0])
    model = trained(flat, spaces.Discrete(3))
    weights, network = actor_weights(model), actor_network(model)
    manifest = {"name": "p", "campaign": {"name": "c", "version": 1}, "network": network, "deterministic": True}
    manifest["spaces"] = saved_policy.describe(OTHERS[0], spaces.Discrete(3))
    saved_policy.save(tmp_path / "p", weights, manifest, observed(OTHERS[0]))
    policy = saved_policy.load(tmp_path / "p")
    for _ in range(20):
        asked = OTHERS[0].sample()
        assert policy.predict(asked) == model.predict(spaces.flatten(OTHERS[0], asked), deterministic=True)[0]
    with pytest.raises(PolicyError, match="does not fit"):
        policy.predict({"b": 2})


def test_masks_are_for_choices(tmp_path):
    policy = saved(trained(OBSERVATIONS[0], spaces.Discrete(5)), tmp_path / "p")
    asked = np.zeros((2, 3), np.float32)
    best = policy.predict(asked)
    assert policy.predict(asked, np.arange(5) != best) != best
    policy = saved(trained(OBSERVATIONS[0], ACTIONS[2]), tmp_path / "p")
    policy.predict(asked, np.ones(6, bool))
    with pytest.raises(PolicyError, match="mask"):
        policy.predict(asked, np.zeros(6, bool))


@pytest.mark.parametrize(
    "space", [spaces.Text(3), spaces.MultiDiscrete([[2, 2], [3, 3]]), spaces.Graph(OBSERVATIONS[0], None)]
)
def test_spaces_without_a_flat_form_of_fixed_length_are_refused(space):
    with pytest.raises(PolicyError, match="space"):
        describe_space(space)
