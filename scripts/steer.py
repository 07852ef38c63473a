"""Steer a real campaign: python scripts/steer.py configs/annealing.yaml POLICY runs/real [--resume] [KEY=VALUE ...]."""

import argparse

import rlctl
from rlctl.core.errors import RlctlError
from rlctl.core.json_values import json_text
from rlctl.monitoring.progress import progress

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Run a campaign for real, with a policy in charge.")
    parser.add_argument("config")
    parser.add_argument("policy")
    parser.add_argument("run")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--instance", type=int, default=0)
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args()

    try:
        config = rlctl.load_config(options.config, options.overrides)
        summary = rlctl.steer(
            config, options.policy, options.run, instance=options.instance, resume=options.resume, progress=progress()
        )
        print(json_text(summary, indent=2))
    except RlctlError as error:
        parser.exit(error.exit_code, f"{error}\n")
