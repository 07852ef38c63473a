"""Reads a folder without trust: plain files of bounded size only."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from rlctl.bundle.manifest import AGAIN
from rlctl.core.errors import PolicyError

_CHUNK = 1 << 16


class Folder:
    """An open folder; a context manager. Files are opened relative to it, so that it cannot be exchanged meanwhile."""

    def __init__(self, path: Path) -> None:
        """Open the folder; raise PolicyError if there is none."""
        self.path = path
        try:
            self._handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (OSError, ValueError) as error:
            raise PolicyError(f"{path}: no saved policy here ({_why(error)}); give the folder of one") from None

    def __enter__(self) -> Folder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._handle)

    def read(self, name: str, limit: int) -> bytes:
        """All of a file; raise PolicyError if it is missing, no plain file, or larger than ``limit`` bytes."""
        parts: list[bytes] = []
        self._each(name, limit, parts.append)
        return b"".join(parts)

    def sha256(self, name: str, limit: int) -> str:
        """Checksum of a file, which is not held in memory; raise PolicyError as ``read`` does."""
        found = hashlib.sha256()
        self._each(name, limit, found.update)
        return found.hexdigest()

    def _each(self, name: str, limit: int, take: Callable[[bytes], object]) -> None:
        path = self.path / name
        try:
            # No link is followed; a FIFO without a writer does not block.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
            handle = os.open(name, flags, dir_fd=self._handle)
        except OSError as error:
            raise PolicyError(f"{path}: cannot be read ({_why(error)}); {AGAIN}") from None
        try:
            about = os.fstat(handle)
            if not stat.S_ISREG(about.st_mode):
                raise PolicyError(f"{path}: not a plain file; {AGAIN}")
            if about.st_size > limit:
                raise PolicyError(f"{path}: {about.st_size:,} bytes, at most {limit:,} belong there; {AGAIN}")
            left = limit
            while data := os.read(handle, min(_CHUNK, left + 1)):
                left -= len(data)
                if left < 0:
                    raise PolicyError(f"{path}: grew while it was read; {AGAIN}")
                take(data)
        except OSError as error:
            raise PolicyError(f"{path}: cannot be read ({_why(error)}); {AGAIN}") from None
        finally:
            os.close(handle)


def _why(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno == errno.ELOOP:
        return "a symbolic link, which could lead anywhere"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
