"""Commands that run while code of a plug-in hangs or fails."""

import re
import subprocess
import sys
from pathlib import Path

from steering_process import Steering

CONFIG = """
schema: 1
seed: 0
campaign: {name: hanging, options: {parts: 6}}
machine: {cores: 2}
evaluate: {instances: 2, decision_timeout_s: LIMIT}
steer: {decision_timeout_s: LIMIT}
policies: {hanging: {rule: hanging}, cycling: {rule: cycling}}
"""
POINTS = (
    "[rlctl.campaigns]\nhanging = hanging:Factory\n"
    "[rlctl.policies]\nhanging = hanging:Hanging\ncycling = tiny_campaign:Cycling\n"
)


class Machine(Steering):
    """Runs commands while some code hangs."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        (folder / "tiny-1.0.dist-info" / "entry_points.txt").write_text(POINTS)
        self.environment |= {"CURED": str(folder / "cured"), "HANG_IN": "nowhere"}
        self.limit(1.0)

    def limit(self, seconds: float) -> None:
        self.config.write_text(CONFIG.replace("LIMIT", str(seconds)))

    def hang(self, place: str, how: str) -> None:
        self.environment |= {"HANG_IN": place, "HANG": how}

    def launch(self, command: str, *more: object, first: str = "") -> subprocess.Popen[str]:
        named = [first] if first else []
        arguments = [sys.executable, "-m", "rlctl.cli.main", command, *named, str(self.config), *map(str, more)]
        process = subprocess.Popen(
            arguments, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.processes.append(process)
        return process

    def command(self, command: str, *more: object, first: str = "") -> tuple[int, str]:
        process = self.launch(command, *more, first=first)
        _, err = process.communicate(timeout=120)
        return process.returncode, err


def said(err: str) -> list[str]:
    """Standard error without lines of progress."""
    return [line for line in err.splitlines() if not re.match(r"\w+( \w+)?: \d", line)]
