"""Shared memory that a killed MPICH job leaves in /dev/shm; unlike Open MPI, MPICH cannot use another folder."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

FOLDER = Path("/dev/shm")
_OURS = "mpich_shm_*"


def present() -> set[str]:
    """Names of the segments that are there now."""
    return {path.name for path in FOLDER.glob(_OURS)}


def remove_since(before: set[str]) -> None:
    """Remove this user's segments that were not there ``before`` and that no process maps any more."""
    fresh = present() - before
    if not fresh:
        return
    used = _mapped()
    for name in fresh - used:
        with contextlib.suppress(OSError):
            if (FOLDER / name).stat().st_uid == os.getuid():
                (FOLDER / name).unlink()


def _mapped() -> set[str]:
    found: set[str] = set()
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with contextlib.suppress(OSError):
            found.update(re.findall(r"/dev/shm/(\S+)", maps.read_text()))
    return found
