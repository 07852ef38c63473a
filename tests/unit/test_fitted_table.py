"""A twin from data: models predict what they have not seen, say how uncertain they are, and keep it in a folder."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlctl.core.errors import ConfigError
from rlctl.plugins.recorded_table import ended_status
from rlctl.surrogates.fitted_folder import FittedFolder, read_fitted, write_fitted
from rlctl.surrogates.fitted_table import FittedTable, TableRows
from rlctl.surrogates.gaussian_process import GaussianProcess
from rlctl.surrogates.held_out import Predicted, agreement, agreement_of, held_out
from rlctl.surrogates.measured_scaling import MeasuredScaling
from rlctl.surrogates.output_model import OutputModel
from rlctl.surrogates.table_inputs import InputColumn, TableInputs

pytestmark = pytest.mark.quick

INPUTS = TableInputs(
    (
        InputColumn("a", 0.0, 10.0),
        InputColumn("b", values=("u", "v")),
        InputColumn("cores", 1.0, 4.0, log=True, costs_only=True),
    )
)


def recorded(count: int, seed: int, *, chance: bool = False) -> TableRows:
    """Evaluations of a program that fails at ``a > 8`` and ``v``, and hangs in one of twenty runs."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = [
        {"a": rng.uniform(0, 10), "b": str(rng.choice(["u", "v"])), "cores": int(rng.choice([1, 2, 4]))}
        for _ in range(count)
    ]
    a, cores = (np.array([row[name] for row in rows], float) for name in ("a", "cores"))
    v = np.array([row["b"] == "v" for row in rows])
    seconds = 5.0 * np.exp(0.2 * a) * (0.2 + 0.8 / cores) * np.exp(0.05 * rng.standard_normal(count))
    seconds[rng.random(count) < 0.05] *= 15.0
    energy = rng.standard_normal(count) if chance else np.exp(np.sin(a) + v)
    failed = (a > 8.0) & v
    energy[failed] = np.nan
    return TableRows.of(INPUTS, rows, seconds, failed, {"energy": energy})


def test_held_out_error_is_small_where_inputs_tell_all_and_intervals_hold() -> None:
    found = held_out(INPUTS, recorded(80, 1))
    assert found.durations is not None
    assert found.durations.error < 0.08
    assert 0.8 <= found.durations.covered <= 1.0
    assert found.outcomes["energy"].share < 0.15
    assert found.outcomes["energy"].covered >= 0.85
    assert found.brier < 0.5 * found.brier_of_share


def test_held_out_error_tells_chance_from_a_function() -> None:
    found = held_out(INPUTS, recorded(80, 1, chance=True)).outcomes["energy"]
    assert found.share > 0.85
    assert 0.75 <= found.covered <= 1.0


def test_results_without_a_prediction_count_as_that_of_the_median() -> None:
    rows = recorded(40, 1)
    predicted = Predicted.empty(rows)
    predicted.failure[:] = 0.1
    found = agreement_of(rows, predicted).outcomes["energy"]
    assert (found.share, found.covered) == (1.0, 0.0)
    assert found.error > 0.0


def test_held_out_evaluations_of_one_point_are_not_predicted_by_each_other() -> None:
    rng = np.random.default_rng(0)
    rows = [{"a": float(i % 20) / 2.0, "b": "u", "cores": 1} for i in range(100)]
    noise = rng.standard_normal(20)[np.arange(100) % 20]  # the same for the five evaluations of a point
    table = TableRows.of(INPUTS, rows, np.ones(100), np.zeros(100, np.bool_), {"y": noise})
    assert held_out(INPUTS, table).outcomes["y"].share > 0.7
    assert held_out(INPUTS, table, together=np.arange(100)).outcomes["y"].share < 0.1


def test_a_model_of_another_program_does_not_agree_with_its_runs() -> None:
    model = FittedTable.fit(INPUTS, recorded(80, 1))
    assert agreement(model, recorded(60, 2)).outside < 0.2
    other = recorded(60, 2)
    slower = TableRows(other.x, other.cost_x, other.level, 3.0 * other.seconds, other.failed, other.outcomes)
    found = agreement(model, slower)
    assert found.durations is not None
    assert found.durations.covered < 0.2
    assert found.outside > 0.4


def test_agreement_is_about_the_outcomes_that_both_have() -> None:
    model, rows = FittedTable.fit(INPUTS, recorded(60, 1)), recorded(20, 2)
    nothing, other = replace(rows, outcomes={}), replace(rows, outcomes={"size": rows.seconds})
    assert agreement(model, nothing).outcomes == agreement(model, other).outcomes == {}
    assert agreement(model, nothing).predictions == int((~rows.failed).sum())


