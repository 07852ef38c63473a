"""Trainings that start as a rule, after the start and in the end: ``python benchmarks/starts.py CONFIG...``.

For each configuration and seed: cost per success of the imitating policy and of the saved one, relative to the rule, on
instances that nothing was trained or chosen on; and the share of decisions in which they differ from the rule.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import rlctl
from rlctl.bundle.saved_policy import read_manifest
from rlctl.config.schema import RuleEntry
from rlctl.evaluation.difference import differing_share
from rlctl.evaluation.rollout import TOGETHER, draw_instances, roll_out
from rlctl.monitoring.progress import Silent
from rlctl.plugins.registry import configured_campaign, load_policy, make_rule

PURPOSE = 11
"""Of the instances, see ``rlctl.evaluation.rollout``."""


def main() -> None:
    """Train, play, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("configs", nargs="+", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--instances", type=int, default=128)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, default=Path("runs/starts"))
    options = parser.parse_args()
    found = []
    for path in options.configs:
        for seed in range(1, options.seeds + 1):
            found.append({"config": path.stem, "seed": seed, **one(path, seed, options)})
            print(json.dumps(found[-1]), flush=True)
    table = Table(title=f"Cost per success over that of the rule, {options.instances} instances for each of the seeds")
    for column in ("config", "rule", "seeds", "after the start", "in the end", "differs: start", "end", "CPU-s"):
        table.add_column(column)
    for name in dict.fromkeys(row["config"] for row in found):
        rows = [row for row in found if row["config"] == name]
        ratios = [interval([row["costs"] for row in rows], who) for who in ("start", "end")]
        shares = [f"{np.median([row['differs'][who] for row in rows]):.0%}" for who in ("start", "end")]
        cpu = f"{np.median([row['cpu_seconds'] for row in rows]):,.0f}"
        table.add_row(name, rows[0]["rule"], str(len(rows)), *ratios, *shares, cpu)
    Console(width=140).print(table)


def one(path: Path, seed: int, options: argparse.Namespace) -> dict[str, object]:
    """Train with a seed, and play."""
    config = rlctl.load_config(path, [f"train.seed={seed}", "train.validation_instances=0", *options.set])
    run = options.out / f"{path.stem}-{seed}"
    saved = rlctl.train(config, run, progress=Silent())
    manifest = read_manifest(saved)
    extra = manifest.model_extra or {}
    entry = RuleEntry.model_validate(
        manifest.residual.model_dump() if manifest.residual else {k: extra["start"][k] for k in ("rule", "parameters")}
    )
    rule = make_rule(entry, entry.rule)
    factory, capacity = configured_campaign(config), config.machine.capacity()
    instances = draw_instances(seed, PURPOSE, options.instances)
    costs: dict[str, list[list[float]]] = {}
    players = {"rule": rule, "end": load_policy(config, str(saved))}
    # One that corrects a rule starts as the rule itself.
    players["start"] = rule if manifest.residual else load_policy(config, str(run / "start"))
    for name, policy in players.items():
        entries = [(policy, instance) for instance in instances]
        parts = [entries[at : at + TOGETHER] for at in range(0, len(entries), TOGETHER)]
        results = [result for part in parts for result in roll_out(factory, capacity, part)]
        costs[name] = [[result.cost, float(result.successes)] for result in results]
    return {
        "rule": entry.rule,
        "costs": costs,
        "differs": {
            name: differing_share(factory, capacity, players[name], rule, instances[:16]) for name in ("start", "end")
        },
        "chosen": extra["chosen"],
        "decisions": extra["decisions"],
        "cpu_seconds": extra["cpu_seconds"],
    }


def interval(costs: list[dict[str, list[list[float]]]], who: str, draws: int = 2000) -> str:
    """Ratio to the rule over all seeds, with its 95 % interval over seeds and instances (paired bootstrap)."""
    rng = np.random.default_rng(np.random.SeedSequence(0))
    theirs, rules = (np.array([np.array(of[name]) for of in costs]) for name in (who, "rule"))

    def ratio(a: np.ndarray, b: np.ndarray) -> float:
        total, base = a.reshape(-1, 2).sum(0), b.reshape(-1, 2).sum(0)
        return float(total[0] / total[1] / (base[0] / base[1]))

    seeds, count = theirs.shape[:2]
    drawn = []
    for _ in range(draws):
        rows = rng.integers(seeds, size=(seeds, 1))
        columns = rng.integers(count, size=(seeds, count))
        drawn.append(ratio(theirs[rows, columns], rules[rows, columns]))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return f"{ratio(theirs, rules):.3f} [{low:.3f}, {high:.3f}]"


if __name__ == "__main__":
    main()
