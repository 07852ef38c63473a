"""The table of evaluations, its best rows and its charts, on rows made by hand."""

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from rlctl.core.errors import ConfigError
from rlctl.core.findings import Findings
from rlctl.steering.evaluation_table import EVALUATIONS, EvaluationTable, read_csv
from rlctl.steering.search_charts import SearchCharts, search_charts

SVG = "{http://www.w3.org/2000/svg}"


def row(number: int, x: float, method: str, energy: float | None, feasible: bool | None = True, **more: Any) -> Any:
    values = {} if energy is None else {"energy": energy, "size": -energy}
    times = {"queued_s": 1.0 * number, "started_s": 1.0 * number, "ended_s": number + 2.0, "node_seconds": 1.0}
    return (
        {"evaluation": number, "x": x, "method": method, "status": "done", **values, "feasible": feasible}
        | times
        | more
    )


ROWS = [
    row(0, 1.0, "fast", 5.0),
    row(1, 10.0, "exact", 3.0),
    row(2, 100.0, "fast", None, None, status="failed", kind="exit"),
    row(3, 1000.0, "exact, with <all>", 1.0, False),
    row(4, 30.0, "fast", 2.0),
    row(5, 50.0, "fast", None, None, status="running", ended_s=None),
]


def table(*best: int, objectives: dict[str, str] | None = None, rows: Any = ROWS, **more: Any) -> EvaluationTable:
    aims = {"energy": "minimize"} if objectives is None else objectives
    findings = Findings(("x", "method"), ("energy", "size"), aims, best, logarithmic=frozenset({"x"}), **more)
    return EvaluationTable(rows, findings, Path("run"))


def drawn(charts: SearchCharts) -> list[ElementTree.Element]:
    """All charts are well-formed, even with odd names."""
    texts = [*charts.progress.values(), *charts.scatters.values(), charts.parallel, *charts.fronts.values()]
    return [ElementTree.fromstring(f"<div>{text}</div>") for text in texts if text]


def test_the_best_of_one_objective_are_those_with_the_least_value_that_may_count() -> None:
    assert [one["evaluation"] for one in table(4).best(9).rows] == [4, 1, 0]
    assert [one["evaluation"] for one in table(0, objectives={"energy": "maximize"}).best(2).rows] == [0, 1]
    staged = [one | {"stage": "low" if one["evaluation"] == 4 else "high"} for one in ROWS]
    assert [one["evaluation"] for one in table(1, rows=staged, stage="high").best(9).rows] == [1, 0]


def test_of_several_objectives_and_of_conditions_the_best_are_a_set() -> None:
    front = table(4, 0, objectives={"energy": "minimize", "size": "minimize"})
    assert [one["evaluation"] for one in front.best(9).rows] == [0, 4]
    assert [one["evaluation"] for one in front.best(1).rows] == [0]
    lines = [(name, text) for name, text in front.found().lines("run") if name != "evaluations"]
    assert lines[0] == ("front", "2 of 5 evaluations are not dominated")
    assert [name for name, _ in lines[1:]] == ["4", "0"]
    found = table(1, 4, objectives={}).found()
    assert found.lines("run")[0] == ("found", "2 of 5 evaluations fulfil the condition")
    assert table().found().lines("run")[0] == ("best", "none yet")


def test_the_best_point_is_told_with_its_numbers() -> None:
    assert table(4).found().lines("run") == [
        ("best", "energy 2, size -2 (evaluation 4 of 6)"),
        ("at", "x 30, method fast"),
        ("evaluations", "4 done, 1 failed, 1 running"),
    ]


def test_conditions_leave_out_rows_without_the_value() -> None:
    assert [one["evaluation"] for one in table(4).where("energy < 4").rows] == [1, 3, 4]
    assert [one["evaluation"] for one in table(4).where("method == 'fast' and x > 20").rows] == [2, 4, 5]
    kept = table(4).where("energy < 4")
    assert [kept.rows[place]["evaluation"] for place in kept.findings.best] == [4]
    with pytest.raises(ConfigError, match="cannot be computed"):
        table(4).where("x + method > 3")


def test_columns_stand_in_the_order_of_the_rows() -> None:
    columns = table(4).columns
    assert columns[:6] == ["evaluation", "x", "method", "status", "energy", "size"]
    assert columns[-1] == "kind"


def test_the_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    (tmp_path / EVALUATIONS).write_text(table(4).csv_text())
    for written, read in zip(ROWS, read_csv(tmp_path), strict=True):
        assert {name: value for name, value in read.items() if value is not None} == {
            name: value for name, value in written.items() if value is not None
        }


def test_every_evaluation_is_drawn_and_the_best_stands_out() -> None:
    charts = search_charts(table(4), nodes=2)
    assert charts.drawn == 4
    broad = drawn(charts)[0][0]
    titles = [title.text or "" for title in broad.iter(f"{SVG}title")]
    assert sum(text.startswith("evaluation") for text in titles) == 5  # four with a value, one without
    assert "best energy" in titles
    scatter = ElementTree.fromstring(charts.scatters["x"])
    assert {text.text for text in scatter.iter(f"{SVG}text")} >= {"1", "10", "100", "1,000", "x", "energy"}
    blue = [group for group in scatter.iter(f"{SVG}g") if group.get("style") == "fill:var(--blue)"]
    assert [title.text for group in blue for title in group.iter(f"{SVG}title")] == ["evaluation 4: energy 2"]
    names = {text.text for text in ElementTree.fromstring(charts.scatters["method"]).iter(f"{SVG}text")}
    assert names >= {"fast", "exact", "exact, with <a"}
    assert len(re.findall("evaluation 4", charts.parallel)) == 1


def test_the_best_so_far_never_gets_worse_and_other_runs_lie_beside() -> None:
    charts = search_charts(table(4), 1, {"random, scan-1": [row(0, 1.0, "fast", 4.0), row(1, 2.0, "fast", 9.0)]})
    assert set(charts.beside) == {"random, scan-1"}
    broad = drawn(charts)[0][0]
    paths = {
        title.text: group.find(f"{SVG}path")
        for group in broad.iter(f"{SVG}g")
        if (title := group.find(f"{SVG}title")) is not None
    }
    assert set(paths) == {"random, scan-1", "best energy"}
    line = paths["best energy"]
    assert line is not None
    heights = [float(at.split()[1]) for at in re.findall(r"[ML]([\d.]+ [\d.]+)", line.get("d", ""))]
    assert heights == sorted(heights)  # pixels count from the top
    assert len(set(heights)) == 3


def test_fronts_are_pairs_and_no_results_give_no_charts() -> None:
    aims = {"energy": "minimize", "size": "maximize", "x": "minimize"}
    charts = search_charts(table(1, 4, objectives=aims), 1)
    assert list(charts.fronts) == ["energy and size", "energy and x", "size and x"]
    assert len(drawn(charts)) == 3 + 2 + 1 + 3
    assert search_charts(table(rows=ROWS[5:]), 1) == SearchCharts({}, {}, "", {}, 0)
    assert drawn(search_charts(table(1, objectives={}), 1))


def test_curves_are_by_stage() -> None:
    staged = [one | {"stage": "low" if one["evaluation"] == 4 else "high"} for one in ROWS]
    points = table(1, rows=staged, stage="high").curves(2)
    assert [step for step, _ in points] == [4, 6, 8, 10, 12]
    best = [values["found/best/energy"] for _, values in points if "found/best/energy" in values]
    assert best == [5.0, 3.0]
    assert points[-1][1] == {"found/objective/energy/low": 2.0, "found/failures/low": 0}
    assert points[2][1] == {"found/failures/high": 1}
