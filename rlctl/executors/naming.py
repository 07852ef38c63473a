"""Names of files and folders for whatever users call their tasks. Nothing but the standard library is imported here."""

from __future__ import annotations

import os
import re
from pathlib import Path

_SOCKET_BYTES = 103
"""Most that the name of a socket may have: 107 on Linux, 103 on others."""
_SHARED = Path("/dev/shm")

LONGEST = 200
"""Bytes; file systems allow 255, and there are endings such as ``.json.new``."""


def attempt_key(uid: str, attempt: int) -> str:
    """By which an attempt of a task is known to whoever runs it."""
    return f"{uid}.{attempt}"


def file_name(key: str) -> str:
    """The key where it can be the name of a file, else one that no other key has.

    >>> file_name("run_7.1"), file_name("a/b.1"), file_name(".hidden"), file_name("50%")
    ('run_7.1', 'a%2Fb.1', '%2Ehidden', '50%25')
    """
    name = re.sub(r"^\.|[%/\0]", lambda found: f"%{ord(found[0]):02X}", key)
    whole = name.encode(errors="surrogatepass")
    if len(whole) <= LONGEST:
        return name
    import hashlib

    readable = whole[: LONGEST - 80].decode(errors="ignore")
    return f"{readable}%~{hashlib.sha256(whole).hexdigest()}"  # no other name has a tilde after a percent sign


def scratch_folder(token: str) -> Path:
    """In shared memory where there is such a thing; otherwise where the name of a socket in it is not too long."""
    if os.access(_SHARED, os.W_OK):
        return _SHARED / f"rlctl-{token}"
    folder = _on_disk() / f"rlctl-{token}"
    return folder if len(os.fsencode(folder / "socket")) <= _SOCKET_BYTES else Path("/tmp") / folder.name


def spare(scratch: Path) -> Path:
    """Folder on disk for what has no room in shared memory; elsewhere it is the scratch folder itself."""
    return _on_disk() / scratch.name if scratch.parent == _SHARED else scratch


def _on_disk() -> Path:
    import tempfile

    return Path(tempfile.gettempdir())
