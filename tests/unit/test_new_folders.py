"""New folders appear whole or not at all wherever they are, and mean what the system takes their path for."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from new_folder_places import ENTRIES, PLACES, empty, make, nothing, whole

from rlctl.core.errors import StorageError
from rlctl.system.files import atomic_folder, write_atomically


@pytest.mark.parametrize("place", PLACES)
def test_a_folder_is_made_where_the_system_takes_its_path_to(place: Callable[[Path], Path], tmp_path: Path) -> None:
    folder = place(tmp_path)
    kept = folder.stat().st_ino if folder.exists() else None
    make(folder)
    assert whole(folder)
    assert kept in (None, folder.stat().st_ino)  # it may be a volume, or have rights and stripes of its own
    assert not list(tmp_path.rglob(".rlctl*"))
    with pytest.raises(StorageError, match="exists already"):
        make(folder)


def test_an_empty_folder_that_one_is_in_and_a_parent_without_rights_are_no_hindrance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path / "run")
    make(Path())
    assert whole(tmp_path / "run")


def test_what_cannot_be_a_new_folder_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("gone")
    (tmp_path / "mine" / "work").mkdir(parents=True)
    for name, said in {
        "file": "is a file",
        "file/run": "a part of this path is a file",
        "dangling": "is a link to gone, which is not there",
        "mine": "exists already",
        "n" * 256: "choose a shorter name",
        "": "exists already",
    }.items():
        with pytest.raises(StorageError, match=said):
            make(tmp_path / name)
    assert os.listdir(tmp_path / "mine") == ["work"]


def test_two_processes_do_not_make_the_same_folder(tmp_path: Path) -> None:
    for folder in (nothing(tmp_path), empty(tmp_path)):
        with atomic_folder(folder, ENTRIES) as new:
            with pytest.raises(StorageError, match="is being made by another process"):
                make(folder)
            assert new.exists()
            for name in ENTRIES:
                (new / name).mkdir()
        assert whole(folder)
        for name in ENTRIES:
            (folder / name).rmdir()
        folder.rmdir()


def test_an_error_leaves_an_empty_folder_empty_and_no_other(tmp_path: Path) -> None:
    for folder in (empty(tmp_path), tmp_path / "new"):
        with pytest.raises(FileNotFoundError), atomic_folder(folder, ENTRIES) as new:
            (new / "work" / "without" / "parents").mkdir()
    assert sorted(os.listdir(tmp_path)) == ["run"]
    assert os.listdir(tmp_path / "run") == []


def test_a_written_file_goes_where_a_link_leads_and_into_a_pipe(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there/file")
    write_atomically(tmp_path / "link", "text \udcff")
    assert (tmp_path / "there" / "file").read_text() == "text \\udcff"
    assert (tmp_path / "link").is_symlink()
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=write_atomically, args=(tmp_path / "pipe", "text"))
    writer.start()
    assert (tmp_path / "pipe").read_text() == "text"
    writer.join()
    assert (tmp_path / "pipe").is_fifo()
