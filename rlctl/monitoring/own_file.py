"""Writes a file that is made again each time; replaces what an earlier time left, and nothing else."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from rlctl.errors import ConfigError

_HEAD = 512


def write_own(path: Path, text: str, mark: str) -> None:
    """Write ``text``, whole or not at all.

    Args:
        path: the file; its folder is made.
        text: holds ``mark`` near its beginning.
        mark: by which a file that may be replaced is known.

    Raises:
        ConfigError: the file is somebody else's, or cannot be written.
    """
    assert mark in text[:_HEAD]
    check_own(path, mark)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise ConfigError(f"{path}: cannot be written ({error.strerror}): choose another place with --out") from error


def check_own(path: Path, mark: str) -> None:
    """Refuse a path that ``write_own`` would refuse because of what is there."""
    if path.is_dir():
        raise ConfigError(f"{path} is a folder: give --out the file to write")
    if not path.exists():
        return
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD).decode("utf-8", errors="replace")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}): choose another place with --out") from error
    if mark not in head:
        raise ConfigError(f"{path} exists, and rlctl did not write it: choose another place with --out, or remove it")
