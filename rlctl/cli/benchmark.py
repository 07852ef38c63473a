"""The command ``rlctl benchmark``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from rlctl.cli.experiment import Sets, Workers
from rlctl.cli.options import Json, Level, LogLevel, say, stopped
from rlctl.core.json_values import plain
from rlctl.monitoring.progress import progress


def benchmark(
    configs: Annotated[
        list[Path], typer.Argument(metavar="CONFIG...", help="Configurations with a section benchmark.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="For the results; by default docs/results in a clone, else runs/results."),
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="For what is trained, tuned and played; a folder for each family; by default runs/benchmark.",
        ),
    ] = None,
    instances: Annotated[
        int | None, typer.Option(min=2, help="Number of evaluation instances; by default that of the configuration.")
    ] = None,
    workers: Workers = 1,
    sets: Sets = None,
    as_json: Json = False,
    log_level: Level = LogLevel.WARNING,
) -> None:
    """Judge policies against tuned rules: several training seeds, controls, other games; rows, a page and a picture.

    What lies in --work is used: trainings, tuned rules and rollouts. What is missing is made, which takes hours.
    """
    from rlctl import api
    from rlctl.benchmark.families import results_folder
    from rlctl.benchmark.results_page import failed_controls, summary_table
    from rlctl.config.load import load_config

    options = [f"--instances={instances}"] * (instances is not None) + [f"--set={one}" for one in sets or ()]
    command = shlex.join(["rlctl", "benchmark", *map(str, configs), *options])
    try:
        results = api.benchmark(
            {path.stem: load_config(path, sets or ()) for path in configs},
            out,
            work,
            instances=instances,
            workers=workers,
            command=command,
            progress=progress(as_json),
        )
    except KeyboardInterrupt:
        stopped(same_again=True)
    folder = results_folder() if out is None else out
    data = {"out": str(folder), "families": {one.family: plain(one.rows) for one in results}}
    tables = "\n\n".join("\n\n".join([one.family, summary_table(one), *failed_controls(one)]) for one in results)
    say(as_json, data, f"{tables}\n\nwrote to {folder}: {', '.join(one.family for one in results)}")
