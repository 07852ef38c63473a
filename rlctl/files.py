"""Writes files whole or not at all, and says in one line why a place cannot be written."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rlctl.bugs import origin
from rlctl.errors import StorageError
from rlctl.plugins import reason

_ADVICE = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some of your quota",
    errno.EFBIG: "raise the limit of file sizes (ulimit -f)",
    errno.EROFS: "choose a place that can be written",
    errno.EACCES: "choose a place where you may write, or change its rights",
    errno.EPERM: "choose a place where you may write, or change its rights",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOENT: "choose a place that can be written",
    errno.ENOTDIR: "a part of this path is a file: choose another",
    errno.EISDIR: "it is a folder: give a file",
    errno.ELOOP: "its links go round in a circle: choose another",
    errno.EIO: "the disk or file system has failed: choose another",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "close other programs",
}


def storage_error(error: OSError, place: Path | str | None = None) -> StorageError | None:
    """The same for people; None if it is nothing that a user can mend.

    A file that rlctl misses is a user's affair only where something was to be written. What a plug-in could not open is
    told as the plug-in's, see ``users_error``.

    >>> str(storage_error(OSError(errno.ENOSPC, "No space left on device"), "runs/a"))
    'runs/a: cannot be written (No space left on device): free some space'
    """
    if (users := users_error(error)) is not None:
        return users
    advice = _ADVICE.get(error.errno or 0)
    name = error.filename if isinstance(error.filename, str | Path) else place
    if advice is None or name is None:
        return None
    return StorageError(f"{name}: cannot be written ({error.strerror}): {advice}")


def users_error(error: OSError) -> StorageError | None:
    """What code of a user's could not open, read or write, with the name of that code; None if it was rlctl's own."""
    whose = origin(error)
    if whose.rlctl:
        return None
    said = error.strerror or reason(error)
    if error.filename is None:
        advice = _ADVICE.get(error.errno or 0, "look at what it needs there")
        return StorageError(f"{whose} fails with {type(error).__name__} ({said}): {advice}")
    advice = "correct the path, or make the file" if isinstance(error, FileNotFoundError) else ""
    advice = advice or _ADVICE.get(error.errno or 0, "look at what it needs there")
    return StorageError(f"{os.fsdecode(error.filename)}: {whose} cannot use it ({said}): {advice}")


@contextmanager
def writing(place: Path, then: str = "") -> Iterator[None]:
    """What cannot be written inside is a ``StorageError``.

    Args:
        then: what to do after the advice, e.g. "then resume".
    """
    try:
        yield
    except OSError as error:
        found = storage_error(error, place)
        if found is None:
            raise
        raise StorageError(f"{found}{', ' * bool(then)}{then}") from error


def require_folder(folder: Path) -> None:
    """Refuse a folder that could not be made or written, before any work is done for it.

    Raises:
        StorageError: it could not.
    """
    _require_place(folder, "folder")
    with writing(folder):
        if folder.exists() and not folder.is_dir():
            raise StorageError(f"{folder} is a file; give a folder")
        whole = Path(os.path.abspath(folder))
        if whole.exists() and whole.samefile(Path.cwd()):
            raise StorageError(f"{folder} is the folder that you are in: give one in it, for example runs/first")
        _require_rights(folder)


def require_file(file: Path) -> None:
    """Refuse a file that could not be written, before any work is done for it.

    Raises:
        StorageError: it could not.
    """
    _require_place(file, "file")
    with writing(file):
        if file.is_dir():
            raise StorageError(f"{file} is a folder; give the file to write")
        _require_rights(file.parent)


def write_whole(file: Path, text: str) -> None:
    """Write a text so that a reader finds all of it or what was there before.

    Raises:
        StorageError: it cannot be written.
    """
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{file.name[:100]}-", dir=file.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            Path(temporary).chmod(0o644)
            Path(temporary).replace(file)
        finally:
            Path(temporary).unlink(missing_ok=True)


def _require_place(path: Path, what: str) -> None:
    if "\0" in str(path) or not Path(os.path.abspath(path)).name:
        raise StorageError(f"{str(path)!r} cannot be written: give the {what} to make")


def _require_rights(folder: Path) -> None:
    """The nearest folder above that is there must be one that can be written, as a trial shows."""
    folder = Path(os.path.abspath(folder))
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    try:
        # Rights alone do not tell: /proc has them. The file has no name, so that a kill leaves nothing, where the file
        # system knows such files; elsewhere it has one for the moment between two calls.
        with tempfile.TemporaryFile(prefix=".rlctl-", dir=folder):
            pass
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from error
