"""Finds the configurations that come with rlctl, installed or in a clone."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path


def shipped_folder() -> Path:
    """The folder of shipped configurations, tuned rules and saved policies."""
    package = files("rlctl")
    with as_file(package) as path:  # a folder: wheels are installed unpacked
        installed = path / "configs"
        return installed if installed.is_dir() else path.parent / "configs"


def shipped_configs() -> dict[str, Path]:
    """The shipped configurations by name."""
    return {path.stem: path for path in sorted(shipped_folder().glob("*.yaml"))}
