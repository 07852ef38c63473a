"""Provenance of a run: versions, commit and platform."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any


def rlctl_version() -> str:
    """Version of the installed rlctl."""
    return importlib.metadata.version("rlctl")


def provenance() -> dict[str, Any]:
    """Versions of rlctl and of its numerical packages, the commit, Python and the platform."""
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
    """Commit of the checkout that holds this package, with a plus sign if files differ from it."""
    home = Path(__file__).resolve().parents[2]
    if not (home / ".git").exists():
        return None
    try:
        # Without optional locks git leaves no lock file behind when it is killed.
        git = ["git", "--no-optional-locks", "-C", str(home)]
        command = ["describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"]
        done = subprocess.run([*git, *command], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
