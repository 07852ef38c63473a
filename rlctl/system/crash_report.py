"""Whose code raised an exception, and what is said when that is a bug: one line, and the traceback in a file."""

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
    """Whose code raised an exception.

    Attributes:
        name: for people: "rlctl", or "the plug-in ljorder"; empty for code that no package registers.
        place: file and line of the deepest frame of that code; empty for rlctl, whose bugs come with a traceback.
    """

    name: str
    place: str = ""

    @property
    def rlctl(self) -> bool:
        """Whether it is rlctl's own."""
        return not self.place

    def __str__(self) -> str:
        return f"{self.name} ({self.place})" if self.name and self.place else self.name or self.place


_RLCTL = Origin("rlctl")
_ORIGIN = "_rlctl_origin"


def origin(error: BaseException, packages: Collection[str] = ()) -> Origin:
    """Whose code raised an exception: rlctl's, or a user's that rlctl has called, whatever library it then called.

    A user's code is a plug-in's, and any other that is neither rlctl, nor Python's, nor an installed library. A
    constructor of rlctl that refuses its arguments speaks of its caller.

    Args:
        error: with its traceback, as it was caught by rlctl.
        packages: top-level modules that are a user's although they are installed and register nothing with rlctl,
            e.g. that of a Gymnasium environment.
    """
    told = getattr(error, _ORIGIN, None)
    if isinstance(told, Origin):
        return told
    plug_ins = _plug_ins()
    found, constructing = _RLCTL, False
    for frame, line in traceback.walk_tb(error.__traceback__):
        package = _module(frame).partition(".")[0]
        owner, file = plug_ins.get(package), frame.f_code.co_filename
        if _module(frame) == "rlctl.system.watchdog":
            continue  # it has interrupted the code above
        if package == "rlctl" or owner == "rlctl":
            constructing |= not found.rlctl and frame.f_code.co_name in ("__init__", "__post_init__")
            found = found if constructing else _RLCTL
        elif owner is not None or package in packages or _loose(frame):
            constructing = False
            if not file.startswith("<") or found.rlctl:  # else it is text that the code before has evaluated
                found = Origin("" if owner is None else f"the plug-in {owner}", f"{_short(file)}:{line}")
    return found


def remember_origin(error: BaseException, packages: Collection[str] = ()) -> None:
    """Keep ``origin`` in the exception, for the process that it is sent to: tracebacks are not."""
    with contextlib.suppress(AttributeError):  # an exception with slots
        setattr(error, _ORIGIN, origin(error, packages))


def kept(error: BaseException, name: str = "rlctl-traceback-") -> str:
    """Keep the traceback of an exception in a file; says where it is."""
    text = "".join(traceback.format_exception(error))
    log.debug("%s", text)
    try:
        with tempfile.NamedTemporaryFile("w", prefix=name, suffix=".txt", delete=False) as file:
            file.write(f"{sys.argv}\n{text}")
        return f"the traceback is in {file.name}"
    except (OSError, UnicodeError):
        return "--log-level debug shows the traceback"


def report(error: BaseException) -> str:
    """One line on an unexpected exception; its traceback is kept in a file."""
    where = kept(error, "rlctl-bug-")
    what = described(error).splitlines()[0].removesuffix(": ")[:200]
    whose = origin(error)
    blamed = str(whose) if whose.name else f"rlctl, or in {whose}"  # unregistered code may be called wrongly
    return f"this is a bug in {blamed}, please report it ({what}); {where}"


@functools.cache
def _plug_ins() -> dict[str, str]:
    """Which distribution registers a top-level module with rlctl."""
    return {
        point.module.partition(".")[0]: point.dist.name if point.dist else point.module
        for group in importlib.metadata.entry_points().groups
        if group.startswith("rlctl.")
        for point in importlib.metadata.entry_points(group=group)
    }


def _module(frame: FrameType) -> str:
    """Its module, by the name that it also has where ``python -m`` runs it."""
    spec = frame.f_globals.get("__spec__")
    return str(getattr(spec, "name", None) or frame.f_globals.get("__name__", ""))


def _loose(frame: FrameType) -> bool:
    """Whether this code is in no library: a script, a module beside the experiment, a package that is being edited."""
    file = frame.f_code.co_filename
    if file.startswith("<"):
        return str(frame.f_globals.get("__name__")) == "__main__"
    # Compiled code has a source with a name of its own, such as numpy/random/_common.pyx.
    path = Path(file if file.endswith(".py") else frame.f_globals.get("__file__") or file)
    if _LIBRARIES.intersection(path.parts):
        return False
    return not any(path.is_relative_to(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib"))


def _short(file: str) -> str:
    """A file as seen from the current folder, if it lies below it."""
    with contextlib.suppress(OSError, ValueError):  # the folder is gone, or the file lies elsewhere
        return str(Path(file).relative_to(Path.cwd()))
    return file
