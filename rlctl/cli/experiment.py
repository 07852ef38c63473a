"""The commands about configurations: init, train, tune, evaluate, steer, check.

Each calls the function of the same name in ``rlctl.api``, which it imports when it runs: ``--help`` and wrong options
need none of the large imports.
"""

from __future__ import annotations

import dataclasses
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import psutil
import typer

from rlctl.cli.options import Json, Level, LogLevel, say, stopped
from rlctl.core.errors import AllocationEnds, ConfigError, StoppedError
from rlctl.core.json_values import json_text
from rlctl.distributed.comm.mpi_environment import under_mpi
from rlctl.distributed.launch.launcher import LauncherName
from rlctl.monitoring.ledger import ledger_line
from rlctl.monitoring.progress import progress
from rlctl.system.files import check_replaceable, write_atomically

if TYPE_CHECKING:
    from rlctl.steering.summary import Summary

ALLOCATION_ENDS = 75
"""Exit code if the batch job ends before the campaign: submit it again with ``--resume``."""

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="Configuration of the experiment, a YAML file.")]
Sets = Annotated[
    list[str] | None, typer.Option("--set", metavar="A.B=C", help="Change a key of the configuration; may be repeated.")
]
PolicyName = Annotated[
    str,
    typer.Option("--policy", metavar="P", help="A name in the configuration's policies, a rule, or a path."),
]
Resume = Annotated[bool, typer.Option("--resume", help="Resume after an interruption.")]
Workers = Annotated[int, typer.Option(min=1, help="Number of processes.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Seed of the instances; by default that of the configuration.")]


def init(
    name: Annotated[Path, typer.Argument(metavar="NAME", help="The folder to make.")],
    shipped: Annotated[
        str | None,
        typer.Option("--from", metavar="CONFIG", help="Copy a shipped configuration instead; a wrong name lists them."),
    ] = None,
    as_json: Json = False,
    log_level: Level = LogLevel.WARNING,
) -> None:
    """Write a project that runs as it stands: a configuration with comments, a small simulation, and a README."""
    from rlctl.cli.project_folder import write_project

    written = write_project(name, shipped)
    folder, config = shlex.quote(str(name)), shlex.quote(written[0].name)
    names = "  ".join(str(path.relative_to(name)) for path in written)
    go = "" if name == Path() else f"cd {folder} && "
    text = f"wrote {name}: {names}\nnext: {go}rlctl check {config}"
    text += f" && rlctl steer {config}" if shipped is None else ""
    say(as_json, {"folder": str(name), "config": str(written[0]), "files": [str(path) for path in written]}, text)


def train(
    config: ConfigFile,
    out: Annotated[Path, typer.Option(metavar="RUN", help="Folder for checkpoints, curves and the saved policy.")],
    ranks: Annotated[
        int | None, typer.Option("--ranks", metavar="N", min=1, help="Number of MPI ranks; 1 needs no MPI.")
    ] = None,
    launcher: Annotated[
        LauncherName,
        typer.Option("--launcher", help="What starts the ranks; auto: srun inside a Slurm job, else mpiexec."),
    ] = LauncherName.AUTO,
    resume: Resume = False,
    sets: Sets = None,
    as_json: Json = False,
    log_level: Level = LogLevel.WARNING,
) -> None:
    """Train a policy on the campaign's twin, in one process or on MPI ranks; 'mpiexec -n N rlctl train' works too."""
    if under_mpi():
        from rlctl.cli.train_on_ranks import be_rank

        folders = be_rank(config, out, ranks, resume=resume, sets=sets or (), quiet=as_json)
        if not folders:
            raise typer.Exit
    else:
        from rlctl import api
        from rlctl.cli.near_twin import near_config

        try:
            loaded = near_config(config, sets, as_json)
            if ranks is not None and ranks > 1:
                from rlctl.cli.train_on_ranks import start_ranks

                options = ["--json"] * as_json + [f"--log-level={log_level}"]
                sys.exit(start_ranks(loaded, out, ranks, launcher, resume, sets or (), options))
            folders = [api.train(loaded, out, resume=resume, progress=progress(as_json))]
        except KeyboardInterrupt:
            stopped(resume or not out.exists())
    from rlctl.cli.trained import trained

    say(as_json, *trained(folders))


