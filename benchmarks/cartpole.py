"""Stable-Baselines3's own PPO on CartPole, as a user would call it; ``benchmarks/distributed.py`` starts it.

``python cartpole.py DECISIONS SEED OPTIONS`` with rlctl's options of PPO as JSON; prints a line of JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

ENVIRONMENTS, EPISODES = 8, 20


def main() -> None:
    """Train, then play."""
    decisions, seed, options = int(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
    torch.set_num_threads(1)
    rate, last = options["learning_rate"], 0.05
    env = make_vec_env("CartPole-v1", ENVIRONMENTS, seed=seed)
    began_s, worked_s = time.monotonic(), time.process_time()
    model = PPO(
        "MlpPolicy",
        env,
        learning_rate=lambda left: rate * (last + (1.0 - last) * left),
        n_steps=options["n_steps"],
        batch_size=options["batch_size"],
        n_epochs=options["n_epochs"],
        gamma=options["gamma"],
        gae_lambda=options["gae_lambda"],
        ent_coef=options["ent_coef"],
        policy_kwargs={"net_arch": options["net_arch"]},
        seed=seed,
        device="cpu",
    )
    model.learn(decisions)
    found = {"wall_s": time.monotonic() - began_s, "cpu_s": time.process_time() - worked_s}
    found["score"] = float(evaluate_policy(model, env, EPISODES)[0])
    print(json.dumps(found))


if __name__ == "__main__":
    main()
