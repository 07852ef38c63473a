"""The command that learns from earlier campaigns: learn."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rlctl.cli.experiment import ConfigFile, Sets
from rlctl.cli.options import Json, Level, LogLevel, say
from rlctl.monitoring.progress import progress


def learn(
    config: ConfigFile,
    out: Annotated[Path, typer.Option(metavar="PRIOR", help="The folder to write; an earlier prior is replaced.")],
    sources: Annotated[
        list[Path] | None,
        typer.Option(
            "--from",
            metavar="RUN_OR_CSV...",
            help="Earlier campaigns: run folders, and CSV files such as results --csv writes.",
        ),
    ] = None,
    more: Annotated[
        list[Path] | None, typer.Argument(metavar="RUN_OR_CSV...", help="Further campaigns, as --from.")
    ] = None,
    twin: Annotated[
        int | None,
        typer.Option("--twin", min=1, max=10_000, metavar="N", help="In their place: problems drawn from the twin."),
    ] = None,
    evaluations: Annotated[int, typer.Option(min=5, max=300, help="Evaluations of each problem of the twin.")] = 40,
    seed: Annotated[int | None, typer.Option(min=0, help="By default that of the configuration.")] = None,
    sets: Sets = None,
    as_json: Json = False,
    log_level: Level = LogLevel.WARNING,
) -> None:
    """Learn what campaigns of a kind have in common, for the next one: objective, durations and failures."""
    from rlctl.config.load import load_config
    from rlctl.core.errors import ConfigError
    from rlctl.steering.prior_fit import learn_prior

    paths = [*(sources or ()), *(more or ())]
    if (twin is None) == (not paths):
        raise ConfigError("say what to learn from: --from RUN_OR_CSV..., or --twin N")
    loaded, shown = load_config(config, sets or ()), progress(as_json)
    learned = learn_prior(loaded, paths, out, shown, twin or 0, evaluations, seed)
    say(as_json, learned.to_json(), learned.to_text())