def tune(
    rule: Annotated[str, typer.Argument(metavar="RULE", help="A registered rule.")],
    config: ConfigFile,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The rule file to write; an earlier one is replaced.")],
    generations: Annotated[int, typer.Option(min=1, help="Generations of the CMA-ES search.")] = 30,
    instances: Annotated[int, typer.Option(min=1, help="Instances of each candidate per generation.")] = 24,
    decisions: Annotated[
        int | None, typer.Option(min=1, help="Decisions on the twin in all, in place of --generations.")
    ] = None,
    step: Annotated[
        float,
        typer.Option(min=0.001, max=1.0, help="First step of the search, as a share of a parameter's whole range."),
    ] = 0.25,
    seed: Seed = None,
    start: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A rule file to start from; by default the rule's defaults.")
    ] = None,
    workers: Workers = 1,
    sets: Sets = None,
    as_json: Json = False,
    log_level: Level = LogLevel.WARNING,
) -> None:
    """Tune the parameters of a rule on the campaign's twin."""
    from rlctl import api
    from rlctl.cli.near_twin import near_config

    tuned = api.tune(
        near_config(config, sets, as_json),
        rule,
        out,
        generations=generations,
        instances=instances,
        decisions=decisions,
        step=step,
        seed=seed,
        workers=workers,
        start=start,
        progress=progress(as_json),
    )
    found = ", ".join(f"{name} {value:.4g}" for name, value in tuned.parameters.items())
    before = "untuned" if start is None else "at the start"
    cost = f"{tuned.cost:,.4g} per success on the twin, {tuned.start_cost:,.4g} {before}"
    say(as_json, dataclasses.asdict(tuned), f"wrote {out}: {found}\n{cost}")


def evaluate(
    config: ConfigFile,
    policy: PolicyName,
    against: Annotated[list[str], typer.Option(metavar="RULE...", help="Policies to compare with.")],
    more: Annotated[list[str] | None, typer.Argument(metavar="RULE...", help="Further policies, as --against.")] = None,
    instances: Annotated[
        int | None, typer.Option(min=1, help="Number of held-out instances; by default that of the configuration.")
    ] = None,
    seed: Seed = None,
    workers: Workers = 1,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write the comparison to this file, as JSON.")
    ] = None,
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
        check_replaceable(out, '"reference": ')
    comparison = api.evaluate(
        loaded,
        [policy, *against, *(more or ())],
        instances=instances,
        seed=seed,
        workers=workers,
        record=record,
        progress=progress(as_json),
    )
    # Printed before it is written: a full disk must not lose a result that took hours.
    say(as_json, comparison.to_json(), comparison.table())
    if out is not None:
        write_atomically(out, json_text(comparison.to_json(), indent=2) + "\n")


def steer(
    config: ConfigFile,
    policy: Annotated[
        str | None,
        typer.Option(
            "--policy",
            metavar="P",
            help="A name in the configuration's policies, a rule, or a path; by default the winner of judgements, see "
            "below, or that of the campaign.",
        ),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN", help="The run folder, a new one unless with --resume; by default runs/NAME-N, see below."
        ),
    ] = None,
    instance: Annotated[int | None, typer.Option(min=0, help="Instance of the campaign; by default 0.")] = None,
    resume: Resume = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the first decisions, commands and files; start and write nothing.")
    ] = False,
    sets: Sets = None,
    as_json: Json = False,
    log_level: Level = LogLevel.WARNING,
) -> None:
    """Steer a real campaign: a policy decides, programs run, and a journal records both.

    Without --policy, the judgements in the saved policies of CONFIG say which of them, or which rule, costs least.
    Without --run, the folder is runs/NAME-N, with the name of CONFIG and the next number; with --resume, it is the
    newest of these that is unfinished.
    """
    from rlctl import api
    from rlctl.config.load import load_config

    def chosen(reason: str) -> None:
        if not as_json:
            print(f"policy: {reason}", file=sys.stderr, flush=True)

    if dry_run:
        if resume:
            raise ConfigError("--dry-run: it shows how a new campaign begins: omit --resume")
        planned = api.dry_run(load_config(config, sets or ()), policy, instance=instance, chosen=chosen)
        say(as_json, planned.to_json(), planned.to_text())
        return
    begun: list[Path] = [] if run is None else [run]

    def begin(folder: Path) -> None:
        if run is None:
            begun.append(folder)
            if not as_json:
                print(f"run folder: {folder}", file=sys.stderr, flush=True)

    def more() -> list[str]:
        return [f"--run={begun[0]}"] if run is None and begun else []

    try:
        loaded = load_config(config, sets or ())
        # The start of the interpreter and the imports are charged to the allocation too.
        boot_s = max(time.time() - psutil.Process().create_time(), 0.0)
        shown = progress(as_json)
        how: dict[str, Any] = {"instance": instance, "resume": resume, "boot_s": boot_s}
        summary = api.steer(loaded, policy, run, **how, progress=shown, begun=begin, chosen=chosen)
    except StoppedError as error:
        stopped(resume, error.exit_code, str(error), more())
    except AllocationEnds:
        stopped(resume, ALLOCATION_ENDS, more=more())
    except KeyboardInterrupt:
        started = bool(begun) and (begun[0] / "journal.db").exists()
        stopped(resume or not started, more=more() if started else ())
    named = {"run": str(begun[0])} if run is None else {}
    say(as_json, {**named, **summary.to_json()}, _ending(summary, begun[0]))