def test_draws_differ_where_nothing_was_recorded_and_agree_where_much_was() -> None:
    rows = [{"a": 0.1 * i, "b": "u", "cores": 1} for i in range(50)]
    y = np.sin(np.array([row["a"] for row in rows], float))
    model = FittedTable.fit(INPUTS, TableRows.of(INPUTS, rows, np.ones(50), np.zeros(50, np.bool_), {"y": y}))
    there, beyond = {"a": 2.5, "b": "u", "cores": 1}, {"a": 9.0, "b": "u", "cores": 1}
    drawn = np.array([model.draw(seed).at([there, beyond]).outcomes["y"] for seed in range(30)])
    assert drawn[:, 0].std() < 0.05
    assert drawn[:, 1].std() > 0.3
    assert abs(drawn[:, 0].mean() - np.sin(2.5)) < 0.05


def test_a_draw_is_one_function_whenever_it_is_asked() -> None:
    drawn = FittedTable.fit(INPUTS, recorded(40, 1)).draw(3)
    asked = [{"a": a, "b": "v", "cores": 2} for a in (1.0, 2.0, 7.0)]
    together = drawn.at(asked)
    for number, one in enumerate(asked):
        alone = drawn.at([one])
        assert alone.outcomes["energy"][0] == pytest.approx(together.outcomes["energy"][number])
        assert alone.log_seconds[0] == pytest.approx(together.log_seconds[number])


def test_the_tail_of_durations_is_drawn_as_often_as_it_was_recorded() -> None:
    model = FittedTable.fit(INPUTS, recorded(200, 1))
    drawn, rng = model.draw(0), np.random.default_rng(1)
    log_s = float(drawn.at([{"a": 5.0, "b": "u", "cores": 1}]).log_seconds[0])
    seconds = np.array([drawn.seconds(log_s, False, rng) for _ in range(2000)])
    assert 0.01 < np.mean(seconds > 5.0 * np.median(seconds)) < 0.12
    assert np.quantile(np.log(seconds), 0.75) - np.quantile(np.log(seconds), 0.25) < 0.15


def test_failures_are_drawn_where_they_were_recorded() -> None:
    drawn = FittedTable.fit(INPUTS, recorded(150, 1)).draw(0)
    chance = drawn.at([{"a": 9.5, "b": "v", "cores": 1}, {"a": 3.0, "b": "v", "cores": 1}]).failure
    assert chance[0] > 0.8
    assert chance[1] < 0.2


def test_levels_have_a_location_and_a_scale_each() -> None:
    inputs = TableInputs((InputColumn("x"), InputColumn("stage", values=("low", "high"))), level="stage")
    rows = [{"x": i / 40, "stage": stage} for i in range(40) for stage in ("low", "high")]
    y = np.array([np.sin(6 * r["x"]) * (1.0 if r["stage"] == "low" else 500.0) + 900.0 for r in rows])  # type: ignore[operator]
    table = TableRows.of(inputs, rows, np.ones(80), np.zeros(80, np.bool_), {"y": y})
    drawn = FittedTable.fit(inputs, table).draw(0).at([{"x": 0.26, "stage": "low"}, {"x": 0.26, "stage": "high"}])
    assert drawn.outcomes["y"] == pytest.approx([901.0, 1400.0], abs=5.0)
    assert abs(drawn.outcomes["y"][0] - 901.0) < 0.1


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"8 evaluations have a duration and a result: a twin needs 10 at least"):
        FittedTable.fit(INPUTS, recorded(9, 3))


def test_values_that_cannot_be_meant_are_named() -> None:
    for row, words in (
        ({"a": "many", "b": "u", "cores": 1}, "a is 'many': it should be a number"),
        ({"a": 1.0, "b": "w", "cores": 1}, "b is 'w', which is none of u, v"),
        ({"a": 1.0, "b": "u", "cores": 0}, "cores is 0: it should be a number above 0"),
        ({"a": 1.0, "cores": 1}, "there is no 'b'"),
    ):
        with pytest.raises(ConfigError, match=words):
            INPUTS.read([row], costs=True)


def of_evaluations(folder: Path) -> FittedFolder[FittedTable]:
    return read_fitted(folder, "evaluations", FittedTable.restored)


def test_a_folder_keeps_predictions_and_draws(tmp_path: Path) -> None:
    model, asked = FittedTable.fit(INPUTS, recorded(60, 1)), [{"a": 3.3, "b": "v", "cores": 2}]
    write_fitted(tmp_path / "twin", model, {"rows": 60})
    kept = of_evaluations(tmp_path / "twin")
    assert kept.about == {"rows": 60}
    one, other = model.draw(4).at(asked), kept.model.draw(4).at(asked)
    assert other.outcomes["energy"][0] == pytest.approx(one.outcomes["energy"][0], rel=1e-12)
    assert other.log_seconds[0] == pytest.approx(one.log_seconds[0], rel=1e-12)
    assert kept.model.duration.residuals == pytest.approx(model.duration.residuals)


