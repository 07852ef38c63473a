"""Folders that appear whole or not at all, and are believed only while they are as they were written."""

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
"""Of a checkpoint: SHA-256 and size of each of its files; written last."""


class CheckpointFolder:
    """Checkpoints under names that sort by age; the newest ``keep`` stay.

    Args:
        folder: made with the first checkpoint.
        keep: how many.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder, self.keep = folder, keep

    def write(self, name: str, fill: Callable[[Path], object]) -> None:
        """Write a checkpoint, then remove what is of no more use; one of this name gives way.

        Args:
            fill: writes the files into the folder that it is given.

        Raises:
            OSError: it cannot be written; those that were there still are.
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
        """Of all checkpoints, oldest first, whole or not."""
        if not self.folder.is_dir():
            return []
        return sorted(path.name for path in self.folder.iterdir() if not path.name.startswith(".") and path.is_dir())

    def newest(self) -> Path | None:
        """The newest whole one; what is torn or damaged is passed over, and told of."""
        for name in reversed(self.names()):
            problem = _problem(self.folder / name)
            if problem is None:
                return self.folder / name
            log.warning("%s cannot be used (%s): the checkpoint before it is", self.folder / name, problem)
        return None

    def tidy(self) -> None:
        """Remove all but the newest, and what a killed writer has left."""
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
