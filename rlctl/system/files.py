"""Writes files and folders atomically, and says in one line why a path cannot be written, by ``StorageError``."""

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

from rlctl.core.errors import ConfigError, StorageError, reason
from rlctl.system.crash_report import origin

_NEW = ".rlctl-new"
"""Name of an unfinished folder: inside its target if that exists, else beside it, with a hash of its name."""

_HEAD = 512

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
    """The error in one line with advice; None if users cannot do anything about it.

    Only use it where something was to be written: a file of its own that rlctl cannot find is a bug. Errors of plug-ins
    name the plug-in, see ``user_code_error``.

    >>> str(storage_error(OSError(errno.ENOSPC, "No space left on device"), "runs/a"))
    'runs/a: cannot be written (No space left on device): free some space'
    """
    if (users := user_code_error(error)) is not None:
        return users
    advice = _ADVICE.get(error.errno or 0)
    name = error.filename if isinstance(error.filename, str | Path) else place
    if advice is None or name is None:
        return None
    return StorageError(f"{name}: cannot be written ({error.strerror}): {advice}")


def user_code_error(error: OSError) -> StorageError | None:
    """A line on what user code could not open, read or write; None if the code is rlctl's own."""
    code = origin(error)
    if code.rlctl:
        return None
    text = error.strerror or reason(error)
    advice = _ADVICE.get(error.errno or 0, "look at what it needs there")
    if error.filename is None:
        return StorageError(f"{code} fails with {type(error).__name__} ({text}): {advice}")
    if isinstance(error, FileNotFoundError):
        advice = "correct the path, or make the file"
    return StorageError(f"{os.fsdecode(error.filename)}: {code} cannot use it ({text}): {advice}")


@contextmanager
def storage_errors(place: Path, then: str = "") -> Iterator[None]:
    """Raise ``StorageError`` for what cannot be written inside; ``then`` follows the advice, e.g. "then resume"."""
    try:
        yield
    except OSError as error:
        found = storage_error(error, place)
        if found is None:
            raise
        raise StorageError(f"{found}{', ' * bool(then)}{then}") from error


def require_folder(folder: Path, made: Sequence[str] | None = None) -> None:
    """Check that a folder can be made and written, before any work is done for it.

    Args:
        made: requires a new folder: missing or empty. Leftovers of a killed ``atomic_folder`` with these entries do not
            count, nor does what a file system has in its root. None: the folder may contain anything.
    """
    _require_place(folder, "folder")
    with storage_errors(folder):
        if folder.is_symlink() and not folder.exists():
            target = os.readlink(folder)
            raise StorageError(f"{folder} is a link to {target}, which is not there: make that folder, or give another")
        if folder.exists() and not folder.is_dir():
            raise StorageError(f"{folder} is a file; give a folder")
        if made is not None and folder.exists():
            inside = set(os.listdir(folder)) - {"lost+found"}
            begun = _NEW in inside and not inside.intersection(made[-1:])
            if inside - ({_NEW, *made} if begun else set()):
                raise StorageError(f"{folder} exists already: add --resume to go on with it, or give another folder")
        _require_rights(folder)


@contextmanager
def atomic_folder(folder: Path, entries: Sequence[str]) -> Iterator[Path]:
    """Yield a temporary folder that becomes ``folder`` as a whole; a kill leaves nothing, or leftovers to overwrite.

    A missing folder is renamed into place. One that exists may be a mount point or a link, or lie where nothing else
    may be made: it stays, and the entries, all that the caller makes, move into it. The last entry moves last and marks
    the folder as complete.
    """
    folder = folder.absolute()  # does not resolve links, nor ".." behind them
    exists = folder.exists()
    name = f"{_NEW}-{hashlib.sha256(os.fsencode(folder.name)).hexdigest()[:12]}"
    new = folder / _NEW if exists else folder.with_name(name)
    new.mkdir(parents=True, exist_ok=True)
    handle = os.open(new, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _lock(handle, folder)
        for left in new.iterdir():
            _remove(left)
        try:
            yield new
            if exists:
                for entry in entries:
                    _remove(folder / entry)
                    (new / entry).rename(folder / entry)
                shutil.rmtree(new, ignore_errors=True)
            else:
                new.rename(folder)
        except BaseException:
            if exists and not (folder / entries[-1]).exists():
                for entry in entries:
                    _remove(folder / entry)
            shutil.rmtree(new, ignore_errors=True)
            raise
    finally:
        os.close(handle)


def require_file(file: Path) -> None:
    """Check that a file can be written, before any work is done for it."""
    _require_place(file, "file")
    with storage_errors(file):
        if file.is_dir():
            raise StorageError(f"{file} is a folder; give the file to write")
        _require_rights(file.parent)


def write_atomically(file: Path, text: str, *, only_writer: bool = False) -> None:
    """Write a text so that readers find all of it or what was there before; follows links.

    Args:
        only_writer: no other process writes this file; the next write then replaces what a kill leaves of this one.
    """
    with storage_errors(file):
        file = Path(os.path.realpath(file))  # links, and ".." behind them
        if file.exists() and not file.is_file():  # a pipe or a device is not to be replaced
            with file.open("w", encoding="utf-8", errors="backslashreplace") as stream:
                stream.write(text)
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        if only_writer:
            temporary = str(file.with_name(f".{file.name}.part"))
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        else:
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


def write_generated(file: Path, text: str, mark: str) -> None:
    """Write a text that begins with a mark, atomically; replaces one with the same mark, but no file of the user."""
    assert mark in text[:_HEAD]
    check_replaceable(file, mark)
    write_atomically(file, text)


def check_replaceable(file: Path, mark: str) -> None:
    """Raise ConfigError if the file exists without the mark."""
    require_file(file)
    if not file.is_file():  # new, or a pipe or a device
        return
    try:
        with file.open("rb") as stream:
            head = stream.read(_HEAD).decode("utf-8", errors="replace")
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read ({error.strerror}): choose another file") from error
    if mark not in head:
        raise ConfigError(f"{file} exists, and rlctl did not write it: choose another file, or remove it")


def _lock(handle: int, folder: Path) -> None:
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
    """Check by a trial that the folder, or its nearest ancestor that exists, can be written."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    try:
        # Rights alone do not suffice: /proc has them. Where the file system supports it the file has no name, so that
        # a kill leaves nothing.
        with tempfile.TemporaryFile(prefix=".rlctl-", dir=folder):
            pass
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from error
