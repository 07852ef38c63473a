"""Steers some evaluation instances for real, by the policy and the best rule, and compares with their twins."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rlctl.benchmark import result_rows as rows
from rlctl.benchmark.family import Family
from rlctl.benchmark.measures import Resamples
from rlctl.benchmark.result_rows import Row, row
from rlctl.benchmark.systems import System
from rlctl.benchmark.variants import changed
from rlctl.core.errors import RlctlError
from rlctl.plugins import preflight
from rlctl.steering.control import steer

AGREES = 1.1
"""Real campaigns agree with the twin if their cost is within this factor of it."""


def judge_real(family: Family) -> list[Row]:
    """Rows of real campaigns; if they cannot be run, the reason is among ``family.skipped``."""
    count = family.config.judged.real
    if not count:
        return []
    policy, rule = family.best_policy(), family.systems[family.best_rule]
    instances = family.instances[:count]
    found: list[Row] = []
    try:
        factory = preflight.check_campaign(family.config, real=True)
        if factory.runs_programs:
            preflight.check_programs(family.config, factory)
        for system in [rule] if policy is None else [policy, rule]:
            figures = [_steered(family, system, instance) for instance in instances]
            found += _rows(family, system, instances, np.array([figures]))
    except RlctlError as error:
        family.skipped["real campaigns"] = str(error)
    return found


def _steered(family: Family, system: System, instance: int) -> tuple[float, int]:
    """Node-seconds and successes of a real campaign, resumed if it was interrupted."""
    run = family.work.folder / "real" / system.identity[0][:16] / str(instance)
    summary = run / "summary.json"
    if not summary.exists():
        config = family.config
        config = config.model_copy(update={"steer": config.steer.model_copy(update={"rules_on_twin": False})})
        resume = (run / "journal.db").exists()
        steer(config, system.policies[0], run, instance, resume=resume, progress=family.work.progress)
    data = json.loads(Path(summary).read_text())
    return float(data["node_seconds"]), int(data["successes"])


def _rows(family: Family, system: System, instances: list[int], real: NDArray[np.float64]) -> list[Row]:
    """Rows of a system.

    Args:
        real: node-seconds and successes, [1, instances, 2].
    """
    draw = Resamples(len(instances), seed=family.config.evaluate.seed)
    each = draw.ratio(real[:, :, 0], real[:, :, 1])
    found = [row(family.name, f"{rows.COST}, real", system.name, each, "node-seconds per success", len(instances))]
    twins = [(rows.REAL, family.config, family.factory)]
    if family.config.judged.calibrated:
        config = changed(family.config, family.config.judged.calibrated)
        twins.append((rows.CALIBRATED, config, preflight.check_campaign(config)))
    for measure, config, factory in twins:
        twin = family.cache.play(config, factory, [system], instances, "twin of the real campaigns")[system.name][0]
        ratio = draw.ratio(real[:, :, 0], np.array([[one.node_seconds for one in twin]]))
        agrees = row(family.name, measure, system.name, ratio, "ratio", len(instances))
        found.append(replace(agrees, target=AGREES, met=1.0 / AGREES <= ratio.value <= AGREES))
    return found
