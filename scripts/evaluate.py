"""Compare policies: python scripts/evaluate.py configs/annealing.yaml POLICY OTHER ... [--instances N]."""

import argparse

from rich.console import Console

import rlctl
from rlctl.core.errors import RlctlError
from rlctl.monitoring.progress import progress

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Compare policies on the same held-out instances.")
    parser.add_argument("config")
    parser.add_argument("policies", nargs="+", help="costs are relative to that of the first")
    parser.add_argument("--instances", type=int)
    options = parser.parse_args()

    try:
        config = rlctl.load_config(options.config)
        comparison = rlctl.evaluate(config, options.policies, instances=options.instances, progress=progress())
        Console().print(comparison.table())
    except RlctlError as error:
        parser.exit(error.exit_code, f"{error}\n")
