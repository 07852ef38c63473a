"""The journal of a campaign: one SQLite file, one writer, nothing acknowledged before it is on disk.

Records that are written while the disk is busy go together into the next transaction (group commit), so that the price
of durability is paid once for all of them. SQLite runs in WAL mode with ``synchronous=FULL``: a commit returns when the
device says that it has the data.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rlctl.core.errors import JournalError, RlctlError
from rlctl.core.json_values import json_text
from rlctl.core.records import Record
from rlctl.executors.ownership import BEAT_S, Ownership, networked

log = logging.getLogger(__name__)

SCHEMA = 2
_TABLES = """
BEGIN;
CREATE TABLE header (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE record (seq INTEGER PRIMARY KEY, time_s REAL NOT NULL, kind TEXT NOT NULL, data TEXT NOT NULL);
"""


_Pending = tuple[str, float, str, Callable[[JournalError | None], None] | None]


class JournalInUseError(RlctlError):
    """Only its controller can read the journal at present."""


class Journal:
    """A journal, open for its only writer (a ``rlctl.core.records.Recorder``), or for readers.

    The writer holds an exclusive lock on the file ``lock`` beside the journal. The system gives it back when the
    writer dies, however it dies. Use ``create`` or ``open``, and the journal as a context manager.

    Attributes:
        path: the file.
        header: what the campaign was begun with, and ``schema``.
        exclusive: whether no other process can read it meanwhile, since other hosts may see its file system.
    """

    def __init__(
        self,
        path: Path,
        connection: sqlite3.Connection,
        ownership: Ownership | None,
        header: Mapping[str, Any],
        opened: ExitStack[None],
        *,
        exclusive: bool,
    ) -> None:
        self.path = path
        self.header = header
        self.exclusive = exclusive
        self._connection: sqlite3.Connection | None = connection
        self._ownership = ownership
        self._opened = opened  # connection and ownership
        self._lock = threading.RLock()
        self._pending: deque[_Pending] = deque()
        self._batch: list[_Pending] | None = None
        self._batch_thread = 0
        self._writer: threading.Thread | None = None
        self._wanted = threading.Event()
        self._closed = False
        if exclusive:
            self._start_writer()

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
        shared, full = networked(path.parent), {**header, "schema": SCHEMA}
        rows = [(key, _text(value)) for key, value in full.items()]
        with ExitStack[None]() as opened:
            ownership = opened.enter_context(closing(Ownership(path.parent, shared)))
            try:
                connection = opened.enter_context(closing(_connect(path, exclusive=shared)))
                connection.executescript(_TABLES)
                connection.executemany("INSERT INTO header VALUES (?, ?)", rows)
                connection.execute("COMMIT")
            except sqlite3.Error as error:
                raise JournalError(f"{path}: cannot be written ({error}): check space and rights") from error
            return cls(path, connection, ownership, full, opened.pop_all(), exclusive=shared)

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
        shared = networked(path.parent)
        with ExitStack[None]() as opened:
            ownership = None if read_only else opened.enter_context(closing(Ownership(path.parent, shared)))
            try:
                connection = opened.enter_context(closing(_connect(path, read_only=read_only, exclusive=shared)))
                header = _check(path, connection)
            except (sqlite3.Error, ValueError) as error:
                if read_only and shared and isinstance(error, sqlite3.OperationalError):
                    raise JournalInUseError(
                        f"{path}: its controller keeps it to itself, since other hosts see this file system: "
                        "read status.json beside it, or wait for the end"
                    ) from error
                raise JournalError(
                    f"{path}: damaged or not a journal ({error}): restore it from a copy, or start a new run"
                ) from error
            return cls(path, connection, ownership, header, opened.pop_all(), exclusive=shared and not read_only)

    def append(self, kind: str, time_s: float, data: Mapping[str, Any]) -> None:
        """Write one record; it is on disk when this returns, or at the end of ``batch``.

        Raises:
            JournalError: it cannot be written; nothing of it was.
        """
        record = (kind, time_s, _text(data), None)
        if self._batch is not None and self._batch_thread == threading.get_ident():
            self._batch.append(record)
        else:
            self._commit([record])

    def write(
        self,
        kind: str,
        time_s: float,
        data: Mapping[str, Any],
        done: Callable[[JournalError | None], None] | None = None,
    ) -> None:
        """Write one record soon; returns at once.

        Args:
            done: called, from any thread, when it is on disk, or with the reason why it cannot be written.
        """
        self._pending.append((kind, time_s, _text(data), done))
        if self._writer is None:
            self._start_writer()
        self._wanted.set()

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Records that are appended inside, by this thread, are on disk, all or none, when the block ends.

        Raises:
            JournalError: they cannot be written.
        """
        outer = self._batch is not None
        if not outer:
            self._batch, self._batch_thread = [], threading.get_ident()
        try:
            yield
        finally:
            if not outer:
                records, self._batch = self._batch, None
                self._commit(records or [])

    def _commit(self, records: list[_Pending]) -> None:
        """Bring these records onto the disk, and what is pending."""
        failed: list[JournalError | None] = []
        if records:
            self._pending.extend([*records[:-1], (*records[-1][:3], failed.append)])
        self._flush()
        if failed and failed[0] is not None:  # another thread has tried, and failed
            raise failed[0]

    def _flush(self) -> None:
        """Bring everything that is pending onto the disk, in one transaction."""
        with self._lock:
            if self._connection is None:
                return
            error: JournalError | None = None
            try:
                if self._ownership is not None:
                    self._ownership.keep()
            except JournalError as taken_over:
                error = taken_over
            if not self._pending:
                return
            rows = []
            while self._pending:
                rows.append(self._pending.popleft())
            try:
                if error is None:
                    with self._connection:  # commits, or rolls back
                        self._connection.execute("BEGIN IMMEDIATE")
                        self._connection.executemany(
                            "INSERT INTO record (time_s, kind, data) VALUES (?, ?, ?)",
                            [(time_s, kind, text) for kind, time_s, text, _ in rows],
                        )
            except Exception as cause:
                error = JournalError(
                    f"{self.path}: cannot be written ({cause}): free some space, then resume; nothing recorded is lost"
                )
            failed: BaseException | None = error
            for *_, done in rows:
                try:
                    if done is not None:
                        done(error)
                except BaseException as raised:  # all others are called all the same
                    failed = failed or raised
            if failed is not None:
                raise failed

    def _start_writer(self) -> None:
        self._writer = threading.Thread(target=self._write_on, name="rlctl-journal", daemon=True)
        self._writer.start()

    def _write_on(self) -> None:
        """The writer's thread; it also shows other hosts that the owner lives."""
        while (self._wanted.wait(BEAT_S if self.exclusive else None) or self.exclusive) and not self._closed:
            self._wanted.clear()
            try:
                self._flush()
            except JournalError:  # callbacks have it; what follows will fail likewise
                pass
            except BaseException:
                log.exception("%s: the callback of a record has failed", self.path)

    def records(self, after: int = 0, kinds: Collection[str] | None = None) -> list[Record]:
        """The records so far, in order; those with a larger number than ``after``, of these kinds (None: of all)."""
        query = "SELECT seq, time_s, kind, data FROM record WHERE seq > ?"
        if kinds is not None:
            query += f" AND kind IN ({', '.join('?' * len(kinds))})"
        found: list[Record] = []
        try:
            with self._lock:
                assert self._connection is not None
                rows = self._connection.execute(f"{query} ORDER BY seq", (after, *(kinds or ()))).fetchall()
            for start in range(0, len(rows), 1000):  # many at once are decoded in half the time
                some = rows[start : start + 1000]
                decoded = json.loads(f"[{','.join([row[3] for row in some])}]")
                found += [Record(seq, at, kind, data) for (seq, at, kind, _), data in zip(some, decoded, strict=True)]
        except (sqlite3.Error, ValueError, TypeError) as error:
            raise JournalError(f"{self.path}: damaged ({error}): restore it from a copy") from error
        return found

    def close(self) -> None:
        """Give the journal back; may be called twice."""
        self._closed = True
        self._wanted.set()
        if self._writer is not None and self._writer is not threading.current_thread():
            self._writer.join()
        with self._lock, self._opened:
            try:
                self._flush()
            finally:
                self._connection = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def _text(data: object) -> str:
    """As JSON. What a policy, campaign or program gives may hold anything; NaN stays, since a replay has to see it."""
    try:
        return json.dumps(data)
    except (TypeError, ValueError, RecursionError):
        return json_text(data, finite=False)


def _connect(path: Path, *, read_only: bool = False, exclusive: bool = False) -> sqlite3.Connection:
    mode = "ro" if read_only else "rwc"
    if read_only and not Path(f"{path}-wal").exists():
        # It is not open. A reader that says so leaves no file beside it, and may read a folder it may not write to.
        mode += "&immutable=1"
    # isolation_level None: each statement is its own transaction, so an INSERT is durable when it returns.
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None, check_same_thread=False
    )
    if not read_only:
        try:
            if exclusive:  # then the log needs no shared memory, which network file systems do not have
                connection.execute("PRAGMA locking_mode=EXCLUSIVE")
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
    found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise ValueError(found)
    count, last = connection.execute("SELECT count(*), coalesce(max(seq), 0) FROM record").fetchone()
    if count != last:
        raise ValueError(f"{last - count} of {last} records are missing")
    return header
