"""The trained policy that comes with rlctl: whole, with its scores, and the same in plain Stable-Baselines3."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rlctl.bundle import saved_policy

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
    assert set(rows) == {"ppo", "annealing_posterior", "feedback"}
    assert all(row["instances"] == 256 for row in rows.values())
    assert rows["ppo"]["ert_interval"][1] < rows["feedback"]["ert_interval"][0]
