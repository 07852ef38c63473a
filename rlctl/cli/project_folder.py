"""Writes a project folder: a search with a small simulation that runs as it stands, or a shipped configuration."""

from __future__ import annotations

import re
import shlex
import shutil
from importlib.resources import files
from pathlib import Path
from string import Template

from rlctl.config.load import load_config
from rlctl.config.shipped import shipped_configs
from rlctl.config.validation import did_you_mean
from rlctl.core.errors import ConfigError, StorageError
from rlctl.system.cores import usable_cores
from rlctl.system.files import require_folder, storage_errors

_MOST_CORES = 4
_TEMPLATES = {"search.yaml": "{name}.yaml", "simulate.py": "simulate.py", "README.md": "README.md"}


def write_project(folder: Path, shipped: str | None = None) -> list[Path]:
    """Write a project into a new or empty folder.

    Args:
        shipped: name of a shipped configuration; None: the search.

    Returns:
        its files, the configuration first.

    Raises:
        StorageError: the folder is not empty, or cannot be written.
        ConfigError: there is no such shipped configuration.
    """
    source = _shipped(shipped)
    require_folder(folder)
    if folder.is_dir() and any(folder.iterdir()):
        raise StorageError(f"{folder} is not empty: choose another name")
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        return _from_templates(folder) if source is None else _copied(source, folder)


def _shipped(name: str | None) -> Path | None:
    if name is None:
        return None
    known = shipped_configs()
    if name not in known:
        raise ConfigError(f"--from: unknown configuration {name!r}; {did_you_mean(name, known)}")
    return known[name]


def _from_templates(folder: Path) -> list[Path]:
    name = re.sub(r"[^\w.-]+", "-", folder.absolute().resolve().name).strip("-.") or "search"
    cores = min(usable_cores()[0], _MOST_CORES)
    values = {"name": name, "yaml": shlex.quote(f"{name}.yaml"), "run": shlex.quote(f"runs/{name}-1"), "cores": cores}
    written = []
    for template, target in _TEMPLATES.items():
        text = (files("rlctl.cli") / "project" / f"{template}.template").read_text()
        path = folder / target.format(name=name)
        path.write_text(Template(text).substitute(values))
        written.append(path)
    return written


def _copied(source: Path, folder: Path) -> list[Path]:
    """A shipped configuration with the rule files and policies that it names."""
    written = [Path(shutil.copy(source, folder))]
    for entry in load_config(source).policies.values():
        if isinstance(entry, str):
            (folder / entry).parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if (source.parent / entry).is_dir() else shutil.copy
            written.append(Path(copy(source.parent / entry, folder / entry)))
    return written
