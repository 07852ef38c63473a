"""The trained policy that comes with rlctl: whole, with its scores, and the same in plain Stable-Baselines3."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from rlctl.bundle import saved_policy
from rlctl.config.load import load_config
from rlctl.environments.campaign_vector_env import play
from rlctl.plugins.registry import campaign_factory, load_policy

CONFIGS = Path(__file__).parents[2] / "configs"
FOLDER = CONFIGS / "policies" / "annealing-ppo"

# What somebody does who knows only Stable-Baselines3; the policy's class comes with rlctl_agents, which is installed.
PLAIN = """
import json, sys
import numpy as np
from stable_baselines3 import PPO

rows = np.load(sys.argv[2])
actions, _ = PPO.load(sys.argv[1], device="cpu").predict(rows, deterministic=True)
print(json.dumps({"actions": actions.tolist(), "rlctl": "rlctl" in sys.modules}))
"""


def test_plain_stable_baselines3_loads_the_zip_and_answers_the_golden_pairs(tmp_path: Path) -> None:
    policy = saved_policy.load(FOLDER)
    with np.load(FOLDER / "golden.npz") as file:
        pairs = dict(file)
    # Rows as the network reads them: observation, mask, and what only its critic sees.
    hidden = np.full((len(pairs["masks"]), 106 - policy.observation_length - sum(policy.heads)), 0.3)
    np.save(tmp_path / "rows.npy", np.hstack([pairs["observations"], pairs["masks"], hidden]).astype(np.float32))
    command = [sys.executable, "-c", PLAIN, str(FOLDER / "model.zip"), str(tmp_path / "rows.npy")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert not said["rlctl"]
    assert said["actions"] == pairs["actions"].tolist()
    assert len({tuple(row) for row in said["actions"]}) > 10


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
        played = play(factory, capacity, [(instance, policy) for instance in range(40)])
        cost[name] = sum(figures["node_seconds"] for figures in played)
    assert cost["ppo"] < 0.97 * cost["lpt"]
    score = saved_policy.load(CONFIGS / "policies" / "ensemble-paced-ppo").manifest.scores[-1]
    rows = {row["policy"]: row for row in score.rows}
    assert all(row["instances"] == 300 for row in rows.values())
    assert rows["ppo"]["ert_interval"][1] < rows["lpt"]["ert"]
