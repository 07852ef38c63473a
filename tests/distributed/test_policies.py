"""What actors compute in NumPy is what the model computes in PyTorch."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib import MaskablePPO, RecurrentPPO
from stable_baselines3 import DQN, PPO, SAC, TD3

from rlctl.bundle.manifest import Network
from rlctl.bundle.policy_network import PolicyNetwork, weight_shapes
from rlctl.distributed.actor.numpy_policies import ActorPolicy
from rlctl.distributed.comm.transition_spec import TransitionSpec
from rlctl_agents.policy_export import policy_spec, policy_weights
from rlctl_agents.ppo.networks import PrivilegedPolicy
from rlctl_agents.vec_env import RemoteEnvSpec

SEEN = spaces.Box(-np.inf, np.inf, (5,), np.float32)
BOX = spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 7.0], np.float32))


def env(action, observation=SEEN, n_mask=0, n_privileged=0, mask_in_row=False):
    layout = TransitionSpec(int(spaces.flatdim(observation)), n_mask, n_privileged, 1)
    return RemoteEnvSpec(layout, observation, action, mask_in_row)


def acting(model):
    """The NumPy policy, with weights that are far from the initial ones."""
    with torch.no_grad():
        for parameter in model.policy.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    layout = model.get_env().layout
    policy = ActorPolicy(policy_spec(model), layout, model.action_space)
    flat = policy_weights(model)
    assert flat.shape == (policy.length,)
    policy.load(flat)
    return policy


def rows(count=50, width=5, seed=0):
    return np.random.default_rng(seed).normal(size=(count, width)).astype("f4")


def ask(policy, seen, **options):
    return policy.act(seen, policy.initial_state(len(seen)), np.random.default_rng(1), **options)


@pytest.mark.parametrize(
    "action", [spaces.Discrete(4), spaces.MultiDiscrete([3, 2, 5]), spaces.MultiBinary(3), BOX], ids=str
)
def test_ppo_gives_drawn_actions_the_probabilities_that_the_model_gives(action):
    model = PPO("MlpPolicy", env(action), seed=1)
    seen = rows()
    answer = ask(acting(model), seen)
    stored = torch.tensor(answer.buffer_actions)
    _, log_probs, _ = model.policy.evaluate_actions(
        torch.tensor(seen), stored.long().flatten() if stored.shape[1] == 1 else stored
    )
    assert answer.log_probs == pytest.approx(log_probs.detach().numpy(), abs=1e-5)
    if isinstance(action, spaces.Box):
        assert np.array_equal(answer.actions, np.clip(answer.buffer_actions, action.low, action.high))


def test_masked_rows_with_privileged_quantities_are_read_as_the_model_reads_them():
    space = spaces.MultiDiscrete([4, 3])
    seen = rows(width=5 + 7 + 2)
    masks = np.random.default_rng(2).random((50, 7)) < 0.5
    masks[:, [1, 5]] = True
    seen[:, 5:12] = masks
    kwargs = {"n_obs": 5, "n_mask": 7, "net_arch": [16], "observation_clip": 1.0}
    model = PPO(PrivilegedPolicy, env(space, n_mask=7, n_privileged=2, mask_in_row=True), policy_kwargs=kwargs, seed=1)
    policy = acting(model)
    for at_random in (False, True):
        answer = ask(policy, seen, at_random=at_random)
        assert masks[:, :4][np.arange(50), answer.actions[:, 0]].all()
        assert masks[:, 4:][np.arange(50), answer.actions[:, 1]].all()
    answer = ask(policy, seen)
    _, log_probs, _ = model.policy.evaluate_actions(torch.tensor(seen), torch.tensor(answer.buffer_actions))
    assert answer.log_probs == pytest.approx(log_probs.detach().numpy(), abs=1e-5)


def test_maskable_ppo():
    model = MaskablePPO("MlpPolicy", env(spaces.Discrete(4), n_mask=4), seed=1)
    masks = np.random.default_rng(2).random((50, 4)) < 0.5
    masks[:, 2] = True
    answer = ask(acting(model), np.concatenate([rows(), masks], axis=1, dtype=np.float32))
    assert masks[np.arange(50), answer.actions[:, 0]].all()
    actions = torch.tensor(answer.actions[:, 0])
    _, log_probs, _ = model.policy.evaluate_actions(torch.tensor(rows()), actions, action_masks=masks)
    assert answer.log_probs == pytest.approx(log_probs.detach().numpy(), abs=1e-5)


def test_sac():
    model = SAC("MlpPolicy", env(BOX), seed=1, policy_kwargs={"net_arch": [16, 16]}, buffer_size=10)
    policy, seen = acting(model), rows()
    answer = ask(policy, seen)
    mean, log_std, _ = model.actor.get_action_dist_params(torch.tensor(seen))
    distribution = model.actor.action_dist.proba_distribution(mean, log_std)
    log_probs = distribution.log_prob(torch.tensor(answer.buffer_actions)).detach().numpy()
    inside = np.abs(answer.buffer_actions).max(axis=1) < 0.99  # the inverse of the tangent is inaccurate at the rim
    assert inside.sum() > 10
    assert answer.log_probs[inside] == pytest.approx(log_probs[inside], abs=2e-3)
    assert answer.actions == pytest.approx(model.policy.unscale_action(answer.buffer_actions), abs=1e-5)
    drawn = ask(policy, np.repeat(seen[:1], 4000, axis=0)).buffer_actions
    expected = torch.tanh(mean[0] + torch.exp(log_std[0]) * torch.randn(100_000, 2)).mean(0).detach().numpy()
    assert drawn.mean(axis=0) == pytest.approx(expected, abs=0.06)


def test_td3():
    model = TD3("MlpPolicy", env(BOX), seed=1, policy_kwargs={"net_arch": [16]}, buffer_size=10)
    policy, seen = acting(model), rows()
    expected = model.predict(seen, deterministic=True)[0]
    assert ask(policy, seen).actions == pytest.approx(expected, abs=1e-5)
    noisy = ask(policy, np.repeat(seen[:1], 4000, axis=0), exploration=0.05).buffer_actions
    still = ask(policy, seen[:1]).buffer_actions[0]
    free = np.abs(still) < 0.8
    assert noisy.std(axis=0)[free] == pytest.approx(0.05, rel=0.1)
    assert np.abs(noisy).max() <= 1.0


def test_dqn():
    model = DQN("MlpPolicy", env(spaces.Discrete(4)), seed=1, buffer_size=10)
    policy, seen = acting(model), rows()
    best = model.predict(seen, deterministic=True)[0]
    assert np.array_equal(ask(policy, seen).actions[:, 0], best)
    # Each environment has a coin of its own.
    many = ask(policy, np.repeat(seen[:1], 4000, axis=0), exploration=0.4).actions[:, 0]
    assert (many != best[0]).mean() == pytest.approx(0.4 * 3 / 4, abs=0.04)


def test_drawn_actions_are_as_frequent_as_they_are_probable():
    model = PPO("MlpPolicy", env(spaces.Discrete(4)), seed=1)
    policy = acting(model)
    drawn = ask(policy, np.repeat(rows(1), 20_000, axis=0)).actions[:, 0]
    probabilities = model.policy.get_distribution(torch.tensor(rows(1))).distribution.probs[0].detach().numpy()
    assert np.bincount(drawn, minlength=4) / 20_000 == pytest.approx(probabilities, abs=0.015)


def test_recurrent_ppo_remembers_as_the_model_does():
    kwargs = {"lstm_hidden_size": 8, "net_arch": [16]}
    model = RecurrentPPO("MlpLstmPolicy", env(spaces.Discrete(3)), seed=1, policy_kwargs=kwargs)
    policy = acting(model)
    random = np.random.default_rng(0)
    state, theirs = policy.initial_state(6), None
    starts = np.ones(6, bool)
    for _ in range(12):
        seen = random.normal(size=(6, 5)).astype("f4")
        state[starts] = 0.0
        outputs, state = policy.outputs(seen, state)
        expected, theirs = model.predict(seen, theirs, starts, deterministic=True)
        assert np.array_equal(outputs.argmax(axis=1), expected)
        assert state[:, :8] == pytest.approx(theirs[0][0], abs=1e-5)
        assert state[:, 8:] == pytest.approx(theirs[1][0], abs=1e-5)
        starts = random.random(6) < 0.3


def test_a_memory_does_not_overflow():
    network = Network(hidden=[], lstm=3)
    weights = {name: np.full(shape, 500.0, np.float32) for name, shape in weight_shapes(network, 2, 1, False).items()}
    with np.errstate(all="raise"):
        outputs, state = PolicyNetwork(network, weights)(
            np.full((1, 2), 500.0, np.float32), np.zeros((1, 6), np.float32)
        )
    assert np.isfinite(outputs).all()
    assert np.isfinite(state).all()


def test_weights_of_other_shapes_are_refused():
    model = PPO("MlpPolicy", env(BOX), seed=1)
    policy = ActorPolicy(policy_spec(model), model.get_env().layout, spaces.Box(-1.0, 1.0, (3,)))
    with pytest.raises(ValueError, match="broadcast"):
        policy.load(policy_weights(model))
