"""The commands that act on run folders: ask, tell, rerun, and from another terminal stop, pause, continue."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlctl.cli.experiment import ConfigFile, Sets
from rlctl.cli.inspect import RunArgument
from rlctl.cli.options import Json, Level, LogLevel, say
from rlctl.core.errors import ConfigError
from rlctl.monitoring.formatting import format_action, format_count

if TYPE_CHECKING:
    from rlctl.steering.by_hand import Asked
    from rlctl.steering.hand_results import ToldResult

RunOption = Annotated[
    Path, typer.Option("--run", metavar="RUN", help="The run folder, which is made if there is none.")
]


def ask(
    config: ConfigFile,
    run: RunOption,
    number: Annotated[int, typer.Option("-n", metavar="N", min=1, help="How many evaluations to choose.")] = 1,
    policy: Annotated[
        str | None, typer.Option("--policy", metavar="P", help="As in steer; by default that of the run.")
    ] = None,
    still_open: Annotated[
        bool, typer.Option("--open", help="Choose none: show those that were asked for and not told yet.")
    ] = False,
    sets: Sets = None,
    as_json: Json = False,
    log_level: Level = LogLevel.WARNING,
) -> None:
    """Choose the next evaluations of a search, and write their inputs, for those who run them elsewhere."""
    from rlctl.config.load import load_config
    from rlctl.steering import by_hand, start

    def chosen(reason: str) -> None:
        if not as_json:
            print(f"policy: {reason}", file=sys.stderr, flush=True)

    loaded = load_config(config, sets or ())
    asked = by_hand.still_asked(run) if still_open else start.ask(loaded, policy, run, number, chosen=chosen)
    data = {"run": str(run), "evaluations": [point.to_json() for point in asked.points], "ended": asked.ended}
    say(as_json, data, _asked(asked, run, number, still_open))


def tell(
    run: RunArgument,
    results: Annotated[
        list[str] | None, typer.Argument(metavar="NAME=NUMBER...", help="Results of the evaluation.")
    ] = None,
    trial: Annotated[
        int | None, typer.Option("--trial", metavar="N", min=0, help="Number of the evaluation, as ask gave it.")
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Many: columns evaluation, results, and status where there are none."),
    ] = None,
    failed: Annotated[bool, typer.Option("--failed", help="It has failed, and says nothing of its point.")] = False,
    infeasible: Annotated[bool, typer.Option("--infeasible", help="Its point cannot be evaluated.")] = False,
    as_json: Json = False,
    log_level: Level = LogLevel.WARNING,
) -> None:
    """Record the results of evaluations that ask has given, and that were made elsewhere."""
    from rlctl.steering import by_hand
    from rlctl.steering.evaluation_table import Found
    from rlctl.steering.reading import results as table_of

    new, summary = by_hand.tell(run, _told(run, results or [], trial, csv, failed, infeasible))
    found: Found = table_of(run).found()
    lines = [f"told {format_count(new, 'evaluation')}"]
    lines += [f"{what + ': ' if what else '':8}{text}" for what, text in found.lines(run)]
    if summary is not None:
        lines.append("goal reached" if summary.reached else f"ended: {summary.reason}")
    say(as_json, {"run": str(run), "told": new, "ended": summary is not None, "found": found}, "\n".join(lines))


def rerun(
    run: RunArgument,
    failed: Annotated[bool, typer.Option("--failed", help="All that failed or were infeasible.")] = False,
    trials: Annotated[
        list[int] | None, typer.Option("--trial", metavar="N", min=0, help="This evaluation; may be repeated.")
    ] = None,
    as_json: Json = False,
    log_level: Level = LogLevel.WARNING,
) -> None:
    """Have evaluations that gave no result made again, when steer --resume goes on with the run."""
    from rlctl.steering import by_hand

    if failed == bool(trials):
        raise ConfigError("rerun: say which evaluations: --failed, or --trial N")
    chosen = by_hand.rerun(run, trials or None)
    names = ", ".join(map(str, chosen))
    text = f"to be made again: {format_count(len(chosen), 'evaluation')} ({names})"
    text += f"\nby: rlctl steer CONFIG --run {shlex.quote(str(run))} --resume"
    say(as_json, {"run": str(run), "evaluations": chosen}, text)


def stop(run: RunArgument, as_json: Json = False, log_level: Level = LogLevel.WARNING) -> None:
    """Stop a run that is being steered, as Ctrl-C there does: its tasks are stopped in order, and it can be resumed."""
    _request(run, "stop", "its controller stops its tasks, and ends; steer --resume goes on", as_json)


def pause(run: RunArgument, as_json: Json = False, log_level: Level = LogLevel.WARNING) -> None:
    """Start nothing more in a run that is being steered; what runs comes to its end, and then it waits."""
    _request(run, "pause", f"what runs comes to its end; then: rlctl continue {shlex.quote(str(run))}", as_json)


def continue_(run: RunArgument, as_json: Json = False, log_level: Level = LogLevel.WARNING) -> None:
    """Go on with a run that was paused."""
    _request(run, "continue", "it goes on", as_json)


def _request(run: Path, what: str, then: str, as_json: bool) -> None:
    from rlctl.steering.stop_requests import request

    request(run, what)
    say(as_json, {"run": str(run), "request": what}, f"asked {run} to {what}: {then}")


def _asked(asked: Asked, run: Path, number: int, still_open: bool) -> str:
    lines = []
    for point in asked.points:
        stage = f" at stage {point.stage}" if point.stage else ""
        lines.append(f"evaluation {point.evaluation}{stage}: {format_action(point.parameters)}")
        lines.append(f"  $ {shlex.join(point.command)}")
        lines += [f"  in {point.folder}"] if point.folder else []
    if asked.ended:
        lines.append(f"the search has ended: {asked.ended}")
    elif not asked.points and still_open:
        lines.append("none is open")
    elif len(asked.points) < number and not still_open:
        lines.append("the policy waits for results before it chooses more")
    if asked.points:
        lines.append(f"then: rlctl tell {shlex.quote(str(run))} --trial N NAME=NUMBER...")
    return "\n".join(lines)


def _told(
    run: Path, texts: list[str], trial: int | None, csv: Path | None, failed: bool, infeasible: bool
) -> list[ToldResult]:
    from rlctl.steering.by_hand import FAILED, INFEASIBLE
    from rlctl.steering.hand_results import ToldResult, parse_results, read_told
    from rlctl.steering.reading import results as table_of

    if csv is not None:
        if texts or trial is not None or failed or infeasible:
            raise ConfigError("tell: --csv tells all: leave out the rest")
        return read_told(csv, table_of(run).findings.results)
    if trial is None:
        raise ConfigError("tell: say which evaluation: --trial N, or --csv FILE for many")
    if bool(texts) + failed + infeasible != 1:
        raise ConfigError("tell: give the results as NAME=NUMBER, or --failed, or --infeasible")
    status = FAILED if failed else INFEASIBLE if infeasible else ""
    return [ToldResult(trial, parse_results(texts), status)]
