"""Simulations in segments from YAML alone: their files, a kill and a resumption, failures, and wrong input."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from search_runs import rlctl

PROGRAM = """
import json, os, sys, time
T, steps, before, after, task = float(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:6]
state = json.load(open(before)) if before else {"x": 0.0, "steps": 0, "history": []}
time.sleep(0.1)
if T > 0.95:
    sys.exit("the lattice has gone")
state["x"] += steps / 1000 * (0.2 - (T - 0.4) ** 2)
state["steps"] += steps
state["history"].append(int(task))
json.dump(state, open(after, "w"))
with open("../../../../log.txt", "a") as log:
    print(task, json.dumps(state["history"]), file=log)
print("x =", state["x"])
"""
CHAINS = """
seed: 3
program:
  command: python {here}/sim.py {T} {steps} {restart_in} {restart_out} {task}
  results: {x: {regex: 'x = (\\S+)'}}
  failures: {gone: {exit_codes: [1], then: infeasible}}
  walltime_s: 30
campaign:
  name: segments
  options:
    controls: {T: [0, 1]}
    lengths: {steps: [500, 1000]}
    objective: {find: x > 0.9}
    until: {found: 4, node_seconds: 300}
machine: {nodes: 1, cores: 2}
"""


def write(folder: Path, text: str = CHAINS) -> Path:
    (folder / "sim.py").write_text(PROGRAM)
    (folder / "chains.yaml").write_text(text)
    return folder


def rows(run: Path) -> list[dict[str, str]]:
    with open(run / "evaluations.csv", newline="") as file:
        return list(csv.DictReader(file))


def histories(folder: Path) -> dict[int, list[int]]:
    """Segments that each segment's restart file has been through, as its program has written it."""
    lines = [line.split(" ", 1) for line in (folder / "log.txt").read_text().splitlines()]
    return {int(task): json.loads(history) for task, history in lines}


