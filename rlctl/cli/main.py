"""The command line. Each command calls the function of the same name in ``rlctl.api``.

Commands import it when they run, so that ``--help`` and wrong options are answered without its large imports.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import psutil
import typer
from typer.exceptions import TyperException

from rlctl.cli import cache_folders, inspect
from rlctl.cli.options import Json, Level, LogLevel, _progress, _say
from rlctl.config.provenance import rlctl_version
from rlctl.core.errors import AllocationEnds, EnvironmentFault, RlctlError, StoppedError
from rlctl.core.json_values import json_text
from rlctl.distributed.comm.mpi_environment import under_mpi
from rlctl.distributed.launch.launcher import LauncherName
from rlctl.monitoring.ledger import ledger_line
from rlctl.system import crash_report, interrupts, terminal, watchdog
from rlctl.system.files import require_file, storage_error, user_code_error, write_atomically

app = typer.Typer(
    help="Learns to steer simulation campaigns on supercomputers.",
    epilog="Example: rlctl doctor",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_INTERRUPTED = 130
"""Exit code after Ctrl-C or SIGTERM."""

_GO_ON = 75
"""Exit code where the batch job comes to its end before the campaign does: submit it again, with ``--resume``."""


def _version(asked: bool) -> None:
    if asked:
        print(f"rlctl {rlctl_version()}")
        raise typer.Exit


ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="The experiment, a YAML file.")]
Sets = Annotated[
    list[str] | None, typer.Option("--set", metavar="A.B=C", help="Change a key of the experiment; may be repeated.")
]
PolicyName = Annotated[
    str,
    typer.Option(
        "--policy", metavar="P", help="A name in the experiment's policies, a rule, or a path of either kind."
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on where it was interrupted.")]
Workers = Annotated[int, typer.Option(min=1, help="Processes to play in.")]


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command(epilog="Example: rlctl train configs/annealing.yaml --out runs/first --set train.decisions=100000")
def train(
    config: ConfigFile,
    out: Annotated[Path, typer.Option(metavar="RUN", help="Folder for checkpoints, curves and the saved policy.")],
    ranks: Annotated[
        int | None, typer.Option("--ranks", metavar="N", min=1, help="MPI ranks to train on; 1 needs no MPI.")
    ] = None,
    launcher: Annotated[
        LauncherName, typer.Option("--launcher", help="What starts them; auto: srun inside a Slurm job, else mpiexec.")
    ] = LauncherName.AUTO,
    resume: Resume = False,
    sets: Sets = None,
    as_json: Json = False,
    log_level: Level = LogLevel.WARNING,
) -> None:
    """Train a policy on the campaign's twin, on one or many processes: ``mpiexec -n N rlctl train`` works too."""
    if under_mpi():
        from rlctl.cli.train_on_ranks import be_rank

        folders = be_rank(config, out, ranks, resume=resume, sets=sets or (), quiet=as_json)
        if not folders:
            raise typer.Exit
    else:
        from rlctl import api
        from rlctl.config.load import load_config

        try:
            loaded = load_config(config, sets or ())
            if ranks is not None and ranks > 1:
                from rlctl.cli.train_on_ranks import start_ranks

                options = ["--json"] * as_json + [f"--log-level={log_level}"]
                sys.exit(start_ranks(loaded, out, ranks, launcher, resume, sets or (), options))
            folders = [api.train(loaded, out, resume=resume, progress=_progress(as_json))]
        except KeyboardInterrupt:
            _stopped(resume)
    names = [str(folder) for folder in folders]
    text = "\n".join(f"saved the policy in {name}" for name in names)
    _say(as_json, {"policies": names} if len(names) > 1 else {"policy": names[0]}, text)


@app.command(epilog="Example: rlctl tune feedback configs/annealing.yaml --out feedback.yaml")
def tune(
    rule: Annotated[str, typer.Argument(metavar="RULE", help="A registered rule.")],
    config: ConfigFile,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The rule file to write.")],
    generations: Annotated[int, typer.Option(min=1, help="Generations of the CMA-ES search.")] = 30,
    instances: Annotated[int, typer.Option(min=1, help="Instances that each candidate plays per generation.")] = 24,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the search; the experiment's if left out.")] = None,
    start: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A rule file to begin from; the rule's own values if left out.")
    ] = None,
    workers: Workers = 1,
    sets: Sets = None,
    as_json: Json = False,
    log_level: Level = LogLevel.WARNING,
) -> None:
    """Find good parameters of a rule on the campaign's twin."""
    from rlctl import api
    from rlctl.config.load import load_config

    tuned = api.tune(
        load_config(config, sets or ()),
        rule,
        out,
        generations=generations,
        instances=instances,
        seed=seed,
        workers=workers,
        start=start,
        progress=_progress(as_json),
    )
    found = ", ".join(f"{name} {value:.4g}" for name, value in tuned.parameters.items())
    before = "untuned" if start is None else "at the start"
    cost = f"{tuned.cost:,.4g} node-seconds per success on the twin, {tuned.start_cost:,.4g} {before}"
    _say(as_json, dataclasses.asdict(tuned), f"wrote {out}: {found}\n{cost}")


