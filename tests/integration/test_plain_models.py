"""The file for Stable-Baselines3 is used without rlctl: its own classes, and the environment's own spaces."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import forms
import numpy as np
import pytest
from spaces_of_all_kinds import ACTIONS, OBSERVATIONS

import rlctl
from rlctl.bundle import saved_policy
from rlctl.config.schema import Config
from rlctl.environments.residual import ResidualPolicy

HERE = Path(__file__).parent
CONFIGS = HERE.parents[1] / "configs"
SHORT = {"n_steps": 16, "batch_size": 32, "n_epochs": 1, "net_arch": [8]}
REPLAY = {"learning_starts": 32, "batch_size": 16, "net_arch": [8], "updates_per_decision": 0.25, "buffer_size": 1000}
CLASSES = {"ppo": "PPO", "maskable_ppo": "MaskablePPO", "recurrent_ppo": "RecurrentPPO"}
OWN = "stable_baselines3", "sb3_contrib"

# What a user does who has Stable-Baselines3, and the environment, and no rlctl.
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


ALGORITHMS = ("ppo", "recurrent_ppo", "dqn")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_observations_of_all_kinds(tmp_path: Path, algorithm: str) -> None:
    kinds = list(OBSERVATIONS) if forms.full() else list(OBSERVATIONS)[ALGORITHMS.index(algorithm) :: len(ALGORITHMS)]
    found = check(tmp_path, [(algorithm, f"See-{name}-v0") for name in kinds])
    flat = FLAT | ({"dict", "multidiscrete"} if algorithm == "recurrent_ppo" else set())
    assert {name for name, said in zip(kinds, found, strict=True) if not said["observation"]} == flat & set(kinds)


def test_actions_of_all_kinds(tmp_path: Path) -> None:
    cases = [("ppo", name) for name in ACTIONS]
    cases += [("recurrent_ppo", name) for name in ("choice-from-3", "choices", "numbers")]
    cases += [("maskable_ppo", name) for name in ("choice-from-3", "choices", "one-choice")]
    cases += [("dqn", "choice-from-3"), ("sac", "numbers"), ("td3", "numbers")]
    found = check(tmp_path, [(algorithm, f"Do-{name}-v0") for algorithm, name in cases])
    # Stable-Baselines3 counts from 0: what the environment does not have is there, and never taken.
    assert {name for (_, name), said in zip(cases, found, strict=True) if not said["action"]} == {"choice-from-3"}


# sb3-contrib applies the mask to the weights of the plain model; both need nothing of rlctl.
GOLDEN = """
import json, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("rlctl", "rlctl_envs", "rlctl_agents"):
            raise ImportError(f"{name} is not installed here")

sys.meta_path.insert(0, Blocked())
import numpy as np
import torch
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from stable_baselines3 import PPO

def likely(model, actions, pairs):  # empty slots of tasks are as likely as each other: rounding says which is first
    seen, actions = torch.as_tensor(pairs["observations"]), torch.as_tensor(actions).reshape(len(actions), -1)
    actions = actions if model.action_space.shape else actions[:, 0]
    return model.policy.evaluate_actions(seen, actions, pairs["masks"])[1].detach().numpy()

for folder in sys.argv[1:]:
    path, pairs = f"{folder}/model_plain.zip", np.load(f"{folder}/golden.npz")
    maskable = json.load(open(f"{folder}/manifest.json"))["name"] == "maskable_ppo"
    model = (MaskablePPO if maskable else PPO).load(path, device="cpu")
    own = {"policy_class": MaskableActorCriticPolicy}
    masked = model if maskable else MaskablePPO.load(path, device="cpu", custom_objects=own)
    told = {"observation": list(model.observation_space.shape), "action": str(model.action_space)}
    told["policy"] = type(model.policy).__module__.partition(".")[0]
    answers, _ = masked.predict(pairs["observations"], action_masks=pairs["masks"], deterministic=True)
    told["same"] = bool(np.abs(likely(masked, answers, pairs) - likely(masked, pairs["actions"], pairs)).max() < 1e-5)
    plain, _ = model.predict(pairs["observations"], deterministic=True)
    told["forbidden"] = bool((plain.reshape(len(plain), -1) != pairs["actions"]).any())
    print(json.dumps(told), flush=True)
