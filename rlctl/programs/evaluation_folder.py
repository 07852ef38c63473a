"""The folder of an evaluation: made anew for each attempt, with copies, links and rendered templates."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlctl.programs.placeholders import render


def fill_folder(program: Mapping[str, Any], values: Mapping[str, Any], folder: Path) -> None:
    """Make the folder of an evaluation anew, with what the program finds there.

    Raises:
        OSError: a file cannot be copied or written.
        ConfigError: a placeholder of a template cannot be replaced.
    """
    remove(folder)
    folder.mkdir(parents=True)
    for source in program["copy"]:
        _copy(Path(source), folder, Path(program["here"]))
    for source in program["link"]:
        (folder / Path(source).name).symlink_to(source)
    first, last = program["delimiters"]
    for name, template in program["templates"].items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(render(template["text"], values, (first, last)))
        target.chmod(template["mode"])


def copy_over(source: Path, target: Path) -> None:
    """Copy a file or folder to a path, in place of what is there."""
    remove(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copy2(source, target)


def remove(path: Path) -> None:
    """Remove a file or folder, if it is there and can be removed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _copy(source: Path, folder: Path, here: Path) -> None:
    """Copy a file or folder, but not the runs of campaigns in it, of which this folder is a part."""
    if not source.is_dir():
        shutil.copy2(source, folder / source.name)
    elif not folder.is_relative_to(source) or here.is_relative_to(source):

        def runs(inside: str, names: list[str]) -> list[str]:
            return [name for name in names if folder.is_relative_to(os.path.join(inside, name))]

        shutil.copytree(source, folder / source.name, ignore=runs)
