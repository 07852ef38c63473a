"""A twin of one's own program: fitted to runs and tables, compared with the last run, and calibrated."""

from __future__ import annotations

import csv
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from search_runs import SEARCH, rlctl, write_search

from rlctl.cli.main import main
from rlctl.cli.near_twin import near_config
from rlctl.config.load import load_config
from rlctl.plugins.registry import configured_campaign
from rlctl.testing.checks import check_campaign

SCAN = {"evaluations:_8".replace("_", " "): "evaluations: 24"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``scan.yaml`` and its run ``runs/scan-1`` of 24 evaluations."""
    folder = tmp_path_factory.mktemp("twin")
    write_search(folder, **SCAN)
    rlctl(folder, "steer", "scan.yaml", "--policy", "random_search")
    rlctl(folder, "results", "runs/scan-1", "--csv", "table.csv")
    return folder


class Told:
    """Runs commands in this process, in a folder."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, folder: Path, *arguments: str, code: int = 2) -> str:
        """What a command says on standard error: one line where it fails."""
        self._monkeypatch.chdir(folder)
        with pytest.raises(SystemExit) as left:
            main(arguments)
        said = self._capsys.readouterr().err
        assert (left.value.code or 0) == code, said
        if code:
            assert said.count("\n") == 1, said
        return said


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Told:
    return Told(monkeypatch, capsys)


def named(folder: Path, name: str, twin: str) -> str:
    """A configuration with a line ``twin: ...``, the last one."""
    (folder / name).write_text((folder / "scan.yaml").read_text() + f"twin: {twin}\n")
    return name


def altered(folder: Path, name: str, **factors: float) -> str:
    """A copy of the table with some columns multiplied."""
    with (folder / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        for column, factor in factors.items():
            row[column] = str(float(row[column]) * factor) if row[column] else ""
    with (folder / name).open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return name


@pytest.mark.quick
def test_a_run_and_its_table_give_the_same_twin_and_policies_play_on_it(home: Path) -> None:
    said = rlctl(home, "twin", "runs/scan-1", "--out", "twin").stdout
    assert "energy: median error" in said
    assert "within the 90 % interval" in said
    assert "use it with this line in the configuration: twin: twin" in said
    of_run = json.loads((home / "twin" / "twin.json").read_text())
    rlctl(home, "twin", "table.csv", "--config", "scan.yaml", "--out", "of_table")
    of_table = json.loads((home / "of_table" / "twin.json").read_text())
    assert of_table["about"]["held_out"] == of_run["about"]["held_out"]
    assert of_run["about"]["held_out"]["outcomes"]["energy"]["share"] < 0.3
    assert of_run["about"]["sources"][0]["sha256"]

    file = home / named(home, "fitted.yaml", "twin")
    factory: Any = configured_campaign(load_config(file))
    checked = check_campaign(factory, load_config(file).machine.capacity(), [], seed=1)
    assert checked.decisions > 20
    point, need, energies = factory.space.point({"x": 1.0, "y": 5}), factory.stages[0].resources[0], list[float]()
    for seed in range(3):
        energies.append(factory.problem(seed).run(point, 0, need, np.random.default_rng(0)).outputs["energy"])
    assert len(set(energies)) == 3
    assert energies == pytest.approx([5.0] * 3, abs=2.5)


@pytest.mark.quick
def test_sources_that_cannot_be_used_are_told_in_one_line_and_nothing_is_written(home: Path, told: Told) -> None:
    config = ("--config", "scan.yaml")
    (home / "few.csv").write_text("x,y,energy,size,duration_s\n" + "1,2,3,4,5\n" * 4)
    (home / "short.csv").write_text("y,energy,duration_s\n1,2,3\n")
    (home / "untimed.csv").write_text("x,y,energy\n1,2,3\n")
    (home / "odd.csv").write_text("x,y,energy,duration_s\n1,2,3,1\n1,2,three,1\n")
    (home / "ragged.csv").write_text("x,y,energy,duration_s\n1,2,3,1\n1,2,3\n")
    (home / "empty.csv").write_text("")
    (home / "state.csv").write_text("x,y,energy,duration_s,status\n1,2,3,1,finished\n")
    (home / "full").mkdir(exist_ok=True)
    (home / "full" / "notes.txt").write_text("mine")
    for arguments, words in (
        (("few.csv", *config), "4 evaluations have a duration and a result: a twin needs 10 at least"),
        (("short.csv", *config), "short.csv:1: there is no column 'x'"),
        (("untimed.csv", *config), "untimed.csv:1: there is no column 'duration_s', nor 'started_s' and 'ended_s'"),
        (("odd.csv", *config), "odd.csv:3: energy is 'three': it should be a number"),
        (("ragged.csv", *config), "ragged.csv:3: this row has another number of cells"),
        (("empty.csv", *config), "empty.csv:1: there is no column 'x'"),
        (("state.csv", *config), "state.csv:2: status is 'finished'"),
        (("nowhere", *config), "nowhere: there is no such run folder or CSV file"),
        (("table.csv",), "CSV files do not say what their columns mean: add --config CONFIG"),
        (("table.csv", "table.csv", *config), "table.csv is given twice"),
        (("runs/scan-1", "table.csv", *config), "table.csv holds the evaluations of runs/scan-1"),
        (("full", *config), "full is not a run folder"),
    ):
        assert words in told(home, "twin", *arguments, "--out", "none")
        assert not (home / "none").exists()
    assert "full holds other files" in told(home, "twin", "table.csv", *config, "--out", "full")


def test_twins_that_cannot_be_used_are_told_with_their_line(home: Path, told: Told) -> None:
    line = SEARCH.count("\n") + 1
    told(home, "twin", "runs/scan-1", "--out", "twin", code=0)
    for twin, words in (
        ("nowhere", f"wrong.yaml:{line}: twin: {home}/nowhere holds no twin, there is no twin.json in it"),
        (
            "{fitted: twin, synthetic: {}}",
            f"wrong.yaml:{line}: twin: give fitted, a folder of rlctl twin, or synthetic",
        ),
        ("{folder: twin}", f"wrong.yaml:{line}: twin.folder: unknown key"),
        ("{synthetic: {seconds: [3, 1]}}", f"wrong.yaml:{line}: twin.synthetic.seconds: [3.0, 1.0]"),
        ("{synthetic: {calibration: no}}", f"wrong.yaml:{line}: twin.synthetic.calibration"),
    ):
        assert words in told(home, "check", named(home, "wrong.yaml", twin))
    named(home, "fitted.yaml", "twin")
    other = ("--set", "campaign.options.parameters.z=[0, 1]")
    assert "the twin knows no 'z': fit it with this" in told(home, "check", "fitted.yaml", *other)
    wrong = told(home, "check", "fitted.yaml", "--set", "campaign={name: ensemble}", "--set", "program=null")
    assert "twin: campaign 'ensemble' has a twin of its own" in wrong


def test_a_twin_far_from_the_last_run_is_refused_unless_it_is_allowed(
    home: Path, told: Told, capsys: pytest.CaptureFixture[str]
) -> None:
    altered(home, "slow.csv", started_s=9.0, ended_s=9.0, energy=-3.0)
    told(home, "twin", "slow.csv", "--config", "scan.yaml", "--out", "far", code=0)
    text = (home / "scan.yaml").read_text()
    line = text.count("\n") + 1
    tune = ("tune", "random_search", "scan.yaml", "--out", "rule.yaml", "--generations", "1", "--instances", "1")
    try:
        (home / "scan.yaml").write_text(text + "twin: far\n")
        refused = told(home, *tune)
        assert f"scan.yaml:{line}: twin: of " in refused
        assert "values of runs/scan-1" in refused
        assert "lie outside the twin's 90 % intervals, more than most_outside: 0.3 allows" in refused
        assert not (home / "rule.yaml").exists()
        train = ("--set", "train={decisions: 16}")
        assert "most_outside" in told(home, "train", "scan.yaml", "--out", "trained", *train)
        assert not (home / "trained").exists()
        (home / "scan.yaml").write_text(text + "twin: {fitted: far, most_outside: 1}\n")
        # What the commands call before they begin; a whole tuning takes minutes.
        near_config(Path("scan.yaml"), None, quiet=False)
        assert "twin, compared with runs/scan-1:" in capsys.readouterr().err
        told(home, "twin", "runs/scan-1", "--out", "twin", code=0)
        (home / "scan.yaml").write_text(text + "twin: twin\n")
        near_config(Path("scan.yaml"), None, quiet=False)
        said = capsys.readouterr().err
        assert "twin: runs/scan-1 is among its data; held-out evaluations of its fit:" in said
    finally:
        (home / "scan.yaml").write_text(text)


def test_a_network_trains_on_a_fitted_twin(home: Path) -> None:
    rlctl(home, "twin", "runs/scan-1", "--out", "twin")
    sets = "train={algorithm: ppo, decisions: 16, num_envs: 2, validation_instances: 0, judgement_instances: 0, "
    sets += "options: {n_steps: 8, batch_size: 16}}"
    done = rlctl(home, "train", named(home, "fitted.yaml", "twin"), "--out", "net", "--set", sets)
    assert "twin: there is no real run to compare with" in done.stderr
    assert "saved the policy in net" in done.stdout


def test_calibration_is_a_durable_run_that_twins_are_fitted_to(tmp_path: Path) -> None:
    write_search(tmp_path, **{"walltime_s: 20": "walltime_s: 20\n  resources: {cores: [1, 2]}"})
    done = rlctl(tmp_path, "calibrate", "scan.yaml", "--out", "scaling", "--points", "5", "--json").stdout
    law = json.loads(done)
    assert [(one["ranks"], one["cores"]) for one in law["choices"]] == [(1, 1), (1, 2)]
    assert sum(one["runs"] for one in law["choices"]) >= 6
    assert law["start_up_s"]["1"] > 0.0
    journal = (tmp_path / "scaling" / "journal.db").stat().st_mtime_ns
    assert "exists already" in rlctl(tmp_path, "calibrate", "scan.yaml", "--out", "scaling", code=2).stderr
    rlctl(tmp_path, "calibrate", "scan.yaml", "--out", "scaling", "--points", "5", "--resume")
    assert (tmp_path / "scaling" / "journal.db").stat().st_mtime_ns == journal
    rows = rlctl(tmp_path, "results", "scaling", "--json").stdout
    spans = sorted((row["started_s"], row["ended_s"]) for row in json.loads(rows)["rows"] if row["ended_s"])
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))
    (tmp_path / "synthetic.yaml").write_text(
        (tmp_path / "scan.yaml").read_text() + "twin: {synthetic: {calibration: scaling, failing: 0}}\n"
    )
    rlctl(tmp_path, "check", "synthetic.yaml", "--play")
