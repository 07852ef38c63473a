"""The trained policy that comes with rlctl: whole, with its scores, and the same in plain Stable-Baselines3."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rlctl.bundle import saved_policy
from rlctl.config.load import load_config
from rlctl.environments.twin_rollouts import rollout_on_twin
from rlctl.plugins.registry import campaign_factory, load_policy

CONFIGS = Path(__file__).parents[2] / "configs"
FOLDER = CONFIGS / "policies" / "annealing-ppo"


def test_it_tells_what_it_saw_and_how_it_did_against_whom() -> None:
    policy = saved_policy.load(FOLDER)
    figures = policy.manifest.observations
    assert figures.count >= 2048
    with np.load(FOLDER / "golden.npz") as pairs:
        observations = pairs["observations"]
    low, high = np.array(figures.min), np.array(figures.max)
    assert ((observations >= low) & (observations <= high)).all()
    assert (np.array(figures.std) > 0).sum() > 40
    score = policy.manifest.scores[-1]
    rows = {row["policy"]: row for row in score.rows}
    assert set(rows) == {"ppo", "feedback"}
    assert all(row["instances"] == 256 for row in rows.values())
    assert rows["ppo"]["ert_interval"][1] < rows["feedback"]["ert_interval"][0]


def test_the_one_for_an_ensemble_plays_it_as_well_as_its_score_says() -> None:
    config = load_config(CONFIGS / "ensemble_paced.yaml")
    policies = {name: load_policy(config, name) for name in ("ppo", "lpt")}
    factory, capacity = campaign_factory("ensemble", config.campaign.options), config.machine.capacity()
    cost = {}
    for name, policy in policies.items():
        played = rollout_on_twin(factory, capacity, [(instance, policy) for instance in range(40)])
        cost[name] = sum(figures["node_seconds"] for figures in played)
    assert cost["ppo"] < 0.97 * cost["lpt"]
    score = saved_policy.load(CONFIGS / "policies" / "ensemble-paced-ppo").manifest.scores[-1]
    rows = {row["policy"]: row for row in score.rows}
    assert all(row["instances"] == 300 for row in rows.values())
    assert rows["ppo"]["ert_interval"][1] < rows["lpt"]["ert"]
