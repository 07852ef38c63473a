"""State of the ranks, written by one of them to a small file for the ``rlctl train`` that started them.

A launcher's own exit code does not say it: it is that of a rank that died on the way, or 1 for any end by a signal.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

VARIABLE = "RLCTL_STATUS_FILE"


def read(path: Path) -> tuple[bool, int | None]:
    """Whether all ranks have found each other and handle signals, and the first exit code of the job, if reported."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        lines = []
    codes = [int(line.removeprefix("exit ")) for line in lines if line.startswith("exit ")]
    return "ready" in lines, codes[0] if codes else None


def is_watched() -> bool:
    """Whether an ``rlctl train`` reads the file of this job."""
    return VARIABLE in os.environ


def report_ready() -> None:
    """Report, on the first rank, that all ranks have found each other."""
    _append("ready")


def report_exit_code(code: int) -> None:
    """Report that the job ends, or is ended, with this exit code."""
    _append(f"exit {code}")


def _append(line: str) -> None:
    path = os.environ.get(VARIABLE)
    if path:
        with contextlib.suppress(OSError), open(path, "a") as file:  # its reader may have gone, with the file
            file.write(line + "\n")
