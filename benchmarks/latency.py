"""How long a decision takes: from the open question to the campaign that goes on, through guard, network and driver.

The simulated executor answers at once, so what is measured is rlctl's own work: the guard's checks, the network, the
campaign's answer, the driver and, in a second row, a journal on disk that is written through to the device before
anything takes effect. Wall time includes what else the machine does; CPU time is what this thread worked.
``python benchmarks/latency.py [--quick] [--json FILE]``
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from rows import Row, machine, parser, report, row

from rlctl.bundle import saved_policy
from rlctl.config.load import load_config
from rlctl.core.driver import Driver
from rlctl.executors.event_log import Journal
from rlctl.executors.simulated.backend import SimulatedExecutor
from rlctl.plugins.registry import configured_campaign
from rlctl.steering.policy_guard import PolicyGuard

CONFIG = Path(__file__).parents[1] / "configs" / "annealing.yaml"
WIDTHS = (64, 128, 256)
TARGET_MS = 1.0


def network(folder: Path, width: int) -> saved_policy.NumpyPolicy:
    """A saved policy for annealing with two hidden layers of random weights; what it answers does not matter."""
    factory, random = _factory(), np.random.default_rng(0)
    campaign = factory.campaign(0)
    heads = saved_policy.action_heads(campaign.action_space)
    sizes = [campaign.observation_space.shape[0], width, width, sum(heads)]
    weights = {}
    for i, (inputs, outputs) in enumerate(pairwise(sizes)):
        weights[f"{i}.weight"] = random.normal(size=(outputs, inputs)) / np.sqrt(inputs)
        weights[f"{i}.bias"] = np.zeros(outputs)
    manifest = {
        "name": f"{width}x{width}",
        "campaign": {"name": factory.name, "version": factory.version},
        "spaces": saved_policy.describe(campaign.observation_space, campaign.action_space),
        "network": {"hidden": [width, width]},
        "deterministic": True,
    }
    saved_policy.save(folder, weights, manifest, random.normal(size=(64, sizes[0])))
    return saved_policy.load(folder)


def play(policy: saved_policy.NumpyPolicy, journal: Journal | None, count: int) -> dict[str, list[float]]:
    """Seconds of ``count`` decisions, in parts; what the simulated tasks compute is left out."""
    factory = _factory()
    parts: dict[str, list[float]] = {"guard and network": [], "answer": [], "whole": [], "whole, CPU": []}
    instance = 0
    while len(parts["whole"]) < count:
        campaign = factory.campaign(instance)
        executor = SimulatedExecutor(load_config(CONFIG).machine.capacity(), factory.task_model(instance))
        driver, guard = Driver(campaign, executor, journal), PolicyGuard(policy, None, campaign.action_space)
        guard.reset(instance)
        decision = driver.begin()
        while decision is not None and len(parts["whole"]) < count:
            began, worked = time.perf_counter(), time.thread_time()
            action, _ = guard.act(decision)
            acted = time.perf_counter()
            driver.answer(action)
            ended, worked = time.perf_counter(), time.thread_time() - worked
            for part, seconds in zip(parts, (acted - began, ended - acted, ended - began, worked), strict=True):
                parts[part].append(seconds)
            decision = driver.advance()
        instance += 1
    return parts


def main() -> None:
    """Measure and print: of each part the median over all decisions, with the range, and the 99th percentile."""
    arguments = parser(__doc__).parse_args()
    count = 300 if arguments.quick else 1000
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as temporary:
        for width in WIDTHS:
            policy = network(Path(temporary) / f"policy-{width}", width)
            play(policy, None, 50)
            for kind in ("none", "on disk"):
                parts = _with_journal(Path(temporary) / f"{width}.db", kind, lambda j, p=policy: play(p, j, count))
                for part, seconds in parts.items():
                    name, milliseconds = f"decision, {part}, journal {kind}", [1e3 * s for s in seconds]
                    rows.append(row(name, policy.name, milliseconds, "ms"))
                    p99 = float(np.quantile(milliseconds, 0.99))
                    rows.append(row(f"{name}, p99", policy.name, [p99], "ms", TARGET_MS if part == "whole" else None))
    rows.sort(key=lambda one: one.measure)
    report(f"{count} decisions each, one thread; {machine()}", rows, arguments.json)


Parts = dict[str, list[float]]


def _with_journal(path: Path, kind: str, measure: Callable[[Journal | None], Parts]) -> Parts:
    if kind == "none":
        return measure(None)
    journal = Journal.create(path, {"campaign": "latency"})
    try:
        return measure(journal)
    finally:
        journal.close()


def _factory():
    config = load_config(CONFIG)
    return configured_campaign(config)


if __name__ == "__main__":
    main()