@app.command(epilog="Example: rlctl evaluate configs/annealing.yaml --policy ppo --against feedback linear")
def evaluate(
    config: ConfigFile,
    policy: PolicyName,
    against: Annotated[list[str], typer.Option(metavar="RULE...", help="Policies to compare with.")],
    more: Annotated[list[str] | None, typer.Argument(metavar="RULE...", help="More of --against.")] = None,
    instances: Annotated[
        int | None, typer.Option(min=1, help="Held-out instances; the experiment's if left out.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of these; the experiment's if left out.")] = None,
    workers: Workers = 1,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the comparison there, as JSON.")] = None,
    record: Annotated[
        bool, typer.Option("--record", help="Add the comparison to the saved policy's manifest.")
    ] = False,
    sets: Sets = None,
    as_json: Json = False,
    log_level: Level = LogLevel.WARNING,
) -> None:
    """Compare a policy with others on the same held-out instances, with 95 % intervals."""
    from rlctl import api
    from rlctl.config.load import load_config

    loaded = load_config(config, sets or ())
    if out is not None:
        require_file(out)
    comparison = api.evaluate(
        loaded,
        [policy, *against, *(more or ())],
        instances=instances,
        seed=seed,
        workers=workers,
        record=record,
        progress=_progress(as_json),
    )
    # First said, then written: what took hours is not lost to a full disk.
    _say(as_json, comparison.to_json(), comparison.table())
    if out is not None:
        write_atomically(out, json_text(comparison.to_json(), indent=2) + "\n")


@app.command(epilog="Example: rlctl steer configs/annealing.yaml --policy ppo --run runs/real --instance 7")
def steer(
    config: ConfigFile,
    policy: PolicyName,
    run: Annotated[Path, typer.Option(metavar="RUN", help="The run folder; must not exist, unless with --resume.")],
    instance: Annotated[int, typer.Option(min=0, help="Which instance of the campaign.")] = 0,
    resume: Resume = False,
    sets: Sets = None,
    as_json: Json = False,
    log_level: Level = LogLevel.WARNING,
) -> None:
    """Run a campaign for real: real programs, a journal, and a policy in charge."""
    from rlctl import api
    from rlctl.config.load import load_config

    try:
        loaded = load_config(config, sets or ())
        # The interpreter and the imports ran on the allocation too.
        boot_s = max(time.time() - psutil.Process().create_time(), 0.0)
        shown = _progress(as_json)
        summary = api.steer(loaded, policy, run, instance=instance, resume=resume, boot_s=boot_s, progress=shown)
    except StoppedError as error:
        _stopped(resume, error.exit_code, str(error))
    except AllocationEnds:
        _stopped(resume, _GO_ON)
    except KeyboardInterrupt:
        _stopped(resume or not (run / "journal.db").exists())
    goal = "reached" if summary.reached else "not reached"
    failed = ", ".join(f"{kind} {count}" for kind, count in summary.failures.items())
    failed = f"failed tasks: {failed}; why the last one did: rlctl status {shlex.quote(str(run))}\n" if failed else ""
    text = (
        f"{summary.decisions} decisions, {100 * summary.utilisation:.0f} % of the cores busy\n"
        f"{ledger_line(summary.core_seconds, summary.gpu_seconds) or 'no ledger'}\n"
        f"{failed}"
        f"curves: rlctl board {shlex.quote(str(run))}\n"
        f"report: rlctl report {shlex.quote(str(run))}\n"
        f"{summary.policy}: goal {goal}, {summary.successes} successes for {summary.node_seconds:,.1f} node-seconds"
    )
    _say(as_json, summary.to_json(), text)


for _command in (inspect.status, inspect.report, inspect.trace):
    app.command(epilog=f"Example: rlctl {_command.__name__} runs/films")(_command)


@app.command(epilog="Example: rlctl check configs/annealing.yaml --set machine.cores=4")
def check(
    config: ConfigFile,
    play: Annotated[
        bool,
        typer.Option("--play", help="Also play a few campaigns: do campaign and policies keep their promises?"),
    ] = False,
    sets: Sets = None,
    as_json: Json = False,
    log_level: Level = LogLevel.WARNING,
) -> None:
    """Say whether an experiment can be used: its keys, values, policies, and how they go together."""
    from rlctl import api
    from rlctl.config.load import load_config

    checked = api.check(load_config(config, sets or ()), play=play)
    data: dict[str, Any] = {"config": str(config), "ok": True}
    text = f"{config}: ok"
    if checked is not None:
        data |= dataclasses.asdict(checked)
        reached = ", ".join(f"{name} {count} of {checked.instances}" for name, count in checked.reached.items())
        text += f"; promises kept in {checked.decisions} decisions and {checked.tasks} tasks"
        text += f"; goal reached by {reached}" if reached else ""
        text += f"; {checked.cut} episodes had not ended after evaluate.max_steps" if checked.cut else ""
    _say(as_json, data, text)