def test_folders_that_cannot_be_used_are_told_in_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "twin"
    with pytest.raises(ConfigError, match="holds no twin"):
        of_evaluations(folder)
    write_fitted(folder, FittedTable.fit(INPUTS, recorded(30, 1)), {})
    data = json.loads((folder / "twin.json").read_text())
    (folder / "twin.json").write_text(json.dumps({**data, "format": 2}))
    with pytest.raises(ConfigError, match="format 2, this rlctl reads 1"):
        of_evaluations(folder)
    (folder / "twin.json").write_text(json.dumps({**data, "model": {}}))
    with pytest.raises(ConfigError, match="is damaged"):
        of_evaluations(folder)
    (folder / "twin.json").write_text(json.dumps({**data, "kind": "segments"}))
    with pytest.raises(ConfigError, match="is a twin of segments, and evaluations are asked for"):
        of_evaluations(folder)
    (folder / "twin.json").write_text("{")
    with pytest.raises(ConfigError, match="cannot be read"):
        of_evaluations(folder)
    (folder / "twin.json").write_text(json.dumps(data))
    (folder / "twin.npz").write_bytes(b"something else")
    with pytest.raises(ConfigError, match="is not the one"):
        of_evaluations(folder)


def test_draws_have_mean_and_deviation_of_the_posterior() -> None:
    rng = np.random.default_rng(0)
    x = rng.random((30, 2))
    y = np.sin(5 * x[:, 0]) + x[:, 1] + 0.1 * rng.standard_normal(30)
    process = GaussianProcess(np.arange(2))
    process.fit(x, (y - y.mean()) / y.std())
    asked = 1.6 * rng.random((40, 2))
    mean, deviation = process.predict(asked)
    drawn = np.array([process.draw(np.random.default_rng(i))(asked) for i in range(600)])
    assert np.abs((drawn.mean(0) - mean) / deviation).max() < 0.2
    assert np.abs(drawn.std(0) / deviation - 1.0).max() < 0.15


def test_left_out_predictions_are_those_of_a_process_without_the_point() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.random((12, 1)), rng.standard_normal(12)
    process = GaussianProcess(np.arange(1))
    process.fit(x, y)
    mean, deviation = process.left_out()
    without = GaussianProcess(np.arange(1))
    without.parameters = process.parameters
    without.fit(x[1:], y[1:], optimize=False)
    expected, uncertain = without.predict(x[:1])
    assert mean[0] == pytest.approx(expected[0], abs=1e-6)
    assert deviation[0] == pytest.approx(float(np.hypot(uncertain[0], process.noise)), rel=1e-4)


@pytest.mark.parametrize("skew", [-3.0, 0.0, 3.0])
def test_unwarped_undoes_warped(skew: float) -> None:
    rng = np.random.default_rng(0)
    y = np.sinh(skew * rng.random(60)) if skew else rng.standard_normal(60)
    model = OutputModel(np.arange(1))
    model.fit(rng.random((60, 1)), y, rng)
    assert model.unwarped(model.warped(y)) == pytest.approx(y)


def test_scaling_is_found_again_and_predicts() -> None:
    start_up_s = {ranks: 0.2 + 0.05 * ranks for ranks in (1, 2, 4, 8)}
    rng = np.random.default_rng(0)
    runs = [
        (point, ranks, ranks, (start_up_s[ranks] + 0.5 + work_s * (0.2 + 0.8 / ranks)) * np.exp(0.01 * z))
        for point, work_s in enumerate((1.0, 3.0, 6.0, 2.0))
        for ranks, z in zip(start_up_s, rng.standard_normal(4), strict=True)
    ]
    law = MeasuredScaling.fit(start_up_s, runs)
    assert law.serial == pytest.approx(0.2, abs=0.05)
    assert law.loading_s == pytest.approx(0.5, abs=0.2)
    assert law.seconds(4.0, 4, 4) == pytest.approx(0.4 + 0.5 + 4.0 * 0.4, rel=0.1)
    assert law.scatter < 0.03


def test_one_number_of_cores_tells_durations_only() -> None:
    law = MeasuredScaling.fit({1: 0.2}, [(0, 1, 1, 3.0), (1, 1, 1, 4.0)])
    assert (law.serial, law.loading_s) == (0.0, 0.0)
    assert law.work_s == pytest.approx([2.8, 3.8])


def test_a_point_that_a_run_began_with_is_no_evaluation_of_it() -> None:
    made = {"evaluation": 3, "ranks": 1, "status": "infeasible"}
    assert ended_status(made) == "infeasible"
    assert ended_status({**made, "ranks": None}) is None
    assert ended_status({"status": "infeasible"}) == "infeasible"  # a table of the user's own
