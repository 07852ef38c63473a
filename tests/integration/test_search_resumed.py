"""A search whose controller is killed goes on where it was: nothing is lost, and no point is evaluated again."""

import importlib.util
import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from search_runs import rlctl

PROGRAM = """
import sys, time
x, y, log, task = float(sys.argv[1]), float(sys.argv[2]), sys.argv[3], sys.argv[4]
time.sleep(0.15)
with open(log, "a") as file:
    print(task, x, y, file=file)
print("loss =", (x - 0.3) ** 2 + (y - 0.7) ** 2)
"""
SEARCH = """
program:
  command: python {here}/sim.py {x:.17g} {y:.17g} {here}/log.txt {task}
  results: {loss: {regex: 'loss = (\\S+)'}}
  walltime_s: 60
campaign:
  options:
    parameters: {x: {low: 0, high: 1}, y: {low: 0, high: 1}}
    objective: {minimize: loss}
    until: {evaluations: 30}
machine: {nodes: 1, cores: 2}
"""
RULES = ["target_per_second", "cma_es", "optuna"]


@pytest.mark.parametrize("rule", RULES)
def test_a_killed_search_goes_on_without_loss_or_repetition(tmp_path: Path, rule: str) -> None:
    if rule == "optuna" and importlib.util.find_spec("optuna") is None:
        pytest.skip("optuna is not installed: pip install 'rlctl[optuna]'")
    (tmp_path / "sim.py").write_text(PROGRAM)
    (tmp_path / "scan.yaml").write_text(SEARCH)
    log = tmp_path / "log.txt"
    command = [sys.executable, "-P", "-m", "rlctl", "steer", "scan.yaml", "--policy", rule, "--run", "run"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    limit_s = time.monotonic() + 90
    while time.monotonic() < limit_s and not (log.exists() and log.read_text().count("\n") >= 12):
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.communicate(timeout=30)
    done = rlctl(tmp_path, "steer", "scan.yaml", "--policy", rule, "--run", "run", "--resume", "--json")
    summary = json.loads(done.stdout)
    assert summary["extra"]["evaluations_done"] >= 30
    lines = [line.split() for line in log.read_text().splitlines()]
    again = [task for task, count in Counter(line[0] for line in lines).items() if count > 1]
    assert len(again) <= 2  # what ran at the moment of the kill, if its end was not recorded
    assert len({tuple(line[1:]) for line in lines}) == len(lines) - len(again)
    assert {int(line[0]) for line in lines} >= set(range(30))