"""


def golden(folders: list[Path]) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-c", GOLDEN, *map(str, folders)], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


QUEUE = {"name": "ensemble", "options": {}}
SETS = {"name": "ensemble", "options": {"workload": {"tasks": [4, 6]}}}
ATTENTION = {"network": "attention", "attention": {"width": 8}}


@pytest.mark.parametrize(
    ("algorithm", "campaign", "options"),
    [
        ("ppo", QUEUE, {}),
        ("ppo", QUEUE, {"observation_clip": 0.5}),
        ("ppo", SETS, {**ATTENTION, "residual": {"rule": "sjf"}}),
        ("maskable_ppo", SETS, {"network": "attention", "attention": {"width": 8}}),
    ],
)
def test_a_campaigns_actor_alone_is_plain_too(
    tmp_path: Path, algorithm: str, campaign: dict[str, Any], options: dict[str, Any]
) -> None:
    attends = options.get("network") == "attention"
    section = {key: value for key, value in SHORT.items() if not (attends and key == "net_arch")}
    train = {"algorithm": algorithm, "decisions": 64, "num_envs": 2}
    train |= {"validation_instances": 0, "judgement_instances": 0}
    data = {"schema": 1, "seed": 1, "campaign": campaign, "machine": {"nodes": 8, "cores": 1}}
    config = Config.model_validate({**data, "train": {**train, "options": section | options}})
    folder = rlctl.train(config, tmp_path / "run")
    assert {"model.zip", "model_plain.zip"} <= {path.name for path in folder.iterdir()}
    (told,) = golden([folder])
    policy = rlctl.load_policy(config, str(folder))
    network = policy.network if isinstance(policy, ResidualPolicy) else policy
    assert told["same"]
    assert told["policy"] in OWN
    assert told["observation"] == list(network.observation_space.shape)
    assert told["action"] == str(network.action_space)


def test_the_shipped_policies_are_plain_too() -> None:
    folders = sorted(path.parent for path in CONFIGS.glob("policies/*/manifest.json"))
    assert folders
    found = golden(folders)
    for folder, told in zip(folders, found, strict=True):
        assert told["same"], folder
        assert told["policy"] == "stable_baselines3"
    assert any(told["forbidden"] for told in found), "no mask of the golden pairs changes an answer"


# What a user does who knows only Stable-Baselines3; the policy's class comes with rlctl_agents, which is installed.
WHOLE = """
import json, sys
import numpy as np
from stable_baselines3 import PPO

actions, _ = PPO.load(sys.argv[1], device="cpu").predict(np.load(sys.argv[2]), deterministic=True)
print(json.dumps({"actions": actions.tolist(), "rlctl": "rlctl" in sys.modules}))
"""


def test_the_shipped_model_with_its_critic_answers_the_golden_pairs_in_stable_baselines3(tmp_path: Path) -> None:
    shipped = CONFIGS / "policies" / "annealing-ppo"
    policy = saved_policy.load(shipped)
    with np.load(shipped / "golden.npz") as file:
        pairs = dict(file)
    # Rows as the network reads them: observation, mask, and what only its critic sees.
    hidden = np.full((len(pairs["masks"]), 106 - policy.observation_length - sum(policy.heads)), 0.3)
    np.save(tmp_path / "rows.npy", np.hstack([pairs["observations"], pairs["masks"], hidden]).astype(np.float32))
    command = [sys.executable, "-c", WHOLE, str(shipped / "model.zip"), str(tmp_path / "rows.npy")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    answered = json.loads(done.stdout)
    assert not answered["rlctl"]
    assert answered["actions"] == pairs["actions"].tolist()
    assert len({tuple(row) for row in answered["actions"]}) > 10
