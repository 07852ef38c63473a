"""Common options, progress and output of the commands."""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any, NoReturn

import typer

from rlctl.core.json_values import json_text
from rlctl.system import terminal


class LogLevel(StrEnum):
    """Level of log messages."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def _log(level: LogLevel) -> LogLevel:
    logging.basicConfig(
        level=level.upper(), format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr, force=True
    )
    return level


INTERRUPTED = 130
"""Exit code after Ctrl-C or SIGTERM."""

Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output, without progress.")]
Level = Annotated[LogLevel, typer.Option("--log-level", callback=_log, help="Level of log messages on standard error.")]


def say(as_json: bool, data: Any, text: Any) -> None:
    """Print ``data`` as JSON, or ``text``."""
    if as_json:
        print(json_text(data, indent=2))
    else:
        from rich.console import Console

        # Files and pipes have no width, and tables should not be cut there.
        width = None if sys.stdout.isatty() else 160
        Console(width=width, soft_wrap=isinstance(text, str)).print(text, markup=False, highlight=False)


def fail(message: str, code: int = 2) -> NoReturn:
    """Print an error in one line and exit."""
    print(f"rlctl: {terminal.one_line(message)}", file=sys.stderr)
    sys.exit(code)


def stopped(same_again: bool, code: int = INTERRUPTED, why: str = "stopped", more: Sequence[str] = ()) -> NoReturn:
    """Exit with the command that resumes the work; ``more``: options that it needs besides."""
    fail(f"{why}; to resume: {shlex.join([*resume_command(same_again), *more])}", code)


def resume_command(same_again: bool) -> list[str]:
    """The command that resumes what this one began."""
    return ["rlctl", *sys.argv[1:], *([] if same_again else ["--resume"])]
