"""Train a policy: python scripts/train.py configs/annealing.yaml runs/first [--resume] [KEY=VALUE ...]."""

import argparse

import rlctl
from rlctl.core.errors import RlctlError
from rlctl.monitoring.progress import progress

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train a policy on a campaign's twin.")
    parser.add_argument("config")
    parser.add_argument("out")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args()

    try:
        config = rlctl.load_config(options.config, options.overrides)
        print(rlctl.train(config, options.out, resume=options.resume, progress=progress()))
    except RlctlError as error:
        parser.exit(error.exit_code, f"{error}\n")
