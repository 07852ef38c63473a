"""Twins of simulations in segments, from runs and tables, by the commands that people use."""

from __future__ import annotations

import csv
import itertools
import json
from pathlib import Path

import pytest
from search_runs import rlctl
from test_segments_steered import CHAINS, rows, write

from rlctl.cli.near_twin import near_config
from rlctl.config.load import load_config
from rlctl.plugins.registry import configured_campaign, policy_factory
from rlctl.testing.checks import check_campaign

LINE = CHAINS.count("\n") + 1
WANDER = "policies.wander={rule: schedule_cycle, parameters: {start: 0.1, end: 0.9, duration: 5}}"
UNTIL = "campaign.options.until={found: 9, evaluations: 18, node_seconds: 300}"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``chains.yaml``, its run ``runs/chains-1``, and another run ``earlier`` with its table."""
    folder = write(tmp_path_factory.mktemp("segments"))
    rlctl(folder, "steer", "chains.yaml", "--run", "earlier", "--policy", "wander", "--set", WANDER, "--set", UNTIL)
    rlctl(folder, "results", "earlier", "--csv", "earlier.csv")
    rlctl(folder, "steer", "chains.yaml")
    return folder


def with_twin(folder: Path, twin: str, name: str = "chains.yaml") -> None:
    """The configuration with a last line ``twin: ...``."""
    (folder / name).write_text(CHAINS + f"twin: {twin}\n")


@pytest.mark.quick
def test_runs_and_tables_give_a_twin_on_which_policies_play(home: Path) -> None:
    said = rlctl(home, "twin", "earlier.csv", "runs/chains-1", "--config", "chains.yaml", "--out", "chains-twin").stdout
    assert "x: median error" in said
    assert "use it with this line in the configuration: twin: chains-twin" in said
    about = json.loads((home / "chains-twin" / "twin.json").read_text())
    assert about["kind"] == "segments"
    assert [Path(one["path"]).name for one in about["about"]["sources"]] == ["earlier.csv", "chains-1"]
    assert about["about"]["rows"] >= 20
    assert about["about"]["held_out"]["outcomes"]["x"]["share"] < 0.5
    with_twin(home, "chains-twin", "fitted.yaml")
    config = load_config(home / "fitted.yaml", ["campaign.options.until={found: 2, node_seconds: 30}"])
    rule = policy_factory("renewal_give_up")()
    assert check_campaign(configured_campaign(config), config.machine.capacity(), [rule], instances=2).decisions > 20


def test_training_says_how_far_the_twin_is_from_the_last_run(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(home)
    rlctl(home, "twin", "earlier", "runs/chains-1", "--out", "of-both")
    with (home / "earlier.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["x"], row["ended_s"] = str(5.0 + float(row["x"] or 0.0)), str(1e3 + float(row["ended_s"] or 0.0))
    with (home / "other.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows([*rows, *[{**row, "evaluation": 100 + int(row["evaluation"]), "from": ""} for row in rows]])
    rlctl(home, "twin", "other.csv", "--config", "chains.yaml", "--out", "far")
    try:
        with_twin(home, "of-both")
        near_config(Path("chains.yaml"), None, quiet=False)
        assert "twin: runs/chains-1 is among its data; held-out evaluations of its fit" in capsys.readouterr().err
        with_twin(home, "far")
        rule = ("tune", "schedule_constant", "chains.yaml", "--out", "rule.yaml", "--generations", "1")
        refused = rlctl(home, *rule, "--instances", "1", code=2).stderr
        assert refused.startswith(f"rlctl: chains.yaml:{LINE}: twin: of ")
        assert "values of runs/chains-1" in refused
        assert not (home / "rule.yaml").exists()
    finally:
        write(home)


def test_what_cannot_be_a_twin_is_one_line_with_its_place(home: Path) -> None:
    (home / "few.csv").write_text("".join((home / "earlier.csv").read_text().splitlines(keepends=True)[:8]))
    few = rlctl(home, "twin", "few.csv", "--config", "chains.yaml", "--out", "none", code=2).stderr
    assert "7 segments have ended: a twin needs 20 at least" in few
    assert not (home / "none").exists()
    for twin, words in (
        ("nowhere", f"wrong.yaml:{LINE}: twin: {home}/nowhere holds no twin"),
        ("{synthetic: {stuck: 0.1}}", f"wrong.yaml:{LINE}: twin.synthetic.stuck: campaigns of segments do not use it"),
    ):
        with_twin(home, twin, "wrong.yaml")
        assert rlctl(home, "check", "wrong.yaml", code=2).stderr.startswith(f"rlctl: {words}")
    said = rlctl(home, "ask", "chains.yaml", "--run", "hand", "--json", code=2).stderr
    assert "campaign.name: campaign segments cannot be made by hand: steer it" in said
    assert not (home / "hand").exists()


def test_calibration_runs_first_segments_on_every_choice_of_resources(home: Path) -> None:
    ranks = "program.resources.ranks=[1, 2]"
    rlctl(home, "calibrate", "chains.yaml", "--out", "scaling", "--points", "2", "--set", ranks)
    found = rows(home / "scaling")
    assert [(row["simulation"], row["segment"], row["ranks"]) for row in found] == [
        (str(i), "0", ranks) for i, ranks in enumerate("1221")
    ]
    assert [row["status"] for row in found] == ["done"] * 4
    assert all(float(a["ended_s"]) <= float(b["started_s"]) for a, b in itertools.pairwise(found))

    law = json.loads((home / "scaling" / "calibration.json").read_text())
    assert [(one["ranks"], one["runs"]) for one in law["choices"]] == [(1, 2), (2, 2)]
