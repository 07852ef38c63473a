from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rlctl
from rlctl.core.errors import JournalError
from rlctl.core.records import AMENDMENTS, EVENTS, Record
from rlctl.executors.event_log import SCHEMA, Journal

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "journal.db"


def test_what_was_appended_is_there_after_closing_and_opening(path: Path) -> None:
    with Journal.create(path, {"seed": 3, "campaign": "films", "versions": {"numpy": "2"}}) as journal:
        journal.append("decision", 0.5, {"number": 0, "action": [1, 2]})
        journal.append("event", 1.5, {"uid": "a"})
    with Journal.open(path) as journal:
        assert journal.header == {"seed": 3, "campaign": "films", "versions": {"numpy": "2"}, "schema": SCHEMA}
        journal.append("time", 2.0, {})
        assert journal.records() == [
            Record(1, 0.5, "decision", {"number": 0, "action": [1, 2]}),
            Record(2, 1.5, "event", {"uid": "a"}),
            Record(3, 2.0, "time", {}),
        ]


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.tuples(st.text(), st.floats(0, 1e9), st.dictionaries(st.text(), json_values, max_size=3)), max_size=5)
)
def test_records_come_back_as_they_were_written(tmp_path_factory: pytest.TempPathFactory, entries: list) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal.db"
    with Journal.create(path, {}) as journal:
        for kind, time_s, data in entries:
            journal.append(kind, time_s, data)
    with Journal.open(path) as journal:
        assert [(r.kind, r.time_s, r.data) for r in journal.records()] == entries
        assert [r.seq for r in journal.records()] == list(range(1, len(entries) + 1))


def test_existing_journal_is_not_overwritten(path: Path) -> None:
    Journal.create(path, {}).close()
    with pytest.raises(JournalError, match="exists already"):
        Journal.create(path, {})


def test_missing_journal_is_refused_and_not_made(path: Path) -> None:
    with pytest.raises(JournalError, match="no such journal"):
        Journal.open(path)
    assert not path.exists()


def test_unknown_schema_is_refused(path: Path) -> None:
    Journal.create(path, {}).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE header SET value = '99' WHERE key = 'schema'")
    connection.close()
    with pytest.raises(JournalError, match=rf"schema 99, this rlctl reads {SCHEMA}: use the rlctl version"):
        Journal.open(path)


@pytest.mark.parametrize("content", [b"", b"not a database, but long enough to be taken for one\n" * 100])
def test_file_that_is_no_journal_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "journal.db"
    path.write_bytes(content)
    with pytest.raises(JournalError, match="damaged or not a journal"):
        Journal.open(path)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_truncated_journal_is_refused(path: Path, share: float) -> None:
    with Journal.create(path, {}) as journal:
        for i in range(200):
            journal.append("event", float(i), {"text": "x" * 200})
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(JournalError, match="damaged"):
        Journal.open(path)


def test_journal_with_a_missing_record_is_refused(path: Path) -> None:
    with Journal.create(path, {}) as journal:
        for i in range(3):
            journal.append("event", float(i), {})
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM record WHERE seq = 2")
    connection.close()
    with pytest.raises(JournalError, match="1 of 3 records are missing"):
        Journal.open(path)


def test_every_kind_of_record_stands_in_the_table_and_is_written_in_one_place() -> None:
    found: dict[str, set[str]] = {}
    paths = list(Path(rlctl.__file__).parent.glob("[cse]*/*.py"))  # core, executors, steering
    paths.remove(Path(rlctl.__file__).parent / "steering" / "by_hand.py")  # there, people are executor and controller
    for path in paths:
        for kind in re.findall(r'(?:append|write|_record)\(\s*"([a-z]+)"', re.sub(r">>> .*", "", path.read_text())):
            found.setdefault(kind, set()).add(path.name)
    assert found.pop("time") == {"driver.py", "control_loop.py"}  # the second, where a controller stops
    assert found.keys() == EVENTS.keys() - {"time", *AMENDMENTS}  # these by Driver.amend, whatever their kind
    assert all(len(places) == 1 for places in found.values()), found
