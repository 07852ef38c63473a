"""What commands have in common: options, progress, and how they answer."""

from __future__ import annotations

import logging
import sys
from enum import StrEnum
from typing import Annotated, Any

import typer

from rlctl.core.json_values import json_text
from rlctl.monitoring.progress import Progress, progress


class LogLevel(StrEnum):
    """How much to say."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def _log(level: LogLevel) -> LogLevel:
    logging.basicConfig(
        level=level.upper(), format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr, force=True
    )
    return level


Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output, and no progress.")]
Level = Annotated[LogLevel, typer.Option("--log-level", callback=_log, help="How much to log on standard error.")]


def _progress(quiet: bool) -> Progress:
    return progress(quiet=quiet)


def _say(as_json: bool, data: Any, text: Any) -> None:
    if as_json:
        print(json_text(data, indent=2))
    else:
        from rich.console import Console

        # A file or a pipe has no width; a table that is cut there is of no use.
        width = None if sys.stdout.isatty() else 160
        Console(width=width, soft_wrap=isinstance(text, str)).print(text, markup=False, highlight=False)
