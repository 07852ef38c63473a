"""The table of RLScheduler (Zhang et al., SC'20), from logs of your own: see docs/guides/scheduling-benchmark.md.

    python benchmarks/rlscheduler.py --traces FOLDER                  the published cells of the rules, and more rules
    python benchmarks/rlscheduler.py --traces FOLDER --policy POLICY  the same windows with a policy, rule or rule file
    python benchmarks/rlscheduler.py --traces FOLDER --trace lublin_1 --schedule FILE.csv
                                                                      a schedule that another scheduler has made

FOLDER has lublin_1.swf (256 processors; lublin_256.swf of github.com/DIR-LAB/deep-batch-scheduler), lublin_2.swf
(lublin_256_new2.swf), sdsc_sp2.swf (128) or hpc2n.swf (256): what is missing is left out.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rlctl.config.load import load_config
from rlctl.core.errors import RlctlError
from rlctl.core.policy import Policy
from rlctl.evaluation.compare import compare_policies
from rlctl.evaluation.rollout import evaluation_instances
from rlctl.evaluation.statistics import resampled_sums
from rlctl.monitoring.progress import Silent
from rlctl.plugins.registry import configured_campaign, load_policy, policy_factory
from rlctl_agents.rules.ensemble import EnsembleRule
from rlctl_envs.ensemble.orders import SCORES
from rlctl_envs.ensemble.schedule import bounded_slowdown, read_schedule
from rlctl_envs.ensemble.workloads.logged import window
from rlctl_envs.ensemble.workloads.swf import read_swf

CONFIG = Path(__file__).parents[1] / "configs" / "rlscheduler.yaml"
STARTS = (1981, 2756, 4299, 8850, 3316, 2714, 5228, 7762, 4022, 7085)
"""Where the ten windows begin, as Gym's generator with seed 1 draws them; 0 is the first job that ran."""
JOBS = 1024
MODES = PLAIN, FILLED = "next", "next_backfilled"
FREE = "any"


class Trace(NamedTuple):
    """A log: its processors, how many of its jobs count, and the published cells by mode and rule."""

    processors: int
    jobs: int | None
    published: Mapping[str, Mapping[str, float]]


PUBLISHED = ("fifo", "wfp3_fault", "uni_fault", "sjf", "f1", "RL")
TRACES = {
    name: Trace(
        processors,
        jobs,
        {mode: dict(zip(PUBLISHED, cells, strict=True)) for mode, cells in zip(MODES, both, strict=True)},
    )
    for name, processors, jobs, *both in (
        (
            *("lublin_1", 256, None),
            (7273.77, 19753.53, 22274.74, 277.35, 258.37, 254.67),
            (235.82, 133.87, 307.23, 73.31, 75.07, 58.64),
        ),
        (
            *("lublin_2", 256, None),
            (7842.47, 9523.18, 11265.31, 787.89, 698.34, 724.51),
            (247.61, 318.35, 379.59, 91.99, 148.25, 118.79),
        ),
        (
            *("sdsc_sp2", 128, 10_000),
            (1727.54, 3000.88, 1848.45, 2680.55, 1232.06, 466.44),
            (1595.12, 1083.12, 548.01, 2167.84, 1098.22, 397.82),
        ),
        (
            *("hpc2n", 256, 10_000),
            (297.18, 426.99, 609.77, 157.71, 118.01, 117.01),
            (127.38, 97.39, 175.12, 122.04, 71.95, 86.14),
        ),
    )
}


class Faulty(EnsembleRule):
    """WFP3 or UNI as in RLScheduler's code, where a job that waits has the start -1 in the place of the present."""

    def __init__(self, name: str, order: str) -> None:
        super().__init__()
        self.name, self.order = name, order

    def scores(self, state: Any) -> Any:
        """See the class."""
        queue = state.queue
        return SCORES[self.order](-1.0 - queue.submit_s, queue.run_s, queue.ranks, queue.submit_s)


class Smallest(EnsembleRule):
    """Fewest processors first."""

    name = "fewest processors"

    def scores(self, state: Any) -> Any:
        """See the class."""
        return -state.queue.ranks


def rules(mode: str) -> dict[str, Policy]:
    """By their names in the table."""
    found: dict[str, Policy] = {name: policy_factory(name)(None) for name in ("fifo", "sjf", "f1", "wfp3", "uni")}
    if mode == FREE:
        easy = {
            f"easy {order}": policy_factory("easy")({"order": order}) for order in ("fifo", "saf", "f3", "f4", "wfp3")
        }
        return {"sjf": found["sjf"], "lxf": policy_factory("lxf")(None), **easy}
    found |= {f"{name}_fault": Faulty(f"{name}_fault", name) for name in ("wfp3", "uni")}
    return found | {name: policy_factory(name)(None) for name in ("saf", "f2", "f3", "f4")} | {"procs": Smallest()}