def test_a_killed_campaign_goes_on_without_loss_or_repetition(tmp_path: Path) -> None:
    write(tmp_path)
    log = tmp_path / "log.txt"
    command = [sys.executable, "-P", "-m", "rlctl", "steer", "chains.yaml", "--run", "run"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    limit_s = time.monotonic() + 90
    while time.monotonic() < limit_s and not (log.exists() and log.read_text().count("\n") >= 9):
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait(timeout=30)
    before = set(histories(tmp_path))
    summary = json.loads(rlctl(tmp_path, "steer", "chains.yaml", "--run", "run", "--resume", "--json").stdout)
    assert summary["reached"]
    counts = Counter(line.split()[0] for line in log.read_text().splitlines())
    assert sum(count > 1 for count in counts.values()) <= 2  # ran at the moment of the kill, its end not recorded
    table = {int(row["evaluation"]): row for row in rows(tmp_path / "run")}
    assert {number for number, row in table.items() if row["status"] == "done"} >= before
    # What the program has read from restart files is what the table says.
    for number, history in histories(tmp_path).items():
        parent = table[number]["from"]
        if table[number]["status"] == "done":
            assert history == [*(histories(tmp_path)[int(parent)] if parent else []), number]
    found = [row for row in table.values() if row["feasible"] == "true"]
    assert len(found) == 4
    assert len({row["simulation"] for row in found}) == 4


def test_a_campaign_that_has_ended_goes_on_and_folds_as_it_was_played(tmp_path: Path) -> None:
    write(tmp_path)
    first = json.loads(rlctl(tmp_path, "steer", "chains.yaml", "--run", "run", "--json").stdout)
    assert (first["reached"], first["successes"]) == (True, 4)
    (tmp_path / "chains.yaml").write_text(CHAINS.replace("found: 4", "found: 6"))
    resume = ("steer", "chains.yaml", "--run", "run", "--resume", "--json")
    second = json.loads(rlctl(tmp_path, *resume).stdout)
    assert (second["reached"], second["successes"]) == (True, 6)
    assert second["node_seconds"] > first["node_seconds"]
    changes = ("campaign.options.until.found=7", "campaign.options.simulations=1", "program.walltime_s=20")
    third = json.loads(rlctl(tmp_path, *resume, *[word for change in changes for word in ("--set", change)]).stdout)
    assert (third["reached"], third["successes"]) == (True, 7)
    after = rows(tmp_path / "run")
    assert len({row["simulation"] for row in after if row["feasible"] == "true"}) == 7
    counts = Counter(line.split()[0] for line in (tmp_path / "log.txt").read_text().splitlines())
    assert set(counts.values()) == {1}
    for number, history in histories(tmp_path).items():
        parent = after[number]["from"]
        assert history == [*(histories(tmp_path)[int(parent)] if parent else []), number]
    # It has ended: nothing is done, and folding the journal with both extensions gives the same.
    last = [word for change in changes for word in ("--set", change)]
    assert json.loads(rlctl(tmp_path, *resume, *last).stdout) == third
    refused = rlctl(tmp_path, *resume, "--set", "campaign.options.controls.T=[0, 2]", code=2).stderr
    assert "campaign.options.controls.T" in refused
    assert "its evaluations would not belong together" in refused


def test_a_blow_up_is_recorded_and_another_simulation_begins(tmp_path: Path) -> None:
    write(tmp_path)
    hot = "policies.hot={rule: schedule_ramp, parameters: {start: 1.0, end: 0.4, duration: 3}}"
    until = "campaign.options.until={found: 1, evaluations: 4, node_seconds: 300}"
    words = ["steer", "chains.yaml", "--policy", "hot", "--run", "run", "--set", hot, "--set", until]
    assert "ended after 4 segments" in rlctl(tmp_path, *words).stdout
    table = rows(tmp_path / "run")
    ended = [row for row in table if row["status"] == "infeasible"]
    assert len(ended) == 4
    assert {row["kind"] for row in ended} == {"gone"}
    assert len({row["simulation"] for row in table}) == len(table)


def test_a_program_that_leaves_no_restart_file_stops_the_campaign(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "sim.py").write_text(PROGRAM.replace("open(after", "open('elsewhere'"))
    said = rlctl(tmp_path, "steer", "chains.yaml", "--run", "run").stdout
    assert "stopped by evaluation" in said
    assert "(restart): it has left no restart file to go on with" in said
    assert len(rows(tmp_path / "run")) <= 2


def test_results_and_report_show_the_chain(tmp_path: Path) -> None:
    write(tmp_path)
    done = rlctl(tmp_path, "steer", "chains.yaml")
    assert "4 of" in done.stdout
    listed = rlctl(tmp_path, "results", "runs/chains-1").stdout
    assert listed.split("\n")[0].split()[:7] == ["evaluation", "simulation", "segment", "from", "T", "steps", "status"]
    rlctl(tmp_path, "report", "runs/chains-1")
    shown = rlctl(tmp_path, "check", "chains.yaml", "--probe").stdout
    assert "x = 0." in shown or "x 0." in shown


WRONG = {
    "T: [0, 1]": ("T: [1, 0]", "chains.yaml:11: campaign.options.controls.T: low is 1, high 0: low should be less"),
    "x > 0.9": ("y > 0.9", "chains.yaml:13: campaign.options.objective: 'y > 0.9': unknown name y; known: T, x"),
    "steps: [500, 1000]": ("stps: [500, 1000]", "chains.yaml:4: program.command: placeholder {steps} is not defined"),
    "found: 4,": ("", "chains.yaml:14: campaign.options.until.found: say how many"),
}


@pytest.mark.parametrize("old", WRONG)
def test_wrong_input_is_one_line_with_its_place(tmp_path: Path, old: str) -> None:
    new, expected = WRONG[old]
    assert old in CHAINS
    write(tmp_path, CHAINS.replace(old, new))
    done = rlctl(tmp_path, "check", "chains.yaml", code=2)
    assert done.stderr.startswith(f"rlctl: {expected}")
    assert not (tmp_path / "runs").exists()
