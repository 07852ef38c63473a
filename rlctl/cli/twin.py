"""The commands that make a twin of one's own program: twin and calibrate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rlctl.cli.experiment import ALLOCATION_ENDS, ConfigFile, Resume, Sets
from rlctl.cli.options import Json, Level, LogLevel, say, stopped
from rlctl.monitoring.progress import progress


def twin(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="RUN_OR_CSV...", help="Run folders, and CSV files such as results --csv writes."),
    ],
    out: Annotated[Path, typer.Option(metavar="TWIN", help="The folder to write; an earlier twin is replaced.")],
    config: Annotated[
        Path | None,
        typer.Option(metavar="CONFIG", help="Whose parameters and results; by default that of the first run folder."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of the division; by default that of the configuration.")
    ] = None,
    sets: Sets = None,
    as_json: Json = False,
    log_level: Level = LogLevel.WARNING,
) -> None:
    """Fit a twin to past evaluations: durations, failures and results, with their uncertainty and held-out error."""
    from rlctl.config.load import load_config
    from rlctl.core.errors import ConfigError
    from rlctl.steering.twin_fit import fit_twin

    if sets and config is None:
        raise ConfigError("--set changes a configuration: add --config CONFIG")
    fitted = fit_twin(sources, out, None if config is None else load_config(config, sets or ()), seed)
    say(as_json, fitted.to_json(), fitted.to_text())


def calibrate(
    config: ConfigFile,
    out: Annotated[Path, typer.Option(metavar="RUN", help="The run folder to make, a new one unless with --resume.")],
    points: Annotated[int, typer.Option(min=1, max=1000, help="Points, each run on every choice of resources.")] = 4,
    resume: Resume = False,
    sets: Sets = None,
    as_json: Json = False,
    log_level: Level = LogLevel.WARNING,
) -> None:
    """Measure start-up and scaling of a program over the resources that its configuration allows, on its executor."""
    from rlctl.config.load import load_config
    from rlctl.core.errors import AllocationEnds, StoppedError
    from rlctl.steering.calibration import calibrate as measure

    loaded, begun = load_config(config, sets or ()), list[Path]()
    try:
        found = measure(loaded, out, points, resume=resume, progress=progress(as_json), begun=begun.append)
    except StoppedError as error:
        stopped(resume, error.exit_code, str(error))
    except AllocationEnds:
        stopped(resume, ALLOCATION_ENDS)
    except KeyboardInterrupt:
        stopped(resume or not begun)
    if as_json:
        say(True, found.to_json(), "")
    else:
        say(False, None, found.table())
        say(False, None, found.to_text())
