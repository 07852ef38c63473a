"""How long the real program takes: times it as real processes and fits the twin's model of duration.

    python -m rlctl_envs.block_copolymer.calibrate --grids 256,512 --ranks 1,2 --steps 40,80,160 --json calibration.json

The model is duration = (start_up[ranks] + steps * per_step[grid][ranks]) * exp(scatter * normal), seen from outside:
from before the process is started until it has ended, launcher included. Time it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from rlctl.core.errors import LaunchError, RlctlError
from rlctl.system.mpi import clean_environment, mpiexec_command
from rlctl_envs.block_copolymer.material import Material

PROGRAM = "rlctl_envs.block_copolymer.simulate"
TEMPERATURE = 1.4


@dataclass(frozen=True, slots=True)
class Timing:
    """One run of the program: its duration from outside, and of it the seconds that it computed."""

    grid: int
    ranks: int
    steps: int
    duration_s: float
    compute_s: float


@dataclass(frozen=True, slots=True)
class Duration:
    """The fitted model of one grid: seconds by ranks, and the standard deviation of the logarithm."""

    grid: int
    start_up_s: Mapping[int, float]
    step_s: Mapping[int, float]
    scatter: float

    def seconds(self, steps: int, ranks: int) -> float:
        """Expected duration of a segment."""
        return self.start_up_s[ranks] + steps * self.step_s[ranks]

    def to_json(self) -> dict[str, Any]:
        """As the twin's options want it."""
        return {
            "grid": self.grid,
            "start_up_s": {str(r): round(s, 4) for r, s in self.start_up_s.items()},
            "step_s": {str(r): round(s, 6) for r, s in self.step_s.items()},
            "scatter": round(self.scatter, 3),
        }


def run_once(folder: Path, grid: int, ranks: int, steps: int) -> Timing:
    """Time one segment that goes on from a restart file; LaunchError if the program or its launcher fails."""
    before, after, result = folder / f"start-{grid}.npz", folder / "film.npz", folder / "result.json"
    material = folder / "material.json"
    if not material.exists():
        material.write_text(json.dumps(Material.draw(0).to_json()))
    fixed = ["--material", str(material), "--temperature", str(TEMPERATURE), "--grid", str(grid), "--seed", "1"]
    if not before.exists():
        timed_run(1, PROGRAM, [*fixed, "--steps", "1", "--restart-out", str(before), "--result", str(result)], folder)
    outputs = ["--restart-in", str(before), "--restart-out", str(after), "--result", str(result)]
    duration_s = timed_run(ranks, PROGRAM, [*fixed, "--steps", str(steps), *outputs], folder)
    return Timing(grid, ranks, steps, duration_s, json.loads(result.read_text())["seconds"]["compute"])


def fit(timings: Sequence[Timing]) -> list[Duration]:
    """The model of each grid that was timed, by ordinary least squares on the medians of repeated runs.

    With fewer than two lengths of segment the time outside of computing counts as start-up.
    """
    models = []
    for grid in sorted({t.grid for t in timings}):
        start_up: dict[int, float] = {}
        per_step: dict[int, float] = {}
        for ranks in sorted({t.ranks for t in timings if t.grid == grid}):
            some = [t for t in timings if (t.grid, t.ranks) == (grid, ranks)]
            lengths = sorted({t.steps for t in some})
            middle = [statistics.median(t.duration_s for t in some if t.steps == n) for n in lengths]
            if len(lengths) > 1:
                slope, offset = (float(v) for v in np.polyfit(lengths, middle, 1))
            else:
                slope = statistics.median(t.compute_s / t.steps for t in some)
                offset = middle[0] - slope * lengths[0]
            start_up[ranks], per_step[ranks] = max(offset, 1e-3), max(slope, 1e-7)
        model = Duration(grid, start_up, per_step, 0.0)
        logs = [math.log(t.duration_s / model.seconds(t.steps, t.ranks)) for t in timings if t.grid == grid]
        models.append(Duration(grid, start_up, per_step, math.sqrt(statistics.fmean(x * x for x in logs))))
    return models