def _ending(summary: Summary, run: Path) -> str:
    """What ``steer`` says in the end."""
    ended = f"ended after {summary.reason}" if summary.reason[:1].isdigit() else f"ended, {summary.reason}"
    goal = "goal reached" if summary.reached else ended if summary.reason else "goal not reached"
    name = shlex.quote(str(run))
    lines = [
        f"{summary.decisions} decisions, {100 * summary.utilisation:.0f} % of the cores busy",
        ledger_line(summary.core_seconds, summary.gpu_seconds) or "no ledger",
    ]
    if summary.failures:
        failed = ", ".join(f"{kind} {count}" for kind, count in summary.failures.items())
        lines.append(f"failed tasks: {failed}; for the last one: rlctl status {name}")
    if (found := summary.found_so_far()) is not None:
        goal = goal if found.goal or summary.reason else "ended"
        lines += [f"{what + ': ' if what else '':8}{text}" for what, text in found.lines(run)]
        lines.append(f"results: rlctl results {name} --best 10")
    lines += [f"curves: rlctl board {name}", f"report: rlctl report {name}"]
    end = f"{summary.successes} successes for {summary.node_seconds:,.1f} node-seconds"
    return "\n".join([*lines, f"{summary.policy}: {goal}, {end}"])


def check(
    config: ConfigFile,
    play: Annotated[
        bool,
        typer.Option("--play", help="Also check the contracts of campaign and policies on the twin."),
    ] = False,
    probe: Annotated[
        bool,
        typer.Option("--probe", help="Also run one evaluation of the program, in a temporary folder."),
    ] = False,
    sets: Sets = None,
    as_json: Json = False,
    log_level: Level = LogLevel.WARNING,
) -> None:
    """Check a configuration: keys, values, policies, programs, and whether they fit together.

    Of a campaign that runs programs, one evaluation is shown as it would be run: its command and its files.
    """
    from rlctl import api
    from rlctl.config.load import load_config
    from rlctl.plugins.sample_evaluation import sample_evaluation
    from rlctl.steering.policy_choice import steering_policy

    loaded = load_config(config, sets or ())
    checked = api.check(loaded, play=play)
    data: dict[str, Any] = {"config": str(config), "ok": True}
    text = f"{config}: ok"
    if checked is not None:
        data |= dataclasses.asdict(checked)
        reached = ", ".join(f"{name} {count} of {checked.instances}" for name, count in checked.reached.items())
        text += f"; contracts kept in {checked.decisions} decisions and {checked.tasks} tasks"
        text += f"; goal reached by {reached}" if reached else ""
        text += f"; {checked.cut} episodes reached evaluate.max_steps" if checked.cut else ""
    sample = sample_evaluation(loaded)
    if sample is not None:
        data["evaluation"] = sample.to_json()
        text += f"\n{sample.to_text()}"
    choice = steering_policy(loaded)
    if choice is not None:
        data["steers"] = {"policy": choice.name, "reason": choice.reason}
        text += f"\npolicy: {choice.reason}"
    if not (probe and as_json):
        say(as_json, data, text)
    if probe:
        from rlctl.steering import probe as probing

        probed = probing.probe(loaded)
        say(as_json, {**data, "ok": probed.failure is None, "probe": dataclasses.asdict(probed)}, probed.to_text())
        if probed.failure is not None:
            raise typer.Exit(1)
