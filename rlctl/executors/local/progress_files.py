"""What running programs say of themselves: lines of JSON that they append to files."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlctl.core.task import TaskId, TaskSpec
from rlctl.executors.functions.large_results import read_object

MOST_BYTES = 1 << 16
"""Of a file's end are looked at, at a time."""


class ProgressFiles:
    """Reads the newest report of each task. Where nothing was written nothing is read.

    Args:
        workdir: working directory of the programs.
    """

    def __init__(self, workdir: Path) -> None:
        self._workdir = workdir
        self._ends: dict[TaskId, int] = {}

    def newest(self, spec: TaskSpec) -> Mapping[str, Any] | None:
        """The last whole line, if there is one that was not given before and is a JSON object."""
        if spec.progress_file is None:
            return None
        path = self._workdir / spec.progress_file
        try:
            about = os.stat(path)
            size, before = about.st_size, self._ends.get(spec.uid, 0)
            if size == before or not stat.S_ISREG(about.st_mode):  # a pipe would hold up everything
                return None
            with open(path, "rb") as file:
                file.seek(max(0, size - MOST_BYTES))
                lines = file.read(MOST_BYTES).split(b"\n")
        except OSError:  # not there yet, or out of sight for a moment
            return None
        end, whole = size - len(lines[-1]), lines[:-1]  # what follows the last end of a line is still being written
        if not whole or end == before:
            return None
        self._ends[spec.uid] = end
        try:
            return read_object(whole[-1])
        except ValueError:
            return None
