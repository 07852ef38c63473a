"""How the ranks stand, told by one of them to the ``rlctl train`` that started them, through a small file.

A launcher's own exit code does not say it: it is that of a rank that died on the way, or 1 for any end by a signal.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "RLCTL_STANDING"


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known.

    Attributes:
        ready: the ranks have found each other, and heed signals.
        code: the exit code of the job; None: nobody has said one.
    """

    ready: bool
    code: int | None


def read(path: Path) -> Standing:
    """What ranks have told so far; the first exit code is the one that counts."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        lines = []
    codes = [int(line.removeprefix("exit ")) for line in lines if line.startswith("exit ")]
    return Standing("ready" in lines, codes[0] if codes else None)


def watched() -> bool:
    """Whether an ``rlctl train`` waits for this rank's word."""
    return VARIABLE in os.environ


def tell_ready() -> None:
    """All ranks have found each other; the first one says it."""
    _tell("ready")


def tell_code(code: int) -> None:
    """The job ends, or is ended, with this exit code."""
    _tell(f"exit {code}")


def _tell(line: str) -> None:
    path = os.environ.get(VARIABLE)
    if path:
        with contextlib.suppress(OSError), open(path, "a") as file:  # who asked may have gone, and its file with it
            file.write(line + "\n")
