"""The folder of a steered campaign, for those who only read it: reports, traces, status. Nothing here writes."""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlctl.config.load import load_config, load_rule_file
from rlctl.config.schema import Config
from rlctl.core.errors import ConfigError, JournalError
from rlctl.core.records import Record
from rlctl.executors.event_log import Journal
from rlctl.executors.ownership import LOCK, read_owner
from rlctl.monitoring.timeline import Timeline
from rlctl.plugins.registry import executor_options

JOURNAL, CONFIG, SUMMARY, TENSORBOARD, WORK = "journal.db", "config.yaml", "summary.json", "tensorboard", "work"
MADE = (WORK, CONFIG, LOCK, JOURNAL)
"""What a campaign begins with; the journal comes last, by which a run folder is known."""

_OF_TRAINING = ("checkpoints", "policy")


@dataclass(frozen=True)
class RunFolder:
    """What a run folder holds at one moment.

    Attributes:
        header: what the campaign was begun with.
        records: of the journal, so far.
    """

    path: Path
    config: Config
    header: Mapping[str, Any]
    records: Sequence[Record]
    timeline: Timeline


@dataclass(frozen=True, slots=True)
class Controller:
    """Who steers a run.

    Attributes:
        alive: None: cannot be told from this machine.
        holder: the last one, e.g. ``"4711 on node17"``; empty if there never was one.
    """

    alive: bool | None
    holder: str


def read_run(path: Path) -> RunFolder:
    """Read a run folder, whether or not its campaign has ended or is being steered.

    Raises:
        JournalError: it is no run folder, or its journal is damaged.
        ConfigError: its configuration is missing or damaged.
    """
    try:
        _require_run(path)
    except OSError as error:
        raise JournalError(f"{path}: cannot be read ({error.strerror}): give a run folder that you may read") from error
    config = load_config(path / CONFIG)
    with Journal.open(path / JOURNAL, read_only=True) as journal:
        header, records = journal.header, journal.records()
    try:
        timeline = Timeline.read(records, config.machine.capacity())
    except (KeyError, TypeError, ValueError) as error:
        raise JournalError(f"{path / JOURNAL}: damaged, a record cannot be read ({error!r}): restore it") from error
    return RunFolder(path, config, header, records, timeline)


def _require_run(path: Path) -> None:
    if not path.exists():
        raise JournalError(f"{path}: no such folder: give the folder that rlctl steer --run wrote")
    if not path.is_dir():
        raise JournalError(f"{path} is a file: give the folder that rlctl steer --run wrote")
    if not (path / JOURNAL).exists():
        if any((path / name).exists() for name in _OF_TRAINING):
            raise JournalError(
                f"{path} is the folder of a training: this needs the folder of a steered campaign, which has a "
                f"{JOURNAL}; curves of a training: rlctl board {shlex.quote(str(path))}"
            )
        raise JournalError(
            f"{path} is no run folder, it has no {JOURNAL}: give the folder that rlctl steer --run wrote"
        )
    if not (path / CONFIG).exists():
        raise ConfigError(f"{path / CONFIG}: no such file: it belongs to the run; put a copy back")


def controller(path: Path) -> Controller:
    """Who steers the run in ``path``, as the file of its owner says; see ``rlctl.executors.ownership``."""
    owner = read_owner(path)
    if owner is None:
        return Controller(False, "")
    if not owner.here():
        return Controller(None, owner.name)
    return Controller(owner.beat >= 0 and owner.alive(), owner.name)


def now_s(run: RunFolder) -> float:
    """Where the clock of a run that is being steered stands: its last record's time, and what has passed since."""
    written = []
    for name in (JOURNAL, f"{JOURNAL}-wal"):
        with contextlib.suppress(OSError):  # the log goes when its writer does
            written.append((run.path / name).stat().st_mtime)
    return run.timeline.end_s + max(time.time() - max(written, default=time.time()), 0.0)


def portable(config: Config) -> Config:
    """The same experiment wherever its file lies: rule files are written out, all other paths are absolute."""
    entries: dict[str, Any] = {}
    for name, entry in config.policies.items():
        entries[name] = entry
        if isinstance(entry, str):
            path = config.resolve(entry)
            entries[name] = str(path.absolute())
            if path.is_file():
                with contextlib.suppress(ConfigError):
                    entries[name] = load_rule_file(path).entry
    executor = config.executor.model_copy(update={"options": executor_options(config)})
    return config.model_copy(update={"policies": entries, "executor": executor})
