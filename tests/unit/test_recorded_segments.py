"""Twins of recorded segments: they do what the records say, know how sure these are, and refuse what is no record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from segmented import Answers, segments, steered

from rlctl.core.errors import ConfigError
from rlctl.core.machine import Capacity
from rlctl.core.simulation import Simulated
from rlctl.core.task import Failure, Resources
from rlctl.environments.campaign_env import twin
from rlctl.environments.twin_rollouts import rollout_on_twin
from rlctl.plugins.recorded_table import RecordedTable
from rlctl.plugins.registry import policy_factory
from rlctl.surrogates.fitted_folder import read_fitted, write_fitted
from rlctl.testing.checks import check_campaign
from rlctl_envs.segments import chain_agreement
from rlctl_envs.segments.factory import Segments
from rlctl_envs.segments.recorded_chains import RecordedSegments
from rlctl_envs.segments.segment_records import read_segments

pytestmark = pytest.mark.quick

MANY = {"until": {"found": 30, "evaluations": 80}}


def warm_is_good(q: float, asked: Mapping[str, Any]) -> float | Simulated:
    """It advances from 0.6 on, and blows up from 0.9 on."""
    if asked["controls"]["T"] > 0.9:
        return Simulated(1.0, failure=Failure.EXIT)
    return q + (0.002 * asked["length"] if asked["controls"]["T"] > 0.6 else 0.0)


def table(seed: int = 1, **changes: Any) -> RecordedTable:
    """The table of a campaign whose temperatures and lengths were drawn by chance."""
    rng = np.random.default_rng(seed)
    chance = Answers(lambda state: {"T": float(rng.random()), "steps": int(rng.choice([100, 200, 400]))})
    rows = steered(segments(**MANY, **changes), warm_is_good, chance).evaluations()
    return RecordedTable(Path("chance.csv"), rows, [f"chance.csv:{number}" for number in range(2, 2 + len(rows))], "")


def on_records(folder: Path, **changes: Any) -> Segments:
    """A campaign on the twin of such a table."""
    write_fitted(folder / "twin", segments().fit_twin([table()], 0).model, {"seed": 0})
    return segments(folder, twin={"fitted": str(folder / "twin")}, **changes)


def outputs(factory: Any, action: Mapping[str, Any], seed: int = 0) -> list[float]:
    """Results of the segments of a campaign that always does the same."""
    campaign = steered(factory, warm_is_good, Answers(lambda state: action), model=factory.task_model(seed))
    return [segment.results["q"] for segment in campaign.state.segments if segment.results]


def test_it_does_what_was_recorded(tmp_path: Path) -> None:
    factory = on_records(tmp_path, until={"found": 1, "evaluations": 40})
    assert outputs(factory, {"T": 0.75, "steps": 200})[-1] >= 1.0
    cold = outputs(factory, {"T": 0.2, "steps": 200})
    assert len(cold) == 40
    assert max(cold) < 0.5
    hot = steered(factory, warm_is_good, Answers(lambda state: {"T": 1.0, "steps": 200}), model=factory.task_model(0))
    assert hot.outcome().extra["simulations_blew_up"] > 5


def test_durations_are_those_of_the_records(tmp_path: Path) -> None:
    factory = on_records(tmp_path, until={"found": 1, "evaluations": 5})
    found = steered(factory, warm_is_good, Answers(lambda state: {"T": 0.2, "steps": 400}), model=factory.task_model(0))
    assert all(segment.seconds == pytest.approx(4.0, rel=0.2) for segment in found.state.segments if segment.ended_s)


def test_instances_are_of_their_seeds_and_differ(tmp_path: Path) -> None:
    factory = on_records(tmp_path, until={"found": 2, "node_seconds": 200})

    def costs() -> list[float]:
        rule = policy_factory("renewal_give_up")
        return [
            figures["cost"] for figures in rollout_on_twin(factory, Capacity(1, 1), [(s, rule()) for s in range(6)])
        ]

    assert costs() == costs()
    assert len(set(costs())) > 3
    assert len(factory.privileged(0)) == 0


def test_a_campaign_on_it_keeps_what_campaigns_promise(tmp_path: Path) -> None:
    factory = on_records(tmp_path, until={"found": 1, "node_seconds": 100})
    check_campaign(factory, Capacity(1, 1), [policy_factory("renewal_give_up")()], instances=2)
    assert twin(factory, Capacity(1, 1), 3) is not None


def test_a_folder_keeps_the_records(tmp_path: Path) -> None:
    fit = segments().fit_twin([table()], 0)
    write_fitted(tmp_path / "twin", fit.model, {"seed": 0})
    kept = read_fitted(tmp_path / "twin", RecordedSegments.kind, RecordedSegments.restored).model
    assert kept.description() == fit.model.description()
    assert all(np.array_equal(kept.arrays()[name], of, equal_nan=True) for name, of in fit.model.arrays().items())


def test_held_out_simulations_are_predicted_without_their_own_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    records = read_segments([table()], segments().options, ["q"])
    seen = list[tuple[set[int], set[int]]]()
    inner = chain_agreement._fill

    def noted(predicted: Any, known: Any, others: Any, at: Any) -> None:
        seen.append((set(known.first), set(others.first[at])))
        inner(predicted, known, others, at)

    monkeypatch.setattr(chain_agreement, "_fill", noted)
    fit = chain_agreement.fit_chains(records, 0)
    assert len(seen) == 5
    assert not any(known & left_out for known, left_out in seen)
    assert set.union(*(left_out for _, left_out in seen)) == set(records.first)
    assert fit.failed == int((~records.good).sum()) > 0
    assert fit.held_out.outcomes["q"].share < 0.5
    assert fit.held_out.durations is not None
    assert fit.held_out.durations.error < 0.02
    assert fit.held_out.brier < 0.9 * fit.held_out.brier_of_share


def test_copies_are_left_out_with_their_originals() -> None:
    columns = {"T": 0.5, "steps": 100, "q": 0.1, "status": "done", "duration_s": 1.0, "kind": ""}
    parents = [None, 0, 1, 1, None, 3]
    rows = [{"evaluation": number, "from": parent, **columns} for number, parent in enumerate(parents)]
    source = RecordedTable(Path("copies.csv"), rows, [f"copies.csv:{n}" for n in range(2, 8)], "")
    records = read_segments([source, source], segments().options, ["q"])
    assert records.first.tolist() == [0, 0, 0, 0, 4, 0, 6, 6, 6, 6, 10, 6]


def test_a_campaign_that_went_otherwise_is_far_from_the_twin(tmp_path: Path) -> None:
    factory, other = on_records(tmp_path), table(2)
    near = factory.compare_twin(other)
    assert near is not None
    assert near.outside < 0.3
    rows = [{**row, "started_s": 0.0, "ended_s": 60.0, **({"q": -3.0} if "q" in row else {})} for row in other.rows]
    far = factory.compare_twin(replace(other, rows=rows))
    assert far is not None
    assert far.outside > 0.8
    running = [{**row, "status": "running"} for row in other.rows]
    with pytest.raises(ConfigError, match=r"chance\.csv has no segments that have ended"):
        factory.compare_twin(replace(other, rows=running))


@pytest.mark.parametrize(
    ("number", "change", "problem"),
    [
        (0, {"from": 77}, "chance.csv:2: it began with evaluation 77, which is no earlier row with results"),
        (3, {"q": None, "status": "done"}, "chance.csv:5: q is missing"),
        (2, {"T": "warm"}, "chance.csv:4: T is 'warm': it should be a number"),
        (2, {"steps": 0}, "chance.csv:4: steps is 0: it should be above 0"),
        (1, {"status": "fine"}, "chance.csv:3: status is 'fine'"),
        (1, {"started_s": 9.0, "ended_s": 9.0}, "chance.csv:3: its duration is 0: it should be above 0"),
    ],
)
def test_what_is_no_record_is_refused_with_its_line(number: int, change: dict[str, Any], problem: str) -> None:
    source = table()
    rows = [{**row, **(change if row["evaluation"] == number else {})} for row in source.rows]
    with pytest.raises(ConfigError, match=problem):
        segments().fit_twin([replace(source, rows=rows)], 0)


def test_durations_may_be_unknown() -> None:
    source, unknown = table(), {"started_s": None, "ended_s": None}
    rows = [{**row, **(unknown if row["evaluation"] % 3 == 0 else {})} for row in source.rows]
    fit = segments().fit_twin([replace(source, rows=rows)], 0)
    assert np.isfinite(fit.model.durations(True, 100.0, 1.0)).all()
    assert fit.held_out.durations is not None
    with pytest.raises(ConfigError, match="0 segments have known durations: a twin needs 20 at least"):
        segments().fit_twin([replace(source, rows=[{**row, **unknown} for row in rows])], 0)


def test_one_simulation_tells_nothing_of_others() -> None:
    rows = [
        {"evaluation": n, "from": n - 1 if n else None, "T": 0.5, "steps": 100, "q": 0.1 * n, "status": "done"}
        | {"duration_s": 1.0, "kind": ""}
        for n in range(24)
    ]
    source = RecordedTable(Path("one.csv"), rows, [f"one.csv:{n}" for n in range(2, 26)], "")
    with pytest.raises(ConfigError, match="too few simulations have results and known durations"):
        segments().fit_twin([source], 0)


def test_too_few_records_and_missing_columns_are_refused() -> None:
    source = table()
    with pytest.raises(ConfigError, match="12 segments have ended: a twin needs 20 at least"):
        segments().fit_twin([replace(source, rows=source.rows[:12], places=source.places[:12])], 0)
    rows = [{name: value for name, value in row.items() if name != "T"} for row in source.rows]
    with pytest.raises(ConfigError, match=r"chance\.csv:1: there is no column 'T'"):
        segments().fit_twin([replace(source, rows=rows)], 0)


def test_a_twin_of_another_campaign_is_refused(tmp_path: Path) -> None:
    on_records(tmp_path)
    twin = {"fitted": str(tmp_path / "twin")}
    for changes, problem in (
        ({"controls": {"T": [0, 1], "p": [0, 1]}}, "the twin knows no control 'p'"),
        ({"lengths": {}}, "the twin's length 'steps' is none here"),
        ({"program": {"results": {"q": {"regex": "q"}, "r": {"regex": "r"}}}}, "the twin knows no result 'r'"),
    ):
        with pytest.raises(ConfigError, match=problem) as error:
            segments(tmp_path, twin=twin, **changes).check(Capacity(1, 1), False)
        assert error.value.key == ("twin",)


def test_ranges_of_invented_simulations_are_kept() -> None:
    ranges = {"seconds": 8.0, "serial": 0.0, "failing": 0.5, "noise": 0.0}
    for seed in range(4):
        chains = segments(twin={"synthetic": ranges}).chains(seed)
        assert (chains.serial, chains.blown, chains.noise) == (0.0, 0.5, 0.0)
        chains.scatter = 0.0
        assert chains.seconds(1.0, Resources(), np.random.default_rng(0)) == pytest.approx(8.0)
    assert segments(twin={"synthetic": {}}).chains(3).hidden() == segments().chains(3).hidden()
    with pytest.raises(ConfigError, match="do not use it, but failing, noise, seconds, serial: leave") as error:
        segments(twin={"synthetic": {"stuck": 0.1}})
    assert error.value.key == ("twin", "synthetic", "stuck")
