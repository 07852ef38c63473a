"""Names run folders: ``runs/NAME-1``, ``runs/NAME-2`` and so on, after the file of the configuration."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rlctl.config.schema import Config
from rlctl.core.errors import JournalError, RlctlError
from rlctl.executors.event_log import Journal, JournalInUseError
from rlctl.steering.config_history import KIND, newest_start
from rlctl.steering.run_folder import ENDINGS, JOURNAL, controller, has_ended, require_journal
from rlctl.system.files import storage_errors

RUNS = Path("runs")


def new_run(config: Config) -> Path:
    """Make the empty folder of a new run; of several processes, each gets another one."""
    number = max((number for number, _ in _runs(config)), default=0)
    with storage_errors(RUNS, "or choose a folder with --run"):
        RUNS.mkdir(exist_ok=True)
        while True:
            number += 1
            try:
                (run := RUNS / f"{_name(config)}-{number}").mkdir()
            except FileExistsError:
                continue
            return run


def unfinished_run(config: Config) -> Path:
    """The newest run of this configuration that has not ended and is not being steered.

    Raises:
        JournalError: there is none.
    """
    steered = ""
    for _, run in sorted(_runs(config), reverse=True):
        try:
            with Journal.open(run / JOURNAL, read_only=True) as journal:
                ended = has_ended(journal.records(kinds=ENDINGS))
        except RlctlError:  # damaged, or another host's: it can be named
            continue
        if controller(run).alive:
            steered = f"; {run} is being steered"
        elif not ended:
            return run
    pattern = RUNS / f"{_name(config)}-N"
    raise JournalError(f"no run {pattern} is unfinished{steered}: omit --resume, or name a run with --run")


def runs_of(config: Config) -> list[Path]:
    """Folders of the runs that are named after this configuration, the newest first."""
    return [run for _, run in sorted(_runs(config), reverse=True)]


def recorded_start(run: Path) -> Mapping[str, Any]:
    """What a run was started with, that is, the header of its journal, with its last policy.

    Raises:
        JournalError: there is none.
    """
    require_journal(run)
    try:
        with Journal.open(run / JOURNAL, read_only=True) as journal:
            return newest_start(journal.header, journal.records(kinds=(KIND,)))
    except JournalInUseError:  # opening it to write raises this again, with its user
        return {}


def _name(config: Config) -> str:
    return config.source.path.stem or "run"


def _runs(config: Config) -> Iterator[tuple[int, Path]]:
    """Number and folder of each run of this configuration."""
    name = re.compile(re.escape(_name(config)) + r"-([1-9]\d{0,8})")
    for path in RUNS.iterdir() if RUNS.is_dir() else ():
        if (match := name.fullmatch(path.name)) is not None:
            yield int(match[1]), path
