"""The commands that look at a run folder and leave it as it is: report, trace, status."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.live import Live

from rlctl.cli.options import Json, Level, LogLevel, _progress, _say
from rlctl.core.json_values import json_text

if TYPE_CHECKING:
    from rlctl.steering.status import CampaignStatus

_EVERY_S = 2.0
_EVERY_WITHOUT_TERMINAL_S = 10.0

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="The folder that steer --run wrote.")]


def report(
    run: RunFolder,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="The page to write; RUN/report.html.")] = None,
    rules: Annotated[bool, typer.Option(help="Play the configured rules on the twin, to compare.")] = True,
    instances: Annotated[int, typer.Option(min=0, help="Further instances, that show how much they differ.")] = 12,
    as_json: Json = False,
    log_level: Level = LogLevel.WARNING,
) -> None:
    """Write all about a campaign, ended or not, into one HTML file that needs nothing else."""
    from rlctl import api

    written = api.report(run, out, rules=rules, instances=instances, progress=_progress(as_json))
    _say(as_json, {"report": str(written)}, f"wrote {written}")


def trace(
    run: RunFolder,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="The file to write; RUN/trace.json.")] = None,
    as_json: Json = False,
    log_level: Level = LogLevel.WARNING,
) -> None:
    """Write tasks and decisions as a trace, for https://ui.perfetto.dev or chrome://tracing."""
    from rlctl import api

    written = api.trace(run, out)
    _say(as_json, {"trace": str(written)}, f"wrote {written}: open it in https://ui.perfetto.dev")


def status(
    run: RunFolder,
    watch: Annotated[bool, typer.Option("--watch", help="Show it again and again, until the campaign ends.")] = False,
    as_json: Json = False,
    log_level: Level = LogLevel.WARNING,
) -> None:
    """Show goal, budget, running tasks and last decisions; the campaign may be running."""
    from rlctl import api

    if not watch:
        now = api.status(run)
        _say(as_json, now.to_json(), now.show())
        return
    try:
        if sys.stdout.isatty() and not as_json:
            _redraw(run, api.status)
        else:
            _repeat(run, as_json, api.status)
    except KeyboardInterrupt:
        return


def _redraw(run: Path, status_of: Callable[[Path], CampaignStatus]) -> None:
    now = status_of(run)
    with Live(now.show(), console=Console(highlight=False), auto_refresh=False) as live:
        while not now.ended:
            time.sleep(_EVERY_S)
            now = status_of(run)
            live.update(now.show(), refresh=True)


def _repeat(run: Path, as_json: bool, status_of: Callable[[Path], CampaignStatus]) -> None:
    while True:
        now = status_of(run)
        if as_json:
            print(json_text(now), flush=True)
        else:
            _say(False, None, now.show())
            print(flush=True)
        if now.ended:
            return
        time.sleep(_EVERY_WITHOUT_TERMINAL_S)
