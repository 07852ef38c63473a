"""Checkpoint folders: written atomically, and used only while their checksums hold."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

log = logging.getLogger(__name__)
SUMS = "sums.json"
"""SHA-256 and size of each file of a checkpoint; written last."""


class CheckpointFolder:
    """Checkpoints under names that sort by age; the newest ``keep`` stay.

    Args:
        folder: made with the first checkpoint.
        keep: how many.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder, self.keep = folder, keep

    def write(self, name: str, fill: Callable[[Path], object]) -> None:
        """Write a checkpoint, replacing one of this name, then remove old ones.

        Args:
            fill: writes the files into the given folder.

        Raises:
            OSError: it cannot be written; earlier ones are unharmed.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".", dir=self.folder.resolve()))
        try:
            fill(temporary)
            sums = {file.name: _sum(file) for file in sorted(temporary.iterdir())}
            (temporary / SUMS).write_text(json.dumps(sums, indent=1))
            for file in [*temporary.iterdir(), temporary]:
                _flush(file)
            final = self.folder / name
            if final.exists():
                final.rename(self.folder / f".{name}")
            temporary.rename(final)
            _flush(self.folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        self.tidy()

    def names(self) -> list[str]:
        """Names of all checkpoints, oldest first, complete or not."""
        if not self.folder.is_dir():
            return []
        return sorted(path.name for path in self.folder.iterdir() if not path.name.startswith(".") and path.is_dir())

    def newest(self) -> Path | None:
        """The newest complete one; those that are damaged are skipped with a warning."""
        for name in reversed(self.names()):
            problem = _problem(self.folder / name)
            if problem is None:
                return self.folder / name
            log.warning("%s is damaged (%s) and skipped", self.folder / name, problem)
        return None

    def tidy(self) -> None:
        """Remove all but the newest, and leftovers of killed writers."""
        for name in self.names()[: -self.keep]:
            # A kill leaves no half of it that looks like a checkpoint.
            (self.folder / name).rename(self.folder / f".{name}")
        for left in self.folder.glob(".*"):
            shutil.rmtree(left)


def _problem(folder: Path) -> str | None:
    try:
        sums = json.loads((folder / SUMS).read_text())
        for name, expected in sums.items():
            if _sum(folder / name) != expected:
                return f"{name} is not what was written"
    except (OSError, ValueError, AttributeError) as error:
        return f"torn: {type(error).__name__}"
    return None


def _sum(file: Path) -> list[str | int]:
    with file.open("rb") as opened:
        return [hashlib.file_digest(opened, "sha256").hexdigest(), file.stat().st_size]


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
