"""Processes that steer the tiny campaign, and what they leave."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from rlctl.core.records import Record
from rlctl.executors.event_log import Journal

HERE = Path(__file__).parent
ENTRY_POINTS = "[rlctl.campaigns]\ntiny = tiny_campaign:Factory\n[rlctl.policies]\ncycling = tiny_campaign:Cycling\n"
CONFIG = """
schema: 1
seed: 0
campaign: {{name: tiny, options: {options}}}
machine: {{cores: 2}}
policies:
  breaks: {{rule: cycling, parameters: {{fails_at: 3}}}}
  odd: {{rule: cycling, parameters: {{odd: true}}}}
"""
TWO_POOLS = """
machine: {nodes: 2, cores: 1}
executor: {name: pools, options: {pools: [
  {name: here, options: {oversubscribe: true}},
  {name: there, options: {oversubscribe: true, output_mb: 1}},
]}}
"""
RUN_WITHOUT_TORCH = """
import sys
from rlctl.cli.main import main
try:
    main()
finally:
    assert "torch" not in sys.modules
"""


class Steering:
    """Starts the steering process and looks at what it leaves."""

    def __init__(self, folder: Path) -> None:
        info = folder / "tiny-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(ENTRY_POINTS)
        self.environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(HERE)])}
        self.config = folder / "tiny.yaml"
        self.run = folder / "run"
        self.processes: list[subprocess.Popen[str]] = []

    def configure(self, **options: object) -> None:
        self.config.write_text(CONFIG.format(options=json.dumps(options)))

    def start(self, *more: str, policy: str = "cycling") -> subprocess.Popen[str]:
        arguments = ["steer", str(self.config), "--policy", policy, "--run", str(self.run), "--json", *more]
        command = [sys.executable, "-c", RUN_WITHOUT_TORCH, *arguments]
        process = subprocess.Popen(
            command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.processes.append(process)
        return process

    def finish(self, *more: str, policy: str = "cycling") -> tuple[int, str, str]:
        process = self.start(*more, policy=policy)
        out, err = process.communicate(timeout=90)
        return process.returncode, out, err

    def rlctl(self, *arguments: str) -> str:
        """What another command prints; it must succeed."""
        command = [sys.executable, "-m", "rlctl.cli.main", *arguments]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=90, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def close(self) -> None:
        """Kill what still runs."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.communicate()

    def records(self) -> list[Record]:
        with Journal.open(self.run / "journal.db", read_only=True) as journal:
            return journal.records()

    def begun(self) -> list[str]:
        """Tasks in the order in which their programs began, once for each time."""
        return [line.split()[0] for line in self._begun_lines()]

    def reach(self, process: subprocess.Popen[str], tasks: int) -> None:
        """Wait until so many tasks have begun, or the process has ended."""
        await_(lambda: len(set(self.begun())) >= tasks or process.poll() is not None)

    def alive(self) -> list[int]:
        return [pid for pid in (int(line.split()[1]) for line in self._begun_lines()) if psutil.pid_exists(pid)]

    def _begun_lines(self) -> list[str]:
        file = self.run / "work" / "begun"
        return file.read_text().splitlines() if file.exists() else []


def await_(condition: Callable[[], bool], limit_s: float = 60.0) -> None:
    end_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end_s, "it never came"
        time.sleep(0.005)


def finished(records: list[Record]) -> set[str]:
    return {r.data["uid"] for r in records if r.kind == "event" and r.data["state"] in ("done", "failed", "canceled")}


def answers(records: list[Record]) -> list[tuple[int, list[int]]]:
    return [(r.data["number"], r.data["action"]) for r in records if r.kind == "decision"]


def cycle(count: int) -> list[tuple[int, list[int]]]:
    return [(i, [i % 3]) for i in range(count)]
