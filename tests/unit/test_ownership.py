"""One controller per run, with and without file locks, on one host and on several."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import threading
from pathlib import Path
from typing import Any

import pytest

from rlctl.core.errors import JournalError
from rlctl.executors import event_log as journals
from rlctl.executors import ownership
from rlctl.executors.event_log import Journal, JournalInUseError
from rlctl.executors.local.processes import boot, start_time
from rlctl.executors.ownership import LOCK, Ownership, networked, read_owner


def said(folder: Path, **about: Any) -> None:
    """As an owner of another host would write it."""
    owner = {"pid": 7, "host": "elsewhere", "start": 3, "boot": "elsewhere x", "epoch": 4, "beat": 10, **about}
    (folder / LOCK).write_text(json.dumps(owner))


@pytest.fixture
def without_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(file: int, operation: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)


def test_every_owner_has_an_epoch_of_its_own(tmp_path: Path) -> None:
    for epoch in (1, 2, 3):
        owner = Ownership(tmp_path)
        now = read_owner(tmp_path)
        assert now is not None
        assert (now.epoch, now.pid, now.host) == (epoch, os.getpid(), platform.node())
        assert now.alive()
        owner.close()


def test_a_second_owner_is_refused(tmp_path: Path) -> None:
    first = Ownership(tmp_path)
    with pytest.raises(JournalError, match=f"another controller is steering this run .process {os.getpid()} on "):
        Ownership(tmp_path)
    first.close()


def test_a_child_that_a_killed_owner_was_about_to_start_is_waited_for(tmp_path: Path) -> None:
    """Between fork and exec it holds the lock as well."""
    said(tmp_path, host=platform.node(), boot=boot(), pid=os.getppid(), start=1)
    with (tmp_path / LOCK).open("r+") as inherited:
        fcntl.flock(inherited, fcntl.LOCK_EX)
        thread = threading.Timer(0.2, fcntl.flock, (inherited, fcntl.LOCK_UN))
        thread.start()
        owner = Ownership(tmp_path)
        assert read_owner(tmp_path).epoch == 5  # type: ignore[union-attr]
        owner.close()
        thread.join()


@pytest.mark.usefixtures("without_locks")
def test_without_locks_a_living_process_of_this_host_is_refused_and_a_dead_one_is_not(tmp_path: Path) -> None:
    parent = os.getppid()
    said(tmp_path, host=platform.node(), boot=boot(), pid=parent, start=start_time(parent))
    with pytest.raises(JournalError, match="another controller"):
        Ownership(tmp_path, shared=True)
    said(tmp_path, host=platform.node(), boot=boot(), pid=parent, start=start_time(parent) + 1)  # a number used again
    owner = Ownership(tmp_path, shared=True)
    assert read_owner(tmp_path).epoch == 5  # type: ignore[union-attr]
    owner.close()


@pytest.mark.usefixtures("without_locks")
def test_an_owner_on_another_host_is_left_alone_while_its_number_rises(tmp_path: Path) -> None:
    said(tmp_path)
    end = threading.Event()

    def beat() -> None:
        number = 11
        while not end.wait(0.05):
            said(tmp_path, beat=number)
            number += 1

    thread = threading.Thread(target=beat)
    thread.start()
    with pytest.raises(JournalError, match="process 7 on elsewhere"):
        Ownership(tmp_path, shared=True, lease_s=5.0)
    end.set()
    thread.join()


@pytest.mark.usefixtures("without_locks")
def test_an_owner_on_another_host_that_stands_still_is_succeeded_and_one_that_let_go_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said(tmp_path)
    owner = Ownership(tmp_path, shared=True, lease_s=0.3)
    assert read_owner(tmp_path).epoch == 5  # type: ignore[union-attr]
    owner.close()
    said(tmp_path, beat=-1)
    monkeypatch.setattr("rlctl.executors.ownership.time.sleep", lambda seconds: pytest.fail("it waits"))
    Ownership(tmp_path, shared=True, lease_s=60.0).close()


@pytest.mark.usefixtures("without_locks")
def test_an_owner_that_slept_too_long_writes_nothing_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "networked", lambda folder: True)
    monkeypatch.setattr(ownership, "BEAT_S", 0.0)
    journal = Journal.create(tmp_path / "journal.db", {})
    journal.append("time", 1.0, {})
    said(tmp_path, epoch=2)  # another host has waited for the lease, and goes on
    with pytest.raises(JournalError, match="has taken over"):
        journal.append("time", 2.0, {})
    journal.close()
    said(tmp_path, epoch=2, beat=-1)
    with Journal.open(tmp_path / "journal.db") as after:
        assert [record.time_s for record in after.records()] == [1.0]


def test_on_a_network_file_system_the_journal_needs_no_shared_memory_and_others_read_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "networked", lambda folder: True)
    Journal.create(tmp_path / "journal.db", {"campaign": "x"}).close()
    with Journal.open(tmp_path / "journal.db") as journal:
        journal.append("time", 1.0, {})
        assert journal.exclusive
        assert not (tmp_path / "journal.db-shm").exists()
        with pytest.raises(JournalInUseError, match=r"status\.json"):
            Journal.open(tmp_path / "journal.db", read_only=True)
    with Journal.open(tmp_path / "journal.db", read_only=True) as reader:
        assert len(reader.records()) == 1


def test_a_folder_of_this_machine_is_not_on_the_network(tmp_path: Path) -> None:
    assert not networked(tmp_path)
