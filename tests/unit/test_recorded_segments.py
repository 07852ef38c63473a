"""Twins of recorded segments: they do what the records say, know how sure these are, and refuse what is no record."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from segmented import Answers, segments, steered

from rlctl.core.errors import ConfigError
from rlctl.core.machine import Capacity
from rlctl.core.simulation import Simulated
from rlctl.core.task import Failure
from rlctl.environments.campaign_env import twin
from rlctl.environments.twin_rollouts import rollout_on_twin
from rlctl.plugins.registry import policy_factory
from rlctl.testing.checks import check_campaign

pytestmark = pytest.mark.quick

MANY = {"until": {"found": 30, "evaluations": 80}}


def warm_is_good(q: float, asked: Mapping[str, Any]) -> float | Simulated:
    """It advances from 0.6 on, and blows up from 0.9 on."""
    if asked["controls"]["T"] > 0.9:
        return Simulated(1.0, failure=Failure.EXIT)
    return q + (0.002 * asked["length"] if asked["controls"]["T"] > 0.6 else 0.0)


def recorded(folder: Path) -> Path:
    """The table of a campaign whose temperatures and lengths were drawn by chance."""
    rng = np.random.default_rng(1)
    chance = Answers(lambda state: {"T": float(rng.random()), "steps": int(rng.choice([100, 200, 400]))})
    rows = steered(segments(**MANY), warm_is_good, chance).evaluations()
    with open(folder / "evaluations.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list({name: None for row in rows for name in row}), restval="")
        writer.writeheader()
        writer.writerows(rows)
    return folder / "evaluations.csv"


def outputs(factory: Any, action: Mapping[str, Any], seed: int = 0) -> list[float]:
    """Results of the segments of a campaign that always does the same."""
    campaign = steered(factory, warm_is_good, Answers(lambda state: action), model=factory.task_model(seed))
    return [segment.results["q"] for segment in campaign.state.segments if segment.results]


def test_it_does_what_was_recorded(tmp_path: Path) -> None:
    recorded(tmp_path)
    factory = segments(tmp_path, recorded="evaluations.csv", until={"found": 1, "evaluations": 40})
    assert outputs(factory, {"T": 0.75, "steps": 200})[-1] >= 1.0
    cold = outputs(factory, {"T": 0.2, "steps": 200})
    assert len(cold) == 40
    assert max(cold) < 0.5
    hot = steered(factory, warm_is_good, Answers(lambda state: {"T": 1.0, "steps": 200}), model=factory.task_model(0))
    assert hot.outcome().extra["simulations_blew_up"] > 5


def test_durations_are_those_of_the_records(tmp_path: Path) -> None:
    recorded(tmp_path)
    factory = segments(tmp_path, recorded="evaluations.csv", until={"found": 1, "evaluations": 5})
    found = steered(factory, warm_is_good, Answers(lambda state: {"T": 0.2, "steps": 400}), model=factory.task_model(0))
    assert all(segment.seconds == pytest.approx(4.0, rel=0.2) for segment in found.state.segments if segment.ended_s)


def test_instances_are_of_their_seeds_and_differ(tmp_path: Path) -> None:
    recorded(tmp_path)
    factory = segments(tmp_path, recorded="evaluations.csv", until={"found": 2, "node_seconds": 200})

    def costs() -> list[float]:
        rule = policy_factory("renewal_give_up")
        return [
            figures["cost"] for figures in rollout_on_twin(factory, Capacity(1, 1), [(s, rule()) for s in range(6)])
        ]

    assert costs() == costs()
    assert len(set(costs())) > 3
    assert len(factory.privileged(0)) == 0


def test_a_campaign_on_it_keeps_what_campaigns_promise(tmp_path: Path) -> None:
    recorded(tmp_path)
    factory = segments(tmp_path, recorded="evaluations.csv", until={"found": 1, "node_seconds": 100})
    check_campaign(factory, Capacity(1, 1), [policy_factory("renewal_give_up")()], instances=2)
    assert twin(factory, Capacity(1, 1), 3) is not None


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda text: text.replace("T", "temperature", 1), "there is no column T"),
        (lambda text: "\n".join(text.splitlines()[:12]) + "\n", "a twin needs 20 at least"),
        (
            lambda text: text.replace("0,0,0,,", "0,0,0,77,", 1),
            "evaluations.csv:2: a number is missing, or the segment",
        ),
        (lambda text: "", "there is no column evaluation"),
        (None, "there is no such file"),
    ],
)
def test_what_is_no_record_is_refused(tmp_path: Path, change: Any, problem: str) -> None:
    table = recorded(tmp_path)
    if change is None:
        table.unlink()
    else:
        table.write_text(change(table.read_text()))
    with pytest.raises(ConfigError, match=problem) as error:
        segments(tmp_path, recorded="evaluations.csv")
    assert error.value.key == ("campaign", "options", "recorded")