def overrides(folder: Path, name: str, mode: str) -> list[str]:
    """What the configuration is changed to for a log."""
    trace = TRACES[name]
    workload = {
        "source": "swf",
        "file": str((folder / f"{name}.swf").resolve()),
        "starts": list(STARTS),
        "tasks": [JOBS, JOBS],
        "most_tasks": JOBS,
        "part": None if trace.jobs is None else [0, trace.jobs],
    }
    return [
        f"campaign.options.workload={json.dumps(workload)}",
        f"campaign.options.rigid={mode}",
        f"machine.cores={trace.processors}",
        f"evaluate.given={list(range(len(STARTS)))}",
    ]


def played(folder: Path, name: str, mode: str, policies: Sequence[str], workers: int) -> dict[str, NDArray[Any]]:
    """Mean bounded slowdown of each window, by policy; of the rules, if no policies are named."""
    config = load_config(CONFIG, overrides(folder, name, mode))
    entries = {each: load_policy(config, each) for each in policies} or rules(mode)
    factory, capacity = configured_campaign(config), config.machine.capacity()
    compared = compare_policies(factory, capacity, entries, evaluation_instances(config), 0, Silent(), workers)
    return {each: np.array([one.cost / one.successes for one in of]) for each, of in compared.rollouts.items()}


def row(trace: str, mode: str, system: str, windows: NDArray[Any]) -> dict[str, Any]:
    """A row of results: the mean over windows with its 95 % interval over windows, and what was published."""
    means = resampled_sums(windows[:, None], seed=0)[:, 0] / len(windows)
    low, high = np.quantile(means, [0.025, 0.975]).tolist()
    target = TRACES[trace].published.get(mode, {}).get(system)
    mean = float(windows.mean())
    return {
        "family": f"rlscheduler {trace}",
        "measure": f"mean bounded slowdown, {mode}",
        "system": system,
        "mean": mean,
        "median": float(np.median(windows)),
        "low": low,
        "high": high,
        "unit": "1",
        "runs": len(windows),
        "target": target,
        "met": None if target is None else abs(mean - target) <= 0.005 + 1e-9,
    }


def scored(folder: Path, name: str, file: Path) -> NDArray[Any]:
    """Mean bounded slowdown of each window of a schedule; ConfigError if it is not possible."""
    trace, schedule = TRACES[name], read_schedule(file)
    jobs = read_swf(folder / f"{name}.swf", as_requested=True)[: trace.jobs]
    windows = [window(jobs, first, JOBS) for first in STARTS]
    return np.array([bounded_slowdown(w, schedule.get(i, {}), trace.processors) for i, w in enumerate(windows)])


def main() -> None:
    """Print the table; write its rows if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", type=Path, required=True, help="folder of the logs")
    parser.add_argument("--trace", choices=TRACES, action="append", help="only this log")
    parser.add_argument("--mode", choices=(PLAIN, FILLED, FREE), action="append", help="only this mode")
    parser.add_argument("--policy", action="append", default=[], help="instead of the rules of the table")
    parser.add_argument("--schedule", type=Path, help="CSV file with the columns window,job,start")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--out", type=Path, help="also write the rows, as JSON")
    options = parser.parse_args()
    there = [name for name in options.trace or TRACES if (options.traces / f"{name}.swf").exists()]
    if not there:
        parser.error(f"{options.traces}: none of {', '.join(f'{n}.swf' for n in options.trace or TRACES)} is there")
    found: list[dict[str, Any]] = []
    print(f"{'log':9} {'mode':16} {'policy':26} {'mean':>10} {'published':>10} {'95 % over windows':>22} {'median':>9}")
    for name in there:
        for mode in [FREE] if options.schedule else options.mode or (PLAIN, FILLED, FREE):
            if options.schedule:
                figures = {options.schedule.name: scored(options.traces, name, options.schedule)}
            else:
                figures = played(options.traces, name, mode, options.policy, options.workers)
            for system, windows in figures.items():
                found.append(one := row(name, mode, system, windows))
                shown = "" if one["target"] is None else f"{one['target']:.2f}{'' if one['met'] else ' !'}"
                print(
                    f"{name:9} {mode:16} {system[-26:]:26} {one['mean']:10.2f} {shown:>10} "
                    f"{f'''[{one['low']:.2f}, {one['high']:.2f}]''':>22} {one['median']:9.2f}",
                    flush=True,
                )
            if (published := TRACES[name].published.get(mode)) is not None:
                print(f"{name:9} {mode:16} {'RLScheduler, as published':26} {'':10} {published['RL']:10.2f}")
    if options.out is not None:
        options.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    try:
        main()
    except RlctlError as error:
        print(f"rlscheduler: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
