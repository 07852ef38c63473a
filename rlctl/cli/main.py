"""The command line: registers the commands, and turns exceptions into messages and exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer
from typer.exceptions import TyperException

from rlctl.cli import benchmark, cache_folders, campaign_runs, experiment, inspect, judge, learn, twin
from rlctl.cli.options import INTERRUPTED, fail
from rlctl.config.provenance import rlctl_version
from rlctl.core.errors import EnvironmentFault, RlctlError
from rlctl.distributed.comm.mpi_environment import under_mpi
from rlctl.system import crash_report, interrupts, terminal, watchdog
from rlctl.system.files import storage_error, user_code_error

app = typer.Typer(
    help="Learns to steer simulation campaigns on supercomputers.",
    epilog="Example: rlctl doctor",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _command, _example in (
    (experiment.init, "scan"),
    (twin.calibrate, "scan.yaml --out runs/scaling"),
    (twin.twin, "runs/scan-1 earlier.csv --out twin"),
    (learn.learn, "scan.yaml --from runs/scan-1 runs/scan-2 earlier.csv --out prior"),
    (experiment.train, "configs/annealing.yaml --out runs/first --set train.decisions=100000"),
    (experiment.tune, "feedback configs/annealing.yaml --out feedback.yaml"),
    (experiment.evaluate, "configs/annealing.yaml --policy ppo --against feedback linear"),
    (benchmark.benchmark, "configs/ensemble_small.yaml --out runs/results"),
    (judge.judge, "configs/annealing.yaml --policy ppo"),
    (experiment.steer, "configs/annealing.yaml --policy ppo --run runs/real --instance 7"),
    (campaign_runs.ask, "scan/scan.yaml --run runs/by-hand -n 4"),
    (campaign_runs.tell, "runs/by-hand --trial 0 product=0.7 profit=0.5"),
    (campaign_runs.rerun, "runs/scan-1 --failed"),
    (campaign_runs.stop, "runs/scan-1"),
    (campaign_runs.pause, "runs/scan-1"),
    (campaign_runs.continue_, "runs/scan-1"),
    (inspect.status, "runs/films"),
    (inspect.results, "runs/scan-1 --best 5"),
    (inspect.report, "runs/films"),
    (inspect.trace, "runs/films"),
    (experiment.check, "configs/annealing.yaml --set machine.cores=4"),
    (inspect.board, "runs/films runs/annealing"),
    (inspect.doctor, ""),
):
    _name = _command.__name__.rstrip("_")
    app.command(_name, epilog=f"Example: rlctl {_name} {_example}".rstrip())(_command)


def _version(asked: bool) -> None:
    if asked:
        print(f"rlctl {rlctl_version()}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line; errors of the user become one line and exit code 2, bugs one line and 70."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        if not under_mpi():  # ranks handle signals once they know their role
            interrupts.begin()
        watchdog.allow_exit()
        terminal.prepare()
        cache_folders.prepare()
        if not _has_folder():
            fail("the current folder no longer exists: change to another one")
        code = app(arguments or ["--help"], prog_name="rlctl", standalone_mode=False)
        terminal.flush()
        if code == INTERRUPTED:  # Typer's exit code after an interrupt
            raise KeyboardInterrupt
        sys.exit(code)
    except SystemExit as error:
        origin = crash_report.origin(error)
        if origin.rlctl:
            raise
        fail(f"{origin} called sys.exit({error.code!r}), which only rlctl may do")
    except EnvironmentFault as error:
        fail(f"{error}; {crash_report.save_traceback(error.__cause__)}" if error.__cause__ is not None else str(error))
    except RlctlError as error:
        fail(str(error), error.exit_code)
    except TyperException as error:
        fail(_usage(error))
    except (KeyboardInterrupt, typer.Abort):
        fail("stopped", INTERRUPTED)
    except MemoryError:
        fail("out of memory: lower train.num_envs or --workers, or run where there is more")
    except OSError as error:
        problem = user_code_error(error)
        if isinstance(error, BrokenPipeError) and (problem is None or not terminal.has_reader()):
            terminal.drop_output()  # `rlctl ... | head -1`
            sys.exit(1)  # as Typer does
        missing = isinstance(error, FileNotFoundError)  # a file of rlctl: a bug; those of users have better messages
        problem = problem if problem or missing else storage_error(error, "standard output")
        terminal.drop_output()
        fail(str(problem) if problem else crash_report.report(error), 2 if problem else crash_report.EXIT_CODE)
    except Exception as error:
        fail(crash_report.report(error), crash_report.EXIT_CODE)


def _usage(error: TyperException) -> str:
    message = error.format_message().removesuffix(".")
    message = message.replace(": Input should", ": should").replace("Value error, ", "")
    context = getattr(error, "ctx", None)
    return f"{message}; see {context.command_path} --help" if context else message


def _has_folder() -> bool:
    try:
        return bool(os.getcwd())
    except OSError:
        return False


if __name__ == "__main__":
    main()
