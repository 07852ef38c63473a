"""V-trace: with equal policies what Stable-Baselines3 computes; with unequal ones what the paper defines."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.buffers import RolloutBuffer

from rlctl_agents.on_policy.vtrace import vtrace

ROW = spaces.Box(-1, 1, (1,), np.float32)


def draw(random, steps, count):
    values = random.normal(size=(steps, count)).astype("f4")
    rewards = random.normal(size=(steps, count)).astype("f4")
    terminated = random.random((steps, count)) < 0.15
    truncated = (random.random((steps, count)) < 0.15) & ~terminated
    last, cut = (random.normal(size=shape).astype("f4") for shape in (count, (steps, count)))
    return values, rewards, terminated, truncated, last, cut


def following(values, truncated, last, cut):
    after = np.concatenate([values[1:], last[None]])
    return np.where(truncated, cut, after)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    steps=st.integers(1, 40),
    count=st.integers(1, 4),
    decay=st.sampled_from([0.0, 0.9, 1.0]),
)
def test_with_equal_policies_it_is_stable_baselines3s_gae(seed, steps, count, decay):
    random, gamma = np.random.default_rng(seed), 0.97
    values, rewards, terminated, truncated, last, cut = draw(random, steps, count)
    done = terminated | truncated
    buffer = RolloutBuffer(steps, ROW, spaces.Discrete(2), "cpu", decay, gamma, count)
    start = np.zeros(count)
    for t in range(steps):
        # As OnPolicyAlgorithm.collect_rollouts has it where the time limit cut an episode off.
        reward = rewards[t] + gamma * cut[t] * truncated[t]
        buffer.add(
            np.zeros((count, 1)), np.zeros((count, 1)), reward, start, torch.tensor(values[t]), torch.zeros(count)
        )
        start = done[t].astype("f4")
    buffer.compute_returns_and_advantage(torch.tensor(last), done[-1])

    goes_on = ~done
    goes_on[-1] = False
    discounts = (gamma * ~terminated).astype("f4")
    after = following(values, truncated, last, cut)
    targets, advantages = vtrace(np.zeros_like(values), values, after, rewards, discounts, goes_on, decay)
    assert advantages == pytest.approx(buffer.advantages, abs=1e-5)
    assert targets == pytest.approx(buffer.returns, abs=1e-5)


def by_definition(ratios, values, after, rewards, discounts, goes_on, decay, rho, c):
    """Equation 1 of the paper, as a double sum."""
    steps = len(values)
    out = np.zeros(steps)
    for s in range(steps):
        factor = 1.0
        for t in range(s, steps):
            delta = min(rho, ratios[t]) * (rewards[t] + discounts[t] * after[t] - values[t])
            out[s] += factor * delta
            if not goes_on[t]:
                break
            factor *= discounts[t] * decay * min(c, ratios[t])
    return values + out


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    steps=st.integers(1, 20),
    rho=st.sampled_from([0.5, 1.0, 3.0]),
    c=st.sampled_from([0.5, 1.0]),
)
def test_with_unequal_policies_and_durations_it_is_what_the_paper_defines(seed, steps, rho, c):
    random = np.random.default_rng(seed)
    values, rewards, terminated, truncated, last, cut = draw(random, steps, 1)
    log_ratios = random.normal(size=(steps, 1)).astype("f4")
    discounts = (0.9 ** random.exponential(size=(steps, 1)) * ~terminated).astype("f4")
    goes_on = ~(terminated | truncated)
    goes_on[-1] = False
    after = following(values, truncated, last, cut)
    targets, advantages = vtrace(log_ratios, values, after, rewards, discounts, goes_on, 0.95, rho, c)
    flat = (np.exp(log_ratios), values, after, rewards, discounts, goes_on)
    expected = by_definition(*(part[:, 0] for part in flat), 0.95, rho, c)
    assert targets[:, 0] == pytest.approx(expected, abs=1e-4)
    assert advantages == pytest.approx(targets - values, abs=1e-5)
