"""The Python interface to steered campaigns, running or ended: their report, trace, evaluations and status."""

from __future__ import annotations

from pathlib import Path

from rlctl.core.errors import JournalError
from rlctl.monitoring.progress import Progress, Silent
from rlctl.monitoring.trace import MARK, trace_json
from rlctl.steering.evaluation_table import EvaluationTable, read_table
from rlctl.steering.report import write_report
from rlctl.steering.run_folder import read_run
from rlctl.steering.status import CampaignStatus
from rlctl.steering.status import status as status_now
from rlctl.system.files import write_generated


def report(
    run: Path | str,
    out: Path | str | None = None,
    *,
    rules: bool = True,
    instances: int = 12,
    progress: Progress | None = None,
) -> Path:
    """Write a report of a steered campaign, ended or not, as one self-contained HTML file.

    Args:
        run: the run folder.
        out: the file; None: ``report.html`` in the run folder. Of existing files only earlier reports are replaced.
        rules: run the configured rules on the campaign's twin, to compare.
        instances: further instances for the rules, to show the spread over instances.
        progress: receives the progress; None: not shown.

    Returns:
        the file.

    Raises:
        JournalError: ``run`` is not a run folder, or its journal is damaged.
        ConfigError: the configuration is missing or damaged, or ``out`` is another file.
    """
    return write_report(Path(run), None if out is None else Path(out), rules, instances, progress or Silent())


def trace(run: Path | str, out: Path | str | None = None) -> Path:
    """Write tasks and decisions of a steered campaign as Chrome trace events, for Perfetto.

    Args:
        run: the run folder.
        out: the file; None: ``trace.json`` in the run folder. Of existing files only earlier traces are replaced.

    Returns:
        the file.

    Raises:
        JournalError: ``run`` is not a run folder, or its journal is damaged.
        ConfigError: the configuration is missing or damaged, or ``out`` is another file.
    """
    run = Path(run)
    found = read_run(run)
    out = run / "trace.json" if out is None else Path(out)
    write_generated(out, trace_json(found.timeline, found.header), MARK)
    return out


def results(run: Path | str) -> EvaluationTable:
    """The evaluations of a steered campaign, running, killed or ended: parameters, results, times and cost.

    Raises:
        JournalError: ``run`` is not a run folder, its journal is damaged, or its campaign has no such table.
        ConfigError: the configuration is missing or damaged.
    """
    table = read_table(read_run(Path(run)))
    if table is None:
        raise JournalError(f"{run}: its campaign keeps no table of evaluations; see rlctl status and rlctl report")
    return table


def status(run: Path | str) -> CampaignStatus:
    """Current state of a steered campaign: goal, budget, running tasks, last decisions, ledger.

    Raises:
        JournalError: ``run`` is not a run folder, or its journal is damaged.
        ConfigError: the configuration is missing or damaged.
    """
    return status_now(run)
