"""Measures what the twin has to know of this machine: ``python -m rlctl_envs.ensemble.program.calibrate_start_up 1 2``.

It runs programs without work on so many ranks, by turns, and prints the medians of their times, as
``campaign.options.program.start_up_s`` wants them. Other kinds than ``paced`` may take longer to begin: see ``--kind``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rlctl_envs.block_copolymer.calibrate import timed_run
from rlctl_envs.ensemble.program.kernels import units_per_second


def start_up(ranks: Sequence[int], kind: str = "paced", times: int = 5) -> dict[int, float]:
    """Seconds that a program takes which has nothing to do, by its ranks."""
    took: dict[int, list[float]] = {number: [] for number in ranks}
    with tempfile.TemporaryDirectory(prefix="rlctl-calibrate-") as folder:
        task = {"work_s": 1e-6, "serial": 0.1, "kappa": 0.0, "gain": 1.0, "memory_mb": 0.0, "children": []}
        task |= {"traps": [], "quality": 1.0, "slowness": [1.0], "luck": [1.0]}
        rates = units_per_second((kind,), 0.05)
        jobs = {"seed": 0, "noise": 0.0, "failures_per_rank_s": 0.0, "units_per_second": rates, "tasks": [task]}
        (Path(folder) / "jobs.json").write_text(json.dumps(jobs))
        arguments = ["--jobs=jobs.json", "--task=0", f"--kind={kind}", "--result=r.json"]
        for _ in range(times):
            for number in ranks:
                took[number].append(timed_run(number, "rlctl_envs.ensemble.program", arguments, Path(folder)))
    return {number: round(statistics.median(values), 3) for number, values in took.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Start-up times of the programs of ensembles, on this machine.")
    parser.add_argument("ranks", type=int, nargs="+")
    parser.add_argument("--kind", default="paced", choices=["paced", "compute", "communication", "memory", "film"])
    options = parser.parse_args()
    print(f"start_up_s: {start_up(options.ranks, options.kind)}")
