"""The commands that show things: status, results, report, trace, board, doctor."""

from __future__ import annotations

import dataclasses
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live

from rlctl.cli.options import Json, Level, LogLevel, say
from rlctl.core.errors import ConfigError, StorageError
from rlctl.core.json_values import json_text
from rlctl.monitoring.formatting import format_count
from rlctl.monitoring.progress import progress
from rlctl.system.files import check_replaceable, write_atomically

_EVERY_S = 2.0
_EVERY_WITHOUT_TERMINAL_S = 10.0

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder of rlctl steer.")]
OutFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="The file to write; by default report.html or trace.json in RUN.")
]


def report(
    run: RunArgument,
    out: OutFile = None,
    rules: Annotated[bool, typer.Option(help="Run the configured rules on the twin, to compare.")] = True,
    instances: Annotated[int, typer.Option(min=0, help="Further instances, to show the spread.")] = 12,
    as_json: Json = False,
    log_level: Level = LogLevel.WARNING,
) -> None:
    """Write a report of a campaign, ended or not, as one self-contained HTML file."""
    from rlctl.steering import reading

    written = reading.report(run, out, rules=rules, instances=instances, progress=progress(as_json))
    say(as_json, {"report": str(written)}, f"wrote {written}")


def results(
    run: RunArgument,
    best: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Only the N best, the best first, or N of the Pareto front."),
    ] = None,
    where: Annotated[
        str | None, typer.Option(metavar="EXPR", help="Only rows for which this is true, e.g. 'x < 3 and energy < -1'.")
    ] = None,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Write them to this file, as CSV.")] = None,
    as_json: Json = False,
    log_level: Level = LogLevel.WARNING,
) -> None:
    """Show the evaluations of a campaign, running or ended: parameters, results, seconds and cost."""
    from rlctl.steering import reading

    if csv is not None:
        if not csv.absolute().parent.is_dir():
            raise StorageError(f"--csv: {csv.parent}: no such folder")
        check_replaceable(csv, "evaluation,")
    table = reading.results(run)
    if where is not None:
        try:
            table = table.where(where)
        except ConfigError as error:
            raise ConfigError(f"--where: {error}") from error
    if best is not None:
        table = table.best(best)
    if csv is not None:
        write_atomically(csv, table.csv_text())
    if csv is None or as_json:
        nothing = "no evaluations" if where is None else f"no evaluation with {where}"
        say(as_json, table.to_json(), table.show() if table.rows else nothing)
    else:
        say(False, None, f"wrote {csv}: {format_count(len(table.rows), 'evaluation')}")


def trace(
    run: RunArgument,
    out: OutFile = None,
    as_json: Json = False,
    log_level: Level = LogLevel.WARNING,
) -> None:
    """Write tasks and decisions as a trace for https://ui.perfetto.dev or chrome://tracing."""
    from rlctl.steering import reading

    written = reading.trace(run, out)
    say(as_json, {"trace": str(written)}, f"wrote {written}: open it in https://ui.perfetto.dev")


def status(
    run: RunArgument,
    watch: Annotated[bool, typer.Option("--watch", help="Update until the campaign ends.")] = False,
    as_json: Json = False,
    log_level: Level = LogLevel.WARNING,
) -> None:
    """Show goal, budget, running tasks and last decisions of a campaign, which may be running."""
    from rlctl.steering import reading

    if not watch:
        now = reading.status(run)
        say(as_json, now.to_json(), now.show())
        return
    redraw = sys.stdout.isatty() and not as_json
    try:
        now = reading.status(run)
        with Live(console=Console(highlight=False), auto_refresh=False) if redraw else nullcontext() as live:
            while True:
                if live is not None:
                    live.update(now.show(), refresh=True)
                elif as_json:
                    print(json_text(now), flush=True)
                else:
                    say(False, None, now.show())
                    print(flush=True)
                if now.ended:
                    return
                time.sleep(_EVERY_S if redraw else _EVERY_WITHOUT_TERMINAL_S)
                now = reading.status(run)
    except KeyboardInterrupt:
        return


def board(
    folders: Annotated[
        list[Path] | None, typer.Argument(metavar="FOLDER...", help="Run folders, or folders that contain them.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Local port; by default the first free one from 6006.")
    ] = None,
    log_level: Level = LogLevel.WARNING,
) -> None:
    """Serve the curves of runs in TensorBoard, until Ctrl-C."""
    from rlctl.monitoring.server import serve

    serve(folders or [Path("runs")], port, lambda url: print(f"{url}  (Ctrl-C ends it)", flush=True))


def doctor(as_json: Json = False, log_level: Level = LogLevel.WARNING) -> None:
    """Check MPI, GPUs, Slurm and versions, and advise on what is missing."""
    from rlctl.cli.doctor import diagnose

    findings = diagnose()
    signs = {True: "ok", False: "MISSING", None: "-"}
    lines = []
    for finding in findings:
        lines.append(f"{signs[finding.ok]:8}{finding.name}: {finding.detail}")
        if finding.advice:
            lines.append(f"{'':8}-> {finding.advice}")
    say(as_json, [dataclasses.asdict(finding) for finding in findings], "\n".join(lines))
    if any(finding.ok is False for finding in findings):
        raise typer.Exit(1)
