"""Attributes an exception to rlctl or to user code, and reports bugs in one line, with the traceback in a file."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import logging
import sys
import sysconfig
import tempfile
import traceback
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from rlctl.core.errors import described

log = logging.getLogger(__name__)

EXIT_CODE = 70
"""EX_SOFTWARE of sysexits.h."""

_LIBRARIES = frozenset({"site-packages", "dist-packages"})


@dataclass(frozen=True, slots=True)
class Origin:
    """The code that raised an exception.

    Attributes:
        name: "rlctl", or e.g. "the plug-in ljorder"; empty for code that no package registers.
        place: file and line of the deepest frame of that code; empty for rlctl, whose bugs come with a traceback.
    """

    name: str
    place: str = ""

    @property
    def rlctl(self) -> bool:
        """Whether it is rlctl's own code."""
        return not self.place

    def __str__(self) -> str:
        return f"{self.name} ({self.place})" if self.name and self.place else self.name or self.place


_RLCTL = Origin("rlctl")
_ORIGIN = "_rlctl_origin"


def origin(error: BaseException, packages: Collection[str] = ()) -> Origin:
    """The code that raised an exception: rlctl's, or user code that rlctl called, whatever library that called in turn.

    User code is that of plug-ins, and all that is neither rlctl, nor Python's, nor an installed library. Errors from
    constructors of rlctl that refuse their arguments belong to the caller.

    Args:
        error: with its traceback, as rlctl caught it.
        packages: top-level modules that count as user code although they are installed and register nothing with
            rlctl, e.g. that of a Gymnasium environment.
    """
    remembered = getattr(error, _ORIGIN, None)
    if isinstance(remembered, Origin):
        return remembered
    plug_ins = _plug_ins()
    found, constructing = _RLCTL, False
    for frame, line in traceback.walk_tb(error.__traceback__):
        module = _module(frame)
        package = module.partition(".")[0]
        owner, file = plug_ins.get(package), frame.f_code.co_filename
        if frame.f_locals.get("__tracebackhide__"):
            continue  # its handler interrupted the code above
        if package == "rlctl" or owner == "rlctl":
            constructing |= not found.rlctl and frame.f_code.co_name in ("__init__", "__post_init__")
            found = found if constructing else _RLCTL
        elif owner is not None or package in packages or _is_loose(frame):
            constructing = False
            if not file.startswith("<") or found.rlctl:  # else it is text that the code before has evaluated
                found = Origin("" if owner is None else f"the plug-in {owner}", f"{_relative(file)}:{line}")
    return found


def remember_origin(error: BaseException, packages: Collection[str] = ()) -> None:
    """Store ``origin`` in the exception before it is sent to another process, which drops tracebacks."""
    with contextlib.suppress(AttributeError):  # an exception with slots
        setattr(error, _ORIGIN, origin(error, packages))


def save_traceback(error: BaseException, prefix: str = "rlctl-traceback-") -> str:
    """Write the traceback to a temporary file; returns a clause that names the file."""
    text = "".join(traceback.format_exception(error))
    log.debug("%s", text)
    try:
        with tempfile.NamedTemporaryFile("w", prefix=prefix, suffix=".txt", delete=False) as file:
            file.write(f"{sys.argv}\n{text}")
        return f"the traceback is in {file.name}"
    except (OSError, UnicodeError):
        return "--log-level debug shows the traceback"


def report(error: BaseException) -> str:
    """One line on an unexpected exception, whose traceback it saves."""
    where = save_traceback(error, "rlctl-bug-")
    what = described(error).splitlines()[0].removesuffix(": ")[:200]
    found = origin(error)
    blamed = str(found) if found.name else f"rlctl, or in {found}"  # rlctl may call unregistered code wrongly
    return f"this is a bug in {blamed}, please report it ({what}); {where}"


@functools.cache
def _plug_ins() -> dict[str, str]:
    """The distribution of each top-level module that registers something with rlctl."""
    return {
        point.module.partition(".")[0]: point.dist.name if point.dist else point.module
        for group in importlib.metadata.entry_points().groups
        if group.startswith("rlctl.")
        for point in importlib.metadata.entry_points(group=group)
    }


def _module(frame: FrameType) -> str:
    """Name of the frame's module, also where ``python -m`` runs it as ``__main__``."""
    spec = frame.f_globals.get("__spec__")
    return str(getattr(spec, "name", None) or frame.f_globals.get("__name__", ""))


def _is_loose(frame: FrameType) -> bool:
    """Whether this code is in no library: a script, a module beside the experiment, an editable install."""
    file = frame.f_code.co_filename
    if file.startswith("<"):
        return str(frame.f_globals.get("__name__")) == "__main__"
    # Compiled code has a source with a name of its own, such as numpy/random/_common.pyx.
    path = Path(file if file.endswith(".py") else frame.f_globals.get("__file__") or file)
    if _LIBRARIES.intersection(path.parts):
        return False
    return not any(path.is_relative_to(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib"))


def _relative(file: str) -> str:
    """Path relative to the current folder, if the file lies below it."""
    with contextlib.suppress(OSError, ValueError):  # the folder is gone, or the file lies elsewhere
        return str(Path(file).relative_to(Path.cwd()))
    return file