@app.command(epilog="Example: rlctl board runs/films runs/annealing")
def board(
    folders: Annotated[
        list[Path] | None, typer.Argument(metavar="FOLDER...", help="Run folders, or folders of runs.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="The first free one from 6006 if left out.")
    ] = None,
    log_level: Level = LogLevel.WARNING,
) -> None:
    """Show the curves of runs in TensorBoard, until Ctrl-C."""
    from rlctl.monitoring.server import serve

    serve(folders or [Path("runs")], port, lambda url: print(f"{url}  (Ctrl-C ends it)", flush=True))


@app.command(epilog="Example: rlctl doctor")
def doctor(as_json: Json = False, log_level: Level = LogLevel.WARNING) -> None:
    """Look at MPI, GPUs, Slurm and versions, and say what to do about what is missing."""
    from rlctl.cli.doctor import diagnose

    findings = diagnose()
    signs = {True: "ok", False: "MISSING", None: "-"}
    lines = []
    for finding in findings:
        lines.append(f"{signs[finding.ok]:8}{finding.name}: {finding.detail}")
        if finding.advice:
            lines.append(f"{'':8}-> {finding.advice}")
    _say(as_json, [dataclasses.asdict(finding) for finding in findings], "\n".join(lines))
    if any(finding.ok is False for finding in findings):
        raise typer.Exit(1)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line; what the user can mend becomes one line and exit code 2, a bug one line and 70."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        if not under_mpi():  # ranks heed signals once they know their role
            interrupts.begin()
        watchdog.allow_exit()
        terminal.prepare()
        cache_folders.prepare()
        if not _has_folder():
            _fail("the current folder does not exist any more: change to one that does")
        code = app(arguments or ["--help"], prog_name="rlctl", standalone_mode=False)
        terminal.flush()
        if code == _INTERRUPTED:  # what Typer makes of an interrupt
            raise KeyboardInterrupt
        sys.exit(code)
    except SystemExit as error:
        origin = crash_report.origin(error)
        if origin.rlctl:
            raise
        _fail(f"{origin} called sys.exit({error.code!r}), which is not its to do")
    except EnvironmentFault as error:
        _fail(f"{error}; {crash_report.save_traceback(error.__cause__)}" if error.__cause__ is not None else str(error))
    except RlctlError as error:
        _fail(str(error), error.exit_code)
    except TyperException as error:
        _fail(_usage(error))
    except (KeyboardInterrupt, typer.Abort):
        _fail("stopped", _INTERRUPTED)
    except MemoryError:
        _fail("out of memory: lower train.num_envs or --workers, or run where there is more")
    except OSError as error:
        mendable = user_code_error(error)
        if isinstance(error, BrokenPipeError) and (mendable is None or not terminal.has_reader()):
            terminal.drop_output()  # `rlctl ... | head -1`: the reader has enough
            sys.exit(1)  # as Typer does where it notices first
        missing = isinstance(error, FileNotFoundError)  # of rlctl's own files; of the user's, there are better words
        mendable = mendable if mendable or missing else storage_error(error, "standard output")
        terminal.drop_output()
        _fail(str(mendable) if mendable else crash_report.report(error), 2 if mendable else crash_report.EXIT_CODE)
    except Exception as error:
        _fail(crash_report.report(error), crash_report.EXIT_CODE)


def _usage(error: TyperException) -> str:
    said = error.format_message().removesuffix(".").replace(": Input should", ": should").replace("Value error, ", "")
    context = getattr(error, "ctx", None)  # of the command that was not used rightly
    return f"{said}; see {context.command_path} --help" if context else said


def _has_folder() -> bool:
    try:
        return bool(os.getcwd())
    except OSError:
        return False


def _fail(message: str, code: int = 2) -> NoReturn:
    print(f"rlctl: {terminal.one_line(message)}", file=sys.stderr)
    sys.exit(code)


def _stopped(same_again: bool, code: int = _INTERRUPTED, why: str = "stopped") -> NoReturn:
    again = ["rlctl", *sys.argv[1:], *([] if same_again else ["--resume"])]
    _fail(f"{why}; to go on: {shlex.join(again)}", code)


if __name__ == "__main__":
    main()