def table(timings: Sequence[Timing], models: Sequence[Duration]) -> str:
    """What was measured, one line for each grid and length: share of computing, gain of more ranks."""
    more = sorted({t.ranks for t in timings} - {1})
    lines = [
        f"{'grid':>5} {'steps':>6} {'1 rank, s':>10} {'computes':>9}"
        + "".join(f" {f'{r} ranks, s':>11} {'speed-up':>9} {'pays from':>16}" for r in more)
    ]
    for model in models:
        for steps in sorted({t.steps for t in timings}):
            some = [t for t in timings if (t.grid, t.steps) == (model.grid, steps)]
            times = {r: statistics.median(t.duration_s for t in some if t.ranks == r) for r in model.step_s}
            line = f"{model.grid:>5} {steps:>6}"
            if 1 in times:
                computes = statistics.median(t.compute_s / t.duration_s for t in some if t.ranks == 1)
                line += f" {times[1]:>10.3f} {computes:>8.0%} "
                line += "".join(f" {times[r]:>11.3f} {times[1] / times[r]:>9.2f} {_pays(model, r):>16}" for r in more)
            lines.append(line)
    return "\n".join(lines)


def _pays(model: Duration, ranks: int) -> str:
    gain_s = model.step_s[1] - model.step_s[ranks]
    loss_s = model.start_up_s[ranks] - model.start_up_s[1]
    if gain_s <= 0.0:
        return "never"
    return f"{max(1, math.ceil(loss_s / gain_s))} steps"


def timed_run(ranks: int, module: str, arguments: Sequence[str], folder: Path, timeout_s: float = 300.0) -> float:
    """Seconds that a program takes, launcher included; LaunchError if it fails."""
    command = [sys.executable, "-m", module, *arguments]
    if ranks > 1:
        command = [*mpiexec_command(ranks), *command]
    environment = clean_environment(os.environ)
    begin = time.perf_counter()
    # In files, not pipes, which a child of the launcher could keep open.
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=errors) as process,
    ):
        try:
            code = process.wait(timeout_s)
        except BaseException as error:
            # Asked to end, a launcher ends its ranks too; killed, it might leave them.
            process.terminate()
            try:
                process.wait(5.0)
            except subprocess.TimeoutExpired:
                process.kill()
            if isinstance(error, subprocess.TimeoutExpired):
                raise LaunchError(f"{' '.join(command)} took longer than {timeout_s:g} s") from None
            raise
        duration_s = time.perf_counter() - begin
        if code:
            errors.seek(0)
            lines = [line.strip() for line in errors if line.strip(" -\n")] or ["no message"]
            raise LaunchError(f"{' '.join(command)} ended with code {code}: {lines[0]}")
    return duration_s


def _numbers(text: str) -> list[int]:
    numbers = [int(part) for part in text.split(",")]
    if min(numbers) < 1:
        raise ValueError(text)
    return sorted(set(numbers))


def main(argv: Sequence[str] | None = None) -> int:
    """Time, fit, print; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="calibrate", description="Time the simulation program and fit the twin's durations."
    )
    lists: dict[str, Any] = {"type": _numbers, "metavar": "N,N,..."}
    parser.add_argument("--grids", default="128,256,384,512", help="points along each side", **lists)
    parser.add_argument("--ranks", default="1,2", help="numbers of MPI ranks", **lists)
    parser.add_argument("--steps", default="40,80,160", help="lengths of segment, in time steps", **lists)
    parser.add_argument("--repeats", type=int, default=3, help="runs of each combination")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the fitted durations here")
    options = parser.parse_args(argv)
    combinations = [
        (grid, ranks, steps)
        for _ in range(max(1, options.repeats))
        for grid in sorted(set(options.grids))
        for ranks in options.ranks
        for steps in options.steps
    ]
    try:
        with tempfile.TemporaryDirectory() as folder:
            timings = []
            for number, (grid, ranks, steps) in enumerate(combinations, 1):
                label = f"{number}/{len(combinations)}: grid {grid}, {ranks} ranks, {steps} steps"
                print(f"\r\x1b[K{label}", end="", file=sys.stderr, flush=True)
                timings.append(run_once(Path(folder), grid, ranks, steps))
            print("\r\x1b[K", end="", file=sys.stderr)
    except RlctlError as error:
        print(f"\ncalibrate: {error}", file=sys.stderr)
        return 1
    models = fit(timings)
    print(table(timings, models))
    print("\nfor the campaign's options, one of:\n")
    print(yaml.safe_dump([{"program": model.to_json()} for model in models], sort_keys=False))
    if options.json is not None:
        options.json.write_text(json.dumps([model.to_json() for model in models], indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
