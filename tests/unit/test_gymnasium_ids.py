"""The ids under which Gymnasium makes the campaigns."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

IDS = ("rlctl/BlockCopolymer-v0", "rlctl/MoldableQueue-v0", "rlctl/Ensemble-v0")


@pytest.mark.parametrize("name", IDS)
def test_an_id_plays_a_campaign_and_reset_with_a_seed_repeats_it(name: str) -> None:
    env = gymnasium.make(f"rlctl_envs.gym:{name}")
    first, info = env.reset(seed=3)
    assert env.observation_space.contains(first)
    assert info["action_mask"].dtype == np.bool_
    second, reward, *_ = env.step(env.action_space.sample())
    assert np.isfinite(float(reward))
    assert env.observation_space.contains(second)
    again, _ = env.reset(seed=3)
    np.testing.assert_array_equal(first, again)
    other, _ = env.reset(seed=4)
    assert not np.array_equal(first, other) or name == IDS[0]  # a fresh film looks like any other
    env.close()
