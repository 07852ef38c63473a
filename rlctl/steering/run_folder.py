"""Reads the folder of a steered campaign, for reports, traces and status; writes nothing."""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Iterable, Mapping, Sequence
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
from rlctl.steering.config_history import newest_config, newest_start

JOURNAL, CONFIG, SUMMARY, TENSORBOARD, WORK = "journal.db", "config.yaml", "summary.json", "tensorboard", "work"
MADE = (WORK, CONFIG, LOCK, JOURNAL)
"""Entries of a new run folder; the journal, which identifies it, comes last."""

ENDINGS = ("ended", "epoch", "rerun")
"""Kinds of records that say whether a campaign has ended: the last one of them counts."""

_OF_TRAINING = ("checkpoints", "policy")


@dataclass(frozen=True)
class RunFolder:
    """Content of a run folder at one moment, with header and records of its journal."""

    path: Path
    config: Config
    header: Mapping[str, Any]
    records: Sequence[Record]
    timeline: Timeline


@dataclass(frozen=True, slots=True)
class Controller:
    """The process that steers a run.

    Attributes:
        alive: whether it runs; None: unknown, since it is on another machine.
        holder: process id and host of the last one, e.g. ``"4711 on node17"``; empty if there was none.
    """

    alive: bool | None
    holder: str


def read_run(path: Path) -> RunFolder:
    """Read a run folder; its campaign may have ended or be running.

    Raises:
        JournalError: ``path`` is not a run folder, or its journal is damaged.
        ConfigError: its configuration is missing or damaged.
    """
    try:
        require_run(path)
    except OSError as error:
        raise JournalError(f"{path}: cannot be read ({error.strerror}): give a readable run folder") from error
    with Journal.open(path / JOURNAL, read_only=True) as journal:
        records = journal.records()
        header = newest_start(journal.header, records)
    config = newest_config(recorded_config(path), records)
    try:
        timeline = Timeline.read(records, config.machine.capacity())
    except (KeyError, TypeError, ValueError) as error:
        raise JournalError(f"{path / JOURNAL}: damaged, a record cannot be read ({error!r}): restore it") from error
    return RunFolder(path, config, header, records, timeline)


def recorded_config(path: Path) -> Config:
    """The configuration in a run folder."""
    return load_config(path / CONFIG)


def has_ended(records: Iterable[Record]) -> bool:
    """Whether a campaign has ended, and nothing was asked of it since."""
    ended = False
    for record in records:
        ended = record.kind == "ended" or (ended and record.kind not in ENDINGS)
    return ended


def require_journal(run: Path) -> None:
    """Raise JournalError if a folder holds no campaign that could be resumed."""
    if not (run / JOURNAL).exists():
        raise JournalError(f"{run}: nothing to resume, there is no {JOURNAL}; to start a campaign, omit --resume")


def require_run(path: Path) -> None:
    """Raise JournalError, or ConfigError, if a folder is no run folder."""
    if not path.exists():
        raise JournalError(f"{path}: no such folder: give a run folder of rlctl steer --run")
    if not path.is_dir():
        raise JournalError(f"{path} is a file: give a run folder of rlctl steer --run")
    if not (path / JOURNAL).exists():
        if any((path / name).exists() for name in _OF_TRAINING):
            raise JournalError(
                f"{path} is the folder of a training, not of a steered campaign, which has a {JOURNAL}; "
                f"for curves of the training: rlctl board {shlex.quote(str(path))}"
            )
        raise JournalError(f"{path} is not a run folder, it has no {JOURNAL}: give a run folder of rlctl steer --run")
    if not (path / CONFIG).exists():
        raise ConfigError(f"{path / CONFIG}: no such file: the run needs it; restore a copy")


def controller(path: Path) -> Controller:
    """The controller of a run, from its owner file; see ``rlctl.executors.ownership``."""
    owner = read_owner(path)
    if owner is None:
        return Controller(False, "")
    if not owner.here():
        return Controller(None, owner.name)
    return Controller(owner.beat >= 0 and owner.alive(), owner.name)


def now_s(run: RunFolder) -> float:
    """Current time on the clock of a run in progress: that of the last record plus the time since."""
    written = []
    for name in (JOURNAL, f"{JOURNAL}-wal"):
        with contextlib.suppress(OSError):  # SQLite removes the log at the end
            written.append((run.path / name).stat().st_mtime)
    return run.timeline.end_s + max(time.time() - max(written, default=time.time()), 0.0)


def portable(config: Config) -> Config:
    """The configuration independent of its path: rule files are inlined, other paths made absolute."""
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
    changed: dict[str, Any] = {"policies": entries, "executor": executor}
    if config.twin is not None:
        changed["twin"] = config.twin.absolute(config.resolve)
    if config.program is not None or config.programs:
        changed["folder"] = str(config.resolve(config.folder or "").absolute())
    return config.model_copy(update=changed)
