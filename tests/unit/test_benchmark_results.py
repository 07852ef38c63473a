"""Tables of results say what the rows say, and the tables that pages quote are those of ``docs/results``."""

import math
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from rlctl.benchmark import result_rows as rows
from rlctl.benchmark.families import corrected, write_all
from rlctl.benchmark.family import PORTFOLIO
from rlctl.benchmark.measures import Estimate
from rlctl.benchmark.result_rows import FamilyResults, Row, read_results, row
from rlctl.benchmark.results_page import TABLES, summary_table, with_tables
from rlctl.core.errors import ConfigError

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("**/*.md"), *(ROOT / "envs").glob("**/*.md")])


def results(family="films", p=0.01):
    def found(measure, system, value, low, high, unit="ratio", **target):
        return row(family, measure, system, Estimate(value, low, high), unit, 8, **target)

    unit = "node-seconds per success"
    return FamilyResults(
        family,
        [
            found(rows.COST, "policy", 12.0, 11.0, 13.0, unit),
            found(rows.COST, "referee", 10.0, 9.0, 11.0, unit),
            found(rows.COST, "random", math.inf, 900.0, math.inf, unit),
            found(rows.SUMS, "referee", 0.83, 0.8, 0.9, target=1.0),
            found(rows.GEOMETRIC, "referee", 0.8, 0.7, 0.9, target=1.0),
            found(rows.LOST, "referee", 0.75, 0.6, 0.9, "share"),
            found(rows.FLIPS, "referee", p, p, p, "p"),
            found(rows.CONTROL, "blank", 0.9, 0.8, 1.1, target=1.0),
            found(rows.HIDDEN, "policy", 0.0, 0.0, 0.0, "numbers", target=0.0, most=True),
        ],
        chosen={"rule": "referee", "instances": 4, "seed": 2},
        systems={"policy": {"kind": "trained", "decisions": 1000}, "referee": {"kind": "rule"}},
        made={"command": "rlctl benchmark films.yaml", "judged": "policy", "instances": 8, "nodes": 1, "cores": 2},
        skipped={"given trace": "no such file"},
        curves={"policy": [0.0, 0.5, 1.0], "referee": [0.0, 0.7, 1.0], PORTFOLIO: [0.0, 1.0, 1.0]},
        instances={"numbers": [1], "cost": {"policy": [[1.5]]}},
    )


def test_a_loss_is_printed_like_a_win():
    lines = summary_table(results()).splitlines()
    assert lines[2].startswith("| **policy** | 12.0 [11.0, 13.0] |")
    referee = "| 10.0 [9.00, 11.0] | 0.83 [0.80, 0.90] | 0.80 [0.70, 0.90] | 75 % [60 %, 90 %] |"
    assert lines[3] == f"| **referee** (chosen rule) {referee}"
    assert "| random | ∞ [900, ∞] |" in lines[4]
    found = {one.measure: one.met for one in results().rows if one.target is not None}
    assert found == {rows.SUMS: False, rows.GEOMETRIC: False, rows.CONTROL: False, rows.HIDDEN: True}
    assert "| blank | costs 0.90 [0.80, 1.10] times the policy | NO |" in TABLES["controls"](results())


def test_results_are_read_back_as_they_were_written(tmp_path):
    write_all(results(), tmp_path)
    again = read_results(tmp_path / "films.json")
    assert again == results()
    assert again.of(rows.COST, "random").median is None
    page = (tmp_path / "films.md").read_text()
    assert summary_table(again).splitlines()[3].split("|")[2] in page
    assert "* given trace: no such file" in page
    svg = ElementTree.parse(tmp_path / "films.svg").getroot()
    words = {text.text for text in svg.iter("{http://www.w3.org/2000/svg}text")}
    assert {"policy", "referee"} <= words
    assert "prefers-color-scheme: dark" in (tmp_path / "films.svg").read_text()
    (tmp_path / "films.json").write_text('{"schema": 99}')
    with pytest.raises(ConfigError, match="rlctl benchmark"):
        read_results(tmp_path / "films.json")


def test_p_values_are_corrected_for_the_number_of_families_and_only_wins_meet_the_target():
    def holm(found: FamilyResults) -> Row:
        (one,) = found.find(rows.HOLM)
        return one

    first, second = corrected([results("films", 0.01), results("queue", 0.04)])
    assert (holm(first).median, holm(second).median) == (0.02, 0.04)
    assert holm(first).met is False  # significant, but the rule is the cheaper one
    assert len(corrected([first])[0].find(rows.HOLM)) == 1


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_tables_that_pages_quote_are_those_of_the_results(page):
    text = page.read_text()
    assert with_tables(text, ROOT / "docs" / "results") == text
    assert len(re.findall("<!-- results:", text)) == len(re.findall(r"<!-- results:.*?<!-- end -->", text, re.DOTALL))


def test_a_quoted_table_that_is_out_of_date_is_noticed_and_renewed(tmp_path):
    write_all(results(), tmp_path)
    old = "Before\n\n<!-- results: films -->\n| 7 |\n<!-- end -->\n\n<!-- results: films controls -->\n<!-- end -->\n"
    new = with_tables(old, tmp_path)
    assert new != old
    assert summary_table(results()) in new
    assert TABLES["controls"](results()) in new
    assert with_tables(new, tmp_path) == new
    with pytest.raises(ConfigError, match="no table 'sumary'"):
        with_tables(old.replace("films controls", "films sumary"), tmp_path)
