"""Writes a file that is made again each time; replaces what an earlier time left, and nothing else."""

from __future__ import annotations

from pathlib import Path

from rlctl.core.errors import ConfigError
from rlctl.system.files import require_file, write_atomically

_HEAD = 512


def write_generated(path: Path, text: str, mark: str) -> None:
    """Write ``text``, whole or not at all.

    Args:
        path: the file; its folder is made.
        text: holds ``mark`` near its beginning.
        mark: by which a file that may be replaced is known.

    Raises:
        ConfigError: another program has written the file.
        StorageError: it cannot be written.
    """
    assert mark in text[:_HEAD]
    check_replaceable(path, mark)
    write_atomically(path, text)


def check_replaceable(path: Path, mark: str) -> None:
    """Refuse a path that ``write_generated`` would refuse because of what is there."""
    require_file(path)
    if not path.is_file():  # not there, or a pipe or a device, which keeps nothing
        return
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD).decode("utf-8", errors="replace")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}): choose another place with --out") from error
    if mark not in head:
        raise ConfigError(f"{path} exists, and rlctl did not write it: choose another place with --out, or remove it")
