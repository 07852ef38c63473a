"""The ids under which Gymnasium makes the campaigns."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import yaml
from gymnasium.utils.env_checker import check_env

import rlctl_envs

IDS = sorted(name for name in gymnasium.registry if name.startswith("rlctl/"))
CAMPAIGNS = [name for name in IDS if "Film" not in name]


def test_importing_the_package_registers_each_campaign_and_the_film() -> None:
    """All but searches: these run the program of a configuration."""
    folders = {path.parent.name for path in Path(rlctl_envs.__file__).parent.glob("*/factory.py")} - {
        "search",
        "segments",
    }
    assert {gymnasium.spec(name).kwargs["campaign"] for name in CAMPAIGNS} == folders
    assert len(IDS) == len(CAMPAIGNS) + 1


@pytest.mark.parametrize("name", IDS)
def test_it_passes_gymnasiums_checker(name: str) -> None:
    env = gymnasium.make(f"rlctl_envs:{name}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*different from the unwrapped version.*")
        check_env(env.unwrapped, skip_render_check=True)
    env.close()


@pytest.mark.parametrize("name", IDS)
def test_reset_with_a_seed_repeats_an_episode(name: str) -> None:
    env = gymnasium.make(name)
    first, info = env.reset(seed=3)
    assert env.observation_space.contains(first)
    if name in CAMPAIGNS:
        assert info["action_mask"].dtype == np.bool_
    second, reward, *_ = env.step(env.action_space.sample())
    assert np.isfinite(float(reward))
    assert env.observation_space.contains(second)
    again, _ = env.reset(seed=3)
    np.testing.assert_array_equal(first, again)
    other, _ = env.reset(seed=4)
    assert not np.array_equal(first, other) or name != "rlctl/Ensemble-v0"  # a fresh film looks like any other
    env.close()


@pytest.mark.parametrize("mode", [None, "sync"])
@pytest.mark.parametrize("name", IDS)
def test_make_vec_steps_many(name: str, mode: Any) -> None:
    envs = gymnasium.make_vec(name, num_envs=3, vectorization_mode=mode)
    observations, infos = envs.reset(seed=5)
    assert observations in envs.observation_space
    if name in CAMPAIGNS:
        assert infos["action_mask"].shape[0] == 3
    for _ in range(3):
        observations, rewards, *_ = envs.step(envs.action_space.sample())
        assert observations in envs.observation_space
        assert np.isfinite(rewards).all()
    again, _ = envs.reset(seed=5)
    first, _ = envs.reset(seed=5)
    np.testing.assert_array_equal(again, first)
    envs.close()


def test_configurations_name_ids_that_are_registered() -> None:
    for path in (Path(__file__).parents[2] / "configs").glob("*.yaml"):
        campaign = yaml.safe_load(path.read_text()).get("campaign", {})
        if campaign.get("name") == "gymnasium":
            gymnasium.spec(campaign["options"]["id"].rpartition(":")[2])
