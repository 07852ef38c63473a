"""What ran: the versions, the commit, the machine."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any


def provenance() -> dict[str, Any]:
    """What ran: versions of rlctl and of what it computes with, its commit, Python and the platform."""
    versions = {}
    for name in ("rlctl", "numpy", "scipy", "gymnasium", "stable-baselines3", "torch", "mpi4py", "numba"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "versions": versions,
        "commit": _commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def _commit() -> str | None:
    """The commit of the checkout that this package is run from, with a plus sign if it has been changed since."""
    home = Path(__file__).resolve().parent.parent
    if not (home / ".git").exists():
        return None
    try:
        # Without optional locks: it leaves nothing in the repository, not even when it is stopped in the midst.
        git = ["git", "--no-optional-locks", "-C", str(home)]
        command = ["describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"]
        done = subprocess.run([*git, *command], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
