"""Searches over a small real program, for tests."""

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys
x, y = float(sys.argv[1]), int(sys.argv[2])
if x > 4.0:
    sys.exit("diverged")
print("energy =", (x - 1.0) ** 2 + y)
print("size =", -x)
"""
SEARCH = """
schema: 1
seed: 1
program:
  command: python sim.py {x} {y}
  copy: sim.py
  results: {energy: {regex: 'energy = (\\S+)'}, size: {regex: 'size = (\\S+)'}}
  failures: {diverged: {exit_codes: [1], then: infeasible}}
  walltime_s: 20
campaign:
  name: search
  options:
    parameters: {x: {low: -5, high: 5}, y: {low: 0, high: 9, integer: true}}
    objective: {minimize: energy}
    until: {evaluations: 8}
machine: {nodes: 1, cores: 2}
"""


def write_search(folder: Path, name: str = "scan.yaml", **changes: str) -> Path:
    """The YAML file of a search, its program beside it; ``changes``: texts to replace, with underscores for spaces."""
    (folder / "sim.py").write_text(PROGRAM)
    text = SEARCH
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    (folder / name).write_text(text)
    return folder / name


def rlctl(folder: Path, *arguments: str, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder; its exit code must be as expected."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "rlctl", *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    if code:
        assert done.stderr.count("\n") == 1, done.stderr
    return done
