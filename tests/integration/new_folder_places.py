"""Places where a new folder may be made, and what is made there."""

import os
from collections.abc import Callable
from pathlib import Path

from rlctl.system.files import atomic_folder, require_folder

ENTRIES = ("work", "config", "journal")


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
