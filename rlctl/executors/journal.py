"""The durable record of a campaign: one SQLite file, one writer, nothing acknowledged before it is on disk."""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rlctl.errors import JournalError
from rlctl.records import Record
from rlctl.task import TaskId

SCHEMA = 1
LOCK = "lock"
"""Name of the lock file, beside the journal."""

_TABLES = """
BEGIN;
CREATE TABLE header (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE record (seq INTEGER PRIMARY KEY, time_s REAL NOT NULL, kind TEXT NOT NULL, data TEXT NOT NULL);
"""


class Journal:
    """A journal, open for its only writer (a ``rlctl.driver.Recorder``), or for readers.

    The writer holds an exclusive lock on the file ``lock`` beside the journal. The system gives it back when the
    writer dies, however it dies. Use ``create`` or ``open``, and the journal as a context manager.

    Attributes:
        path: the file.
        header: what the campaign was begun with, and ``schema``.
    """

    path: Path
    header: Mapping[str, Any]

    def __init__(self, path: Path, connection: sqlite3.Connection, lock: int | None, header: Mapping[str, Any]) -> None:
        self.path = path
        self.header = header
        self._connection = connection
        self._lock = lock

    @classmethod
    def create(cls, path: Path, header: Mapping[str, Any]) -> Journal:
        """Begin a new journal.

        Args:
            path: a file that does not exist yet.
            header: JSON-ready; ``schema`` is added.

        Raises:
            JournalError: the file exists, cannot be written, or another controller holds the folder.
        """
        if path.exists():
            raise JournalError(f"{path} exists already: resume that campaign, or choose another run folder")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise JournalError(f"{path.parent}: cannot be made ({error}): choose another run folder") from error
        lock = _take_lock(path)
        connection: sqlite3.Connection | None = None
        try:
            connection = _connect(path)
            connection.executescript(_TABLES)
            full = {**header, "schema": SCHEMA}
            connection.executemany(
                "INSERT INTO header VALUES (?, ?)", [(key, json.dumps(value)) for key, value in full.items()]
            )
            connection.execute("COMMIT")
        except BaseException as error:
            _close(connection, lock)
            if isinstance(error, sqlite3.Error):
                raise JournalError(f"{path}: cannot be written ({error}): check space and rights") from error
            raise
        return cls(path, connection, lock, full)

    @classmethod
    def open(cls, path: Path, *, read_only: bool = False) -> Journal:
        """Open an existing journal and check that it is whole.

        Args:
            path: the file.
            read_only: for reports: takes no lock, so that a campaign that is being steered can be read; no appending.

        Raises:
            JournalError: it is missing, damaged, no journal, of another schema, or another controller has it open.
        """
        if not path.is_file():
            raise JournalError(f"{path}: no such journal: give the folder of a run, or start a new one")
        lock = None if read_only else _take_lock(path)
        connection: sqlite3.Connection | None = None
        try:
            connection = _connect(path, read_only=read_only)
            header = _check(path, connection)
        except BaseException as error:
            _close(connection, lock)
            if isinstance(error, sqlite3.Error | ValueError):
                raise JournalError(
                    f"{path}: damaged or not a journal ({error}): restore it from a copy, or start a new run"
                ) from error
            raise
        return cls(path, connection, lock, header)

    def append(self, kind: str, time_s: float, data: Mapping[str, Any]) -> int:
        """Write one record and return its number; it is on disk when this returns.

        Raises:
            JournalError: it cannot be written; nothing of it was.
        """
        text = json.dumps(data)
        try:
            cursor = self._connection.execute(
                "INSERT INTO record (time_s, kind, data) VALUES (?, ?, ?)", (time_s, kind, text)
            )
        except sqlite3.Error as error:
            raise JournalError(
                f"{self.path}: cannot be written ({error}): free some space, then resume; nothing recorded is lost"
            ) from error
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def records(self, after: int = 0) -> list[Record]:
        """The records so far, in order; those with a larger number than ``after``."""
        query = "SELECT seq, time_s, kind, data FROM record WHERE seq > ? ORDER BY seq"
        try:
            rows = self._connection.execute(query, (after,)).fetchall()
            return [Record(seq, time_s, kind, json.loads(data)) for seq, time_s, kind, data in rows]
        except (sqlite3.Error, ValueError) as error:
            raise JournalError(f"{self.path}: damaged ({error}): restore it from a copy") from error

    def close(self) -> None:
        """Give the journal back; may be called twice."""
        lock, self._lock = self._lock, None
        _close(self._connection, lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def last_attempts(records: Iterable[Record]) -> dict[TaskId, int]:
    """For each task that was launched, its last attempt; what ``Driver.replay`` needs.

    >>> last_attempts([Record(1, 0.0, "launching", {"uid": "a", "attempt": 2, "cores": [0]})])
    {'a': 2}
    """
    attempts: dict[TaskId, int] = {}
    for record in records:
        if record.kind == "launching":
            uid = TaskId(record.data["uid"])
            attempts[uid] = max(attempts.get(uid, 0), int(record.data["attempt"]))
    return attempts


def _connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    mode = "ro" if read_only else "rwc"
    if read_only and not Path(f"{path}-wal").exists():
        # Nobody has it open. A reader who says so leaves no file beside it, and may read a folder it may not write to.
        mode += "&immutable=1"
    # isolation_level None: each statement is its own transaction, so an INSERT is durable when it returns.
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None)
    if not read_only:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
        except sqlite3.Error:
            connection.close()
            raise
    return connection


def _check(path: Path, connection: sqlite3.Connection) -> dict[str, Any]:
    header = {key: json.loads(value) for key, value in connection.execute("SELECT key, value FROM header")}
    schema = header.get("schema")
    if schema != SCHEMA:
        raise JournalError(
            f"{path}: journal of schema {schema}, this rlctl reads {SCHEMA}: use the rlctl version that wrote it"
        )
    verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if verdict != "ok":
        raise ValueError(verdict)
    count, last = connection.execute("SELECT count(*), coalesce(max(seq), 0) FROM record").fetchone()
    if count != last:
        raise ValueError(f"{last - count} of {last} records are missing")
    return header


def _take_lock(path: Path) -> int:
    try:
        lock = os.open(path.parent / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise JournalError(f"{path.parent}: cannot be written ({error}): choose another run folder") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(lock, 100, 0).decode(errors="replace").strip() or "unknown"
        os.close(lock)
        raise JournalError(
            f"{path.parent}: another controller is steering this run (process {holder}): stop it first"
        ) from error
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()} on {os.uname().nodename}\n".encode(), 0)
    return lock


def _close(connection: sqlite3.Connection | None, lock: int | None) -> None:
    if connection is not None:
        connection.close()
    if lock is not None:
        os.close(lock)
