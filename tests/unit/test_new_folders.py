"""New folders appear whole or not at all wherever they are, and mean what the system takes their path for."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rlctl.core.errors import StorageError
from rlctl.system.files import atomic_folder, require_folder, write_atomically

ENTRIES = ("work", "config", "journal")
KILLED_AT = """
import os, sys
from pathlib import Path
from rlctl.system.files import atomic_folder

left = int(sys.argv[2])

def counted(call):
    def counting(*arguments, **more):
        global left
        left -= 1
        if left < 0:
            os._exit(9)
        return call(*arguments, **more)
    return counting

for name in ("rename", "mkdir", "write_text", "unlink"):
    setattr(Path, name, counted(getattr(Path, name)))
with atomic_folder(Path(sys.argv[1]), ("work", "config", "journal")) as new:
    (new / "work").mkdir()
    (new / "config").write_text("c")
    (new / "journal").write_text("j")
"""


def make(folder: Path) -> None:
    require_folder(folder, made=ENTRIES)
    with atomic_folder(folder, ENTRIES) as new:
        (new / "work").mkdir()
        (new / "config").write_text("c")
        (new / "journal").write_text("j")


def whole(folder: Path) -> bool:
    return {"work", "config", "journal"} == set(os.listdir(folder)) - {"lost+found"}


def nothing(folder: Path) -> Path:
    return folder / "run"


def empty(folder: Path) -> Path:
    (folder / "run").mkdir()
    return folder / "run"


def link(folder: Path) -> Path:
    (folder / "target").mkdir()
    (folder / "run").symlink_to("target")
    return folder / "run"


def through_a_link(folder: Path) -> Path:
    (folder / "a" / "deep").mkdir(parents=True)
    (folder / "link").symlink_to("a/deep")
    return folder / "link" / ".." / "run"


def volume(folder: Path) -> Path:
    (folder / "run" / "lost+found").mkdir(parents=True)
    return folder / "run"


def odd_name(folder: Path) -> Path:
    return folder / os.fsdecode(b"a b\n\xff ")


def long_name(folder: Path) -> Path:
    return folder / ("é" * 127)


def deep(folder: Path) -> Path:
    return folder / "not" / "yet" / "run"


PLACES: list[Callable[[Path], Path]] = [nothing, empty, link, through_a_link, volume, odd_name, long_name, deep]


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


@pytest.mark.parametrize("place", PLACES)
def test_a_kill_at_any_step_leaves_all_of_it_or_what_can_be_made_anew(
    place: Callable[[Path], Path], tmp_path: Path
) -> None:
    step, code = 0, 9
    while code == 9:
        (tmp_path / str(step)).mkdir()
        folder = place(tmp_path / str(step))
        done = subprocess.run([sys.executable, "-c", KILLED_AT, folder, str(step)], timeout=60, check=False)
        code = done.returncode
        if (folder / "journal").exists():  # it has begun, and is not to be begun anew
            with pytest.raises(StorageError, match="exists already"):
                make(folder)
        else:
            make(folder)
        assert (folder / "work").is_dir()
        assert (folder / "config").read_text() == "c"
        step += 1
    assert code == 0
    assert step > 5


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
    reader = subprocess.Popen(["cat", tmp_path / "pipe"], stdout=subprocess.PIPE, text=True)
    write_atomically(tmp_path / "pipe", "text")
    assert reader.communicate(timeout=60)[0] == "text"
    assert (tmp_path / "pipe").is_fifo()
