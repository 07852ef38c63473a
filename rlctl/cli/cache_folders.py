"""Provides cache folders for libraries where the user has no writable home folder."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

_VARIABLES = {"NUMBA_CACHE_DIR": "numba", "MPLCONFIGDIR": "matplotlib"}


def prepare() -> None:
    """Point the caches of Numba and Matplotlib to a temporary folder, unless the home folder is writable.

    Otherwise Numba refuses to compile if another user has installed rlctl, and both would write into ``./~``.
    """
    home = os.path.expanduser("~")
    if os.path.isabs(home) and os.path.isdir(home) and os.access(home, os.W_OK | os.X_OK):
        return
    with contextlib.suppress(OSError):  # without any writable folder, the libraries report it themselves
        folder = Path(tempfile.gettempdir()) / f"rlctl-cache-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.is_symlink() or folder.stat().st_uid != os.getuid():  # made by another user
            folder = Path(tempfile.mkdtemp(prefix="rlctl-cache-"))
        for variable, name in _VARIABLES.items():
            os.environ.setdefault(variable, str(folder / name))
