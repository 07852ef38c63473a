"""Writes files whole or not at all, and says in one line why a place cannot be written."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rlctl.core.errors import StorageError
from rlctl.plugins.entry_points import reason
from rlctl.system.crash_report import origin

_NEW = ".rlctl-new"
"""A folder that is being filled: inside the one that it is for if that is there, else beside it, with its name."""

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


def require_folder(folder: Path, made: Sequence[str] | None = None) -> None:
    """Refuse a folder that could not be made or written, before any work is done for it.

    Args:
        made: it has to be new: not there, or empty. What a ``filled`` of these entries has left when it was killed
            does not count, nor what a file system has in its root. None: it may hold anything.

    Raises:
        StorageError: it could not, or is not new.
    """
    _require_place(folder, "folder")
    with writing(folder):
        if folder.is_symlink() and not folder.exists():
            there = os.readlink(folder)
            raise StorageError(f"{folder} is a link to {there}, which is not there: make that folder, or give another")
        if folder.exists() and not folder.is_dir():
            raise StorageError(f"{folder} is a file; give a folder")
        if made is not None and folder.exists():
            inside = set(os.listdir(folder)) - {"lost+found"}
            begun = _NEW in inside and not inside.intersection(made[-1:])
            if inside - ({_NEW, *made} if begun else set()):
                raise StorageError(f"{folder} exists already: add --resume to go on with it, or give another folder")
        _require_rights(folder)


@contextmanager
def filled(folder: Path, entries: Sequence[str]) -> Iterator[Path]:
    """Make a folder that appears whole, or, killed at any moment, not at all: what is left is made anew.

    A folder that is not there gets its name when all is in it. One that is there may be a mount point or a link, or lie
    where nothing else may be made: it stays, and the entries move into it, the last one last, by which it is known.

    Args:
        entries: names of what the caller makes in the folder that is yielded, which is another one for now.

    Raises:
        StorageError: another process is at it.
    """
    folder = folder.absolute()  # as the system takes it: what follows a link is no business of ours
    there = folder.exists()
    name = f"{_NEW}-{hashlib.sha256(os.fsencode(folder.name)).hexdigest()[:12]}"
    new = folder / _NEW if there else folder.with_name(name)
    new.mkdir(parents=True, exist_ok=True)
    handle = os.open(new, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _claim(handle, folder)
        for left in new.iterdir():
            _remove(left)
        try:
            yield new
            if there:
                for entry in entries:
                    _remove(folder / entry)
                    (new / entry).rename(folder / entry)
                shutil.rmtree(new, ignore_errors=True)
            else:
                new.rename(folder)
        except BaseException:
            if there and not (folder / entries[-1]).exists():
                for entry in entries:
                    _remove(folder / entry)
            shutil.rmtree(new, ignore_errors=True)
            raise
    finally:
        os.close(handle)


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
    """Write a text so that a reader finds all of it or what was there before; what a link names, not the link.

    Raises:
        StorageError: it cannot be written.
    """
    with writing(file):
        file = Path(os.path.realpath(file))  # tempfile, too, forgets the links before ".."
        if file.exists() and not file.is_file():  # a pipe or a device is not to be replaced
            with file.open("w", encoding="utf-8", errors="backslashreplace") as stream:
                stream.write(text)
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=".rlctl-", dir=file.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            Path(temporary).chmod(0o644)
            Path(temporary).replace(file)
        finally:
            Path(temporary).unlink(missing_ok=True)


def _claim(handle: int, folder: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StorageError(f"{folder} is being made by another process: give another folder") from None
    except OSError:
        pass  # a file system without locks


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _require_place(path: Path, what: str) -> None:
    if "\0" in str(path) or path.absolute() == Path(path.anchor):
        raise StorageError(f"{str(path)!r} cannot be written: give the {what} to make")


def _require_rights(folder: Path) -> None:
    """The nearest folder above that is there must be one that can be written, as a trial shows."""
    folder = folder.absolute()
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
