"""The file for Stable-Baselines3 is used without rlctl: its own classes, and the environment's own spaces."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from spaces_of_all_kinds import ACTIONS, OBSERVATIONS

import rlctl
from rlctl.config import Config

HERE = Path(__file__).parent
SHORT = {"n_steps": 16, "batch_size": 32, "n_epochs": 1, "net_arch": [8]}
REPLAY = {"learning_starts": 32, "batch_size": 16, "net_arch": [8], "updates_per_decision": 0.25, "buffer_size": 1000}
CLASSES = {"ppo": "PPO", "maskable_ppo": "MaskablePPO", "recurrent_ppo": "RecurrentPPO"}
OWN = "stable_baselines3", "sb3_contrib"

# What somebody does who has Stable-Baselines3, and the environment, and no rlctl.
ALONE = """
import importlib, json, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("rlctl", "rlctl_envs", "rlctl_agents"):
            raise ImportError(f"{name} is not installed here")

sys.meta_path.insert(0, Blocked())
import gymnasium, sb3_contrib, stable_baselines3
from stable_baselines3.common.evaluation import evaluate_policy

for module in sys.argv[1:]:
    importlib.import_module(module)
for line in sys.stdin:
    path, name, game = json.loads(line)
    kind = getattr(stable_baselines3, name, None) or getattr(sb3_contrib, name)
    model, env = kind.load(path, device="cpu"), gymnasium.make(game)
    said = {
        "policy": type(model.policy).__module__.partition(".")[0],
        "observation": bool(model.observation_space == env.observation_space),
        "action": bool(model.action_space == env.action_space),
        "decisions": model.num_timesteps,
    }
    try:
        if not said["observation"]:
            env = gymnasium.wrappers.FlattenObservation(env)
        said["return"] = evaluate_policy(model, env, n_eval_episodes=2, warn=False)[0]
        if said["action"] and name != "RecurrentPPO" and not game.startswith(("See-picture", "See-matrix")):
            model = kind.load(path, env=env, device="cpu")
            model.learn(32, **({"use_masking": False} if name == "MaskablePPO" else {}))
    except Exception as error:
        said["error"] = f"{type(error).__name__}: {error}"
    print(json.dumps(said), flush=True)
"""


def train(folder: Path, algorithm: str, game: str, **options: Any) -> Path:
    options = (REPLAY if algorithm in ("sac", "td3", "dqn") else SHORT) | options
    train = {"algorithm": algorithm, "decisions": 128, "num_envs": 2, "validation_instances": 0, "options": options}
    campaign = {"name": "gymnasium", "options": {"id": game, "module": "spaces_of_all_kinds"}}
    config = Config.model_validate({"schema": 1, "seed": 1, "campaign": campaign, "train": train})
    return rlctl.train(config, folder / f"{algorithm}-{game}")


def alone(asked: list[tuple[str, str, str]]) -> list[dict[str, Any]]:
    lines = "".join(f"{json.dumps(one)}\n" for one in asked)
    done = subprocess.run(
        [sys.executable, "-c", ALONE, "spaces_of_all_kinds"],
        input=lines,
        env={**os.environ, "PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def check(tmp_path: Path, cases: list[tuple[str, str]]) -> list[dict[str, Any]]:
    asked = []
    for algorithm, game in cases:
        folder = train(tmp_path, algorithm, game)
        assert not (folder / "model_plain.zip").exists()
        asked.append((str(folder / "model.zip"), CLASSES.get(algorithm, algorithm.upper()), game))
    found = alone(asked)
    for case, said in zip(cases, found, strict=True):
        assert "error" not in said, (case, said)
        assert said["policy"] in OWN, case
        assert said["decisions"] >= 128
    return found


def test_every_algorithm_leaves_a_model_of_the_environments_own_spaces(tmp_path: Path) -> None:
    cases = [(a, "Acrobot-v1") for a in ("ppo", "maskable_ppo", "recurrent_ppo", "dqn")]
    found = check(tmp_path, [*cases, ("sac", "Pendulum-v1"), ("td3", "Pendulum-v1"), ("ppo", "Pendulum-v1")])
    assert all(said["observation"] and said["action"] for said in found)


FLAT = {"nested", "dict-with-picture", "tuple", "discrete-from-2", "number"}
"""What Stable-Baselines3 itself cannot read; the wrapper that the documentation names makes it readable."""


@pytest.mark.parametrize("algorithm", ["ppo", "recurrent_ppo", "dqn"])
def test_observations_of_all_kinds(tmp_path: Path, algorithm: str) -> None:
    found = check(tmp_path, [(algorithm, f"See-{name}-v0") for name in OBSERVATIONS])
    flat = FLAT | ({"dict", "multidiscrete"} if algorithm == "recurrent_ppo" else set())
    assert {name for name, said in zip(OBSERVATIONS, found, strict=True) if not said["observation"]} == flat


def test_actions_of_all_kinds(tmp_path: Path) -> None:
    cases = [("ppo", name) for name in ACTIONS]
    cases += [("recurrent_ppo", name) for name in ("choice-from-3", "choices", "numbers")]
    cases += [("maskable_ppo", name) for name in ("choice-from-3", "choices", "one-choice")]
    cases += [("dqn", "choice-from-3"), ("sac", "numbers"), ("td3", "numbers")]
    found = check(tmp_path, [(algorithm, f"Do-{name}-v0") for algorithm, name in cases])
    # Stable-Baselines3 counts from 0: what the environment does not have is there, and never taken.
    assert {name for (_, name), said in zip(cases, found, strict=True) if not said["action"]} == {"choice-from-3"}
