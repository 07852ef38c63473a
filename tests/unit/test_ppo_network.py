import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.logger import Logger

from rlctl.bundle import saved_policy
from rlctl.core.campaign import Decision
from rlctl_agents.bundle_export import check_same_answers
from rlctl_agents.policy_export import actor_network, actor_weights
from rlctl_agents.ppo.networks import PrivilegedPolicy
from rlctl_agents.row_networks import MaskedHeads

N_OBS, HEADS, N_PRIVILEGED = 6, (4, 3, 2), 5
N_MASK = sum(HEADS)
BIAS = [0.0] * 7 + [4.0, 0.0]


class Blank(gymnasium.Env):
    observation_space = spaces.Box(-np.inf, np.inf, (N_OBS + N_MASK + N_PRIVILEGED,), np.float32)
    action_space = spaces.MultiDiscrete(HEADS)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        row = self.np_random.normal(size=self.observation_space.shape).astype(np.float32)
        row[N_OBS : N_OBS + N_MASK] = 1.0
        return row, {}

    def step(self, action):
        return self.reset()[0], float(action[0]), bool(self.np_random.random() < 0.1), False, {}


@pytest.fixture
def model():
    torch.set_num_threads(1)
    kwargs = {"n_obs": N_OBS, "n_mask": N_MASK, "net_arch": [32, 32], "logit_bias": BIAS}
    model = PPO(PrivilegedPolicy, Blank(), n_steps=32, batch_size=32, n_epochs=2, policy_kwargs=kwargs, seed=0)
    model.set_logger(Logger(None, []))  # its own would leave a folder in the system's temporary one
    return model


def rows(count, seed=0):
    random = np.random.default_rng(seed)
    mask = random.random((count, N_MASK)) < 0.5
    mask[:, [0, 4, 7]] = True
    parts = [random.normal(size=(count, N_OBS)), mask, random.normal(size=(count, N_PRIVILEGED))]
    return torch.tensor(np.concatenate(parts, axis=1), dtype=torch.float32), torch.tensor(mask)


def observed():
    x, mask = rows(80)
    return x[:, :N_OBS].numpy(), mask.numpy()


def manifest(model):
    return {
        "name": "blank",
        "campaign": {"name": "blank", "version": 1},
        "spaces": saved_policy.describe(spaces.Box(-np.inf, np.inf, (N_OBS,), np.float32), Blank.action_space),
        "network": actor_network(model),
        "deterministic": True,
    }


def test_masked_choices_have_probability_zero_and_the_rest_sums_to_one(model):
    x, mask = rows(200)
    heads = model.policy.get_distribution(x).log_probs
    for probability, allowed in zip((part.exp() for part in heads), mask.split(HEADS, dim=1), strict=True):
        assert (probability[~allowed] == 0).all()
        assert torch.allclose(probability.sum(1), torch.ones(200))
    actions, _, log_prob = model.policy(x)
    assert all(mask[:, start:][torch.arange(200), actions[:, head]].all() for head, start in enumerate((0, 4, 7)))
    assert torch.isfinite(log_prob).all()


def test_the_distribution_is_torchs_own_on_the_allowed_choices():
    logits, mask = torch.randn(50, N_MASK), rows(50)[1]
    ours = MaskedHeads(HEADS).proba_distribution(logits, mask.float())
    theirs = [
        torch.distributions.Categorical(logits=part.masked_fill(~allowed, -1e8))
        for part, allowed in zip(logits.split(HEADS, 1), mask.split(HEADS, 1), strict=True)
    ]
    actions = ours.sample()
    expected = sum(head.log_prob(column) for head, column in zip(theirs, actions.T, strict=True))
    assert torch.allclose(ours.log_prob(actions), expected, atol=1e-5)
    assert torch.allclose(ours.entropy(), sum(head.entropy() for head in theirs), atol=1e-5)


def test_samples_follow_the_probabilities():
    torch.manual_seed(0)
    logits, mask = torch.randn(1, N_MASK).repeat(20_000, 1), torch.ones(20_000, N_MASK)
    heads = MaskedHeads(HEADS).proba_distribution(logits, mask)
    share = torch.bincount(heads.sample()[:, 0], minlength=4) / 20_000
    assert torch.allclose(share, heads.log_probs[0][0].exp(), atol=0.02)


def test_gradients_are_finite_even_where_only_one_choice_is_allowed(model):
    x, _ = rows(16)
    x[:, N_OBS : N_OBS + N_MASK] = 0.0
    x[:, [N_OBS, N_OBS + 4, N_OBS + 7]] = 1.0
    values, log_prob, entropy = model.policy.evaluate_actions(x, torch.zeros(16, 3))
    assert torch.allclose(log_prob, torch.zeros(16))
    assert torch.allclose(entropy, torch.zeros(16))
    (values.sum() + log_prob.sum() + entropy.sum()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.policy.parameters() if p.grad is not None)


def test_the_critic_sees_the_privileged_part_and_the_actor_does_not(model):
    x, _ = rows(20)
    other = x.clone()
    other[:, N_OBS + N_MASK :] += 1.0
    policy = model.policy
    for a, b in zip(policy.get_distribution(x).log_probs, policy.get_distribution(other).log_probs, strict=True):
        assert torch.equal(a, b)
    assert not torch.isclose(policy.predict_values(x), policy.predict_values(other)).any()
    assert torch.equal(policy.predict_values(x), policy(x)[1])


def test_the_initial_logits_are_the_given_biases_up_to_the_small_first_weights(model):
    x, _ = rows(50)
    x[:, N_OBS : N_OBS + N_MASK] = 1.0
    give_up = model.policy.get_distribution(x).log_probs[2].exp()[:, 1].detach()
    assert give_up.mean() == pytest.approx(1 / (1 + np.exp(4)), rel=0.1)


def test_numpy_answers_as_stable_baselines3_does_after_learning(model, tmp_path):
    model.learn(128)
    saved_policy.save(tmp_path / "p", actor_weights(model), manifest(model), *observed())
    policy = saved_policy.load(tmp_path / "p")
    x, mask = rows(300)
    expected, _ = model.predict(x.numpy(), deterministic=True)
    ours = [
        policy.act(Decision("", 0.0, {}, row[:N_OBS], allowed))
        for row, allowed in zip(x.numpy(), mask.numpy(), strict=True)
    ]
    assert np.array_equal(ours, expected)
    check_same_answers(model, policy)


def test_a_policy_that_answers_otherwise_is_noticed(model, tmp_path):
    weights = actor_weights(model)
    weights["2.bias"] = weights["2.bias"][::-1].copy()
    saved_policy.save(tmp_path / "p", weights, manifest(model), *observed())
    with pytest.raises(RuntimeError, match=r"PPO\.predict"):
        check_same_answers(model, saved_policy.load(tmp_path / "p"))


def test_plain_ppo_loads_and_goes_on_learning(model, tmp_path):
    model.learn(64)
    model.save(tmp_path / "model.zip")
    loaded = PPO.load(tmp_path / "model.zip", env=Blank())
    x, _ = rows(64)
    assert np.array_equal(
        loaded.predict(x.numpy(), deterministic=True)[0], model.predict(x.numpy(), deterministic=True)[0]
    )
    loaded.set_logger(Logger(None, []))
    loaded.learn(64, reset_num_timesteps=False)
    assert loaded.num_timesteps == 128
