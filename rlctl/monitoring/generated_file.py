"""Writes generated files; replaces an earlier generated file, but never a file of the user."""

from __future__ import annotations

from pathlib import Path

from rlctl.core.errors import ConfigError
from rlctl.system.files import require_file, write_atomically

_HEAD = 512


def write_generated(path: Path, text: str, mark: str) -> None:
    """Write ``text`` atomically.

    Args:
        path: the file; missing folders are made.
        text: contains ``mark`` within its first 512 characters.
        mark: identifies files that may be replaced.

    Raises:
        ConfigError: the file exists without the mark.
        StorageError: the file cannot be written.
    """
    assert mark in text[:_HEAD]
    check_replaceable(path, mark)
    write_atomically(path, text)


def check_replaceable(path: Path, mark: str) -> None:
    """Raise ConfigError if ``path`` is a file without the mark."""
    require_file(path)
    if not path.is_file():  # new, or a pipe or a device
        return
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD).decode("utf-8", errors="replace")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}): choose another file with --out") from error
    if mark not in head:
        raise ConfigError(f"{path} exists, and rlctl did not write it: choose another file with --out, or remove it")
