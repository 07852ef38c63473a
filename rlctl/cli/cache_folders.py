"""Folders where libraries keep what they have compiled or found, where the user has no home folder to keep it in."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

_VARIABLES = {"NUMBA_CACHE_DIR": "numba", "MPLCONFIGDIR": "matplotlib"}


def prepare() -> None:
    """Give Numba and Matplotlib a folder among the temporary files, unless there is a home folder that can be written.

    Numba refuses to compile otherwise, where rlctl is installed by another user, and both would write into ``./~``.
    """
    home = os.path.expanduser("~")
    if os.path.isabs(home) and os.path.isdir(home) and os.access(home, os.W_OK | os.X_OK):
        return
    with contextlib.suppress(OSError):  # nothing can be written anywhere: they say so when it matters
        folder = Path(tempfile.gettempdir()) / f"rlctl-cache-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.is_symlink() or folder.stat().st_uid != os.getuid():  # made by another user: not to be trusted
            folder = Path(tempfile.mkdtemp(prefix="rlctl-cache-"))
        for variable, name in _VARIABLES.items():
            os.environ.setdefault(variable, str(folder / name))
