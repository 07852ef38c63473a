"""What is said when rlctl itself, or a plug-in, has a bug: one line, and the traceback in a file."""

from __future__ import annotations

import importlib.metadata
import logging
import sys
import tempfile
import traceback
from types import TracebackType

from rlctl.errors import described

log = logging.getLogger(__name__)

EXIT_CODE = 70
"""EX_SOFTWARE of sysexits.h."""


def report(error: BaseException) -> str:
    """One line on an exception that nobody expected; its traceback is kept in a file."""
    text = "".join(traceback.format_exception(error))
    log.debug("%s", text)
    try:
        with tempfile.NamedTemporaryFile("w", prefix="rlctl-bug-", suffix=".txt", delete=False) as file:
            file.write(f"{sys.argv}\n{text}")
        where = f"the traceback is in {file.name}"
    except (OSError, UnicodeError):
        where = "--log-level debug shows the traceback"
    what = described(error).splitlines()[0].removesuffix(": ")[:200]
    return f"this is a bug in {owner(error.__traceback__)}, please report it ({what}); {where}"


def owner(where: TracebackType | None) -> str:
    """Whose code raised: the innermost plug-in's, or rlctl."""
    plug_ins = {
        point.module.partition(".")[0]: point.dist.name if point.dist else point.module
        for group in importlib.metadata.entry_points().groups
        if group.startswith("rlctl.")
        for point in importlib.metadata.entry_points(group=group)
    }
    found = "rlctl"
    for frame, _ in traceback.walk_tb(where):
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if package in plug_ins and plug_ins[package] != "rlctl":
            found = f"the plug-in {plug_ins[package]}"
        elif package == "rlctl":
            found = "rlctl"
    return found
