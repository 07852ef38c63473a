"""The command ``rlctl learn``, and campaigns that begin with what it has learned."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from search_runs import rlctl

from rlctl.executors.event_log import Journal
from rlctl.surrogates.campaign_prior import read_prior

PROGRAM = """
import sys, time
x, y, shift, log = float(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
time.sleep(0.05)
with open(log, "a") as file:
    print(x, y, file=file)
if x > 4.0:
    sys.exit("diverged")
print("energy =", (x - 1.0 - shift) ** 2 + 8.0 * (y - 0.5) ** 2 + shift)
"""
SEARCH = """
seed: {seed}
program:
  command: python {{here}}/sim.py {{x:.17g}} {{y:.17g}} {shift} {{here}}/log.txt
  results: {{energy: {{regex: 'energy = (\\S+)'}}}}
  failures: {{diverged: {{exit_codes: [1], then: infeasible}}}}
  walltime_s: 60
campaign:
  options:
    parameters: {{x: {{low: -5, high: 5}}, y: {{low: 0, high: 2}}}}
    objective: {{minimize: energy}}
    until: {{evaluations: {count}}}
    {more}
machine: {{nodes: 1, cores: 2}}
{policies}
"""


def write(folder: Path, name: str, shift: float = 0.5, count: int = 12, more: str = "", policies: str = "") -> None:
    (folder / "sim.py").write_text(PROGRAM)
    text = SEARCH.format(seed=int(10 * shift), shift=shift, count=count, more=more, policies=policies)
    (folder / name).write_text(text)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three runs, the table of one of them, and ``prior`` of the runs."""
    folder = tmp_path_factory.mktemp("prior")
    for number, shift in enumerate((0.0, 0.3, 1.0)):
        write(folder, f"scan{number}.yaml", shift, count=18)
        rlctl(folder, "steer", f"scan{number}.yaml", "--policy", "random_search", "--run", f"runs/{number}")
    rlctl(folder, "results", "runs/2", "--csv", "table.csv")
    write(folder, "scan.yaml")
    (folder / "said.json").write_text(json.dumps(learned(folder, "prior", "runs/0", "runs/1", "runs/2")))
    return folder


def learned(folder: Path, out: str, *sources: str) -> dict[str, Any]:
    done = rlctl(folder, "learn", "scan.yaml", "--from", *sources, "--out", out, "--json")
    return dict(json.loads(done.stdout))


def test_runs_and_tables_give_the_same_prior(home: Path) -> None:
    said = json.loads((home / "said.json").read_text())
    learned(home, "again", "runs/0", "runs/1", "table.csv")
    assert said["campaigns"] == 3
    assert said["evaluations"] == 54
    assert set(said["learned"]) >= {"loss", "cost"}
    assert {(row["output"], row["known"]) for row in said["left_out"]} >= {("loss", 5), ("cost", 5)}
    one, other = (read_prior(home / name) for name in ("prior", "again"))
    assert np.array_equal(one.prior.outputs["loss"].weights, other.prior.outputs["loss"].weights)
    assert one.about["sources"][0]["path"] == str(home / "runs/0")
    assert len(one.about["sources"][0]["sha256"]) == 64
    assert one.about["versions"]["numpy"] == np.__version__


def test_a_prior_is_learned_from_the_twin(home: Path) -> None:
    done = rlctl(home, "learn", "scan.yaml", "--twin", "4", "--evaluations", "12", "--out", "invented")
    assert done.stdout.startswith("4 campaigns, 48 evaluations")
    assert "use it with this line below campaign.options: prior: invented" in done.stdout
    assert read_prior(home / "invented").about["sources"] == {"twin": 4, "evaluations": 12}


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--from", "runs/0", "runs/1"], "a prior is learned from 3 campaigns or more, and 2 were given"),
        (["--from", "runs/0", "runs/1", "nowhere"], "nowhere: there is no such run folder or CSV file"),
        (["--from", "runs/0", "runs/1", "runs/0"], "runs/0 is given twice"),
        (["--from", "runs/0", "runs/2", "table.csv"], "table.csv holds the evaluations of runs/2"),
        (["--from", "runs/0", "runs/1", "bad.csv"], "bad.csv:2: x: 9.0 is not a number from -5 to 5"),
        (["--twin", "2"], "a prior is learned from 3 campaigns or more, and 2 were given"),
        ([], "say what to learn from: --from RUN_OR_CSV..., or --twin N"),
    ],
)
def test_what_cannot_be_learned_from_is_told_in_one_line(home: Path, arguments: list[str], problem: str) -> None:
    (home / "bad.csv").write_text("x,y,energy,duration_s\n9,1,2.0,1.0\n")
    done = rlctl(home, "learn", "scan.yaml", *arguments, "--out", "none", code=2)
    assert problem in done.stderr
    assert not (home / "none").exists()


def test_other_files_are_not_replaced(home: Path) -> None:
    (home / "mine").mkdir()
    (home / "mine/notes.txt").write_text("mine")
    done = rlctl(home, "learn", "scan.yaml", "--twin", "3", "--out", "mine", code=2)
    assert "mine holds other files: give another folder" in done.stderr


def test_a_prior_of_another_search_is_refused_with_its_line(home: Path) -> None:
    write(home, "wide.yaml", more="prior: prior")
    (home / "wide.yaml").write_text((home / "wide.yaml").read_text().replace("high: 2", "high: 3"))
    done = rlctl(home, "check", "wide.yaml", code=2)
    lines = (home / "wide.yaml").read_text().splitlines()
    line = next(number for number, text in enumerate(lines, 1) if text.strip() == "prior: prior")
    assert f"wide.yaml:{line}: campaign.options.prior: prior knows 'y' within other values or bounds" in done.stderr


def test_the_same_rule_with_and_without_the_prior_is_compared(home: Path) -> None:
    policies = "policies:\n  uninformed: {rule: target_per_second, parameters: {prior: false}}\n"
    write(home, "both.yaml", count=8, more="prior: prior", policies=policies)
    evaluate = ("evaluate", "both.yaml", "--policy", "target_per_second", "--against", "uninformed")
    rows = json.loads(rlctl(home, *evaluate, "--instances", "2", "--json").stdout)["rows"]
    assert rows[0]["node_seconds"] != rows[1]["node_seconds"]


def test_a_killed_campaign_goes_on_with_its_prior_and_with_no_other(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "prior", tmp_path / "prior")
    write(tmp_path, "new.yaml", more="prior: prior")
    command = [sys.executable, "-P", "-m", "rlctl", "steer", "new.yaml", "--run", "run"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL)
    log, limit_s = tmp_path / "log.txt", time.monotonic() + 90
    while time.monotonic() < limit_s and not (log.exists() and log.read_text().count("\n") >= 4):
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait(30)
    kept = (tmp_path / "prior/prior.json").read_text()
    (tmp_path / "prior/prior.json").write_text(kept.replace('"seed"', '"Seed"'))
    again = ("steer", "new.yaml", "--run", "run", "--resume")
    assert "prior is not what it was when run began" in rlctl(tmp_path, *again, code=2).stderr
    (tmp_path / "prior/prior.json").write_text(kept)
    rlctl(tmp_path, *again)
    with Journal.open(tmp_path / "run/journal.db") as journal:
        assert journal.header["prior_digest"] == read_prior(tmp_path / "prior").digest
    lines = log.read_text().splitlines()
    assert len(lines) - len(set(lines)) <= 2  # what ran at the moment of the kill, if its end was not recorded
    assert len(set(lines)) >= 12
