"""File and folder names for arbitrary task names. Imports the standard library only."""

from __future__ import annotations

import os
import re
from pathlib import Path

_SOCKET_BYTES = 103
"""Longest path of a socket: 107 bytes on Linux, 103 elsewhere."""
_SHARED = Path("/dev/shm")

LONGEST = 200
"""Longest file name in bytes; file systems allow 255, and suffixes such as ``.json.new`` follow."""


def attempt_key(uid: str, attempt: int) -> str:
    """Key of an attempt of a task, for backends, supervisors and files."""
    return f"{uid}.{attempt}"


def file_name(key: str) -> str:
    """A file name for a key, unique among keys; the key itself where it is a valid name.

    >>> file_name("run_7.1"), file_name("a/b.1"), file_name(".hidden"), file_name("50%")
    ('run_7.1', 'a%2Fb.1', '%2Ehidden', '50%25')
    """
    name = re.sub(r"^\.|[%/\0]", lambda found: f"%{ord(found[0]):02X}", key)
    whole = name.encode(errors="surrogatepass")
    if len(whole) <= LONGEST:
        return name
    import hashlib

    readable = whole[: LONGEST - 80].decode(errors="ignore")
    return f"{readable}%~{hashlib.sha256(whole).hexdigest()}"  # no escaped name has a tilde after a percent sign


def scratch_folder(token: str) -> Path:
    """A scratch folder in shared memory if possible, else where the path of a socket in it is short enough."""
    if os.access(_SHARED, os.W_OK):
        return _SHARED / f"rlctl-{token}"
    folder = _on_disk() / f"rlctl-{token}"
    return folder if len(os.fsencode(folder / "socket")) <= _SOCKET_BYTES else Path("/tmp") / folder.name


def spare(scratch: Path) -> Path:
    """Folder on disk for what does not fit in shared memory; the scratch folder itself if that is on disk."""
    return _on_disk() / scratch.name if scratch.parent == _SHARED else scratch


def _on_disk() -> Path:
    import tempfile

    return Path(tempfile.gettempdir())
