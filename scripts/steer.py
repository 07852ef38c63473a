"""Steer a real campaign: python scripts/steer.py configs/annealing.yaml POLICY runs/real [--resume]."""

import argparse

import rlctl
from rlctl.core.json_values import json_text
from rlctl.monitoring.progress import progress

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Run a campaign for real, with a policy in charge.")
    parser.add_argument("config")
    parser.add_argument("policy")
    parser.add_argument("run")
    parser.add_argument("--instance", type=int, default=0)
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args()

    config = rlctl.load_config(options.config)
    summary = rlctl.steer(
        config, options.policy, options.run, instance=options.instance, resume=options.resume, progress=progress()
    )
    print(json_text(summary, indent=2))
