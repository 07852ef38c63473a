"""Writes the report of a campaign that has ended, runs or was killed, as one self-contained HTML file.

All data come from the run folder, except for the results of rules on the twin, which need the campaign's package. The
page has no script, and the template engine escapes all text.
"""

from __future__ import annotations

import base64
import contextlib
import logging
import math
import os
import shlex
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import yaml
from markupsafe import Markup

from rlctl.config.load import config_data
from rlctl.config.provenance import rlctl_version
from rlctl.core.errors import RlctlError
from rlctl.core.task import TaskState
from rlctl.executors.local.process_task import LOGS
from rlctl.executors.naming import attempt_key, file_name
from rlctl.monitoring import svg
from rlctl.monitoring.formatting import format_action, format_count, format_duration, format_value
from rlctl.monitoring.gantt import gantt
from rlctl.monitoring.ledger import SHOWN, Purpose, allocation_ledger, percentages
from rlctl.monitoring.palette import PURPOSE_COLOURS, STATE_COLOURS, css_declarations
from rlctl.monitoring.progress import Progress
from rlctl.monitoring.timeline import TaskAttempt
from rlctl.plugins.registry import configured_campaign, load_policy
from rlctl.steering.comparison import RuleComparison, compare
from rlctl.steering.evaluation_table import EvaluationTable, read_table, shown_value
from rlctl.steering.plausibility import BEYOND, Plausibility, plausibility
from rlctl.steering.run_folder import CONFIG, WORK, RunFolder
from rlctl.steering.search_charts import runs_beside, search_charts
from rlctl.steering.status import CampaignStatus, status_of
from rlctl.system.files import check_replaceable, write_generated

log = logging.getLogger(__name__)

MARK = '<meta name="generator" content="rlctl report">'
REPORT = "report.html"

_MEANINGS = {
    Purpose.USEFUL: "ran tasks that succeeded or still run",
    Purpose.WASTED: "ran tasks that failed, were cancelled or were lost with their controller",
    Purpose.BOOT: "the controller or a task was starting",
    Purpose.QUEUE: "free, while no waiting task fitted",
    Purpose.CONTROLLER: "free, while the controller decided and recorded",
    Purpose.IDLE: "free, without waiting tasks",
}
_STATES = {
    "done": "done",
    "running": "running",
    "failed": "failed (with a cross), or lost with its controller",
    "canceled": "cancelled",
    "starting": "starting",
}


def write_report(path: Path, out: Path | None, rules: bool, instances: int, progress: Progress) -> Path:
    """Write the report of the run in ``path``; see ``rlctl.report``."""
    out = path / REPORT if out is None else out
    run, now = status_of(path)
    check_replaceable(out, MARK)  # before the rules run for half a minute
    table = _table(run)
    # The twin of a search is an invented problem, and says nothing of this program.
    with_twin = rules and table is None
    beside = compare(run, with_twin, instances, progress)
    write_generated(out, render(run, now, beside, plausibility(run, progress) if with_twin else None, table), MARK)
    return out


def _table(run: RunFolder) -> EvaluationTable | None:
    try:
        return read_table(run)
    except Exception as error:  # code of another package or version; the report is written without it
        log.warning("%s: no table of evaluations: %s", run.path, error)
        return None


def render(
    run: RunFolder,
    now: CampaignStatus,
    beside: RuleComparison,
    twin: Plausibility | None = None,
    table: EvaluationTable | None = None,
) -> str:
    """Render the page.

    Args:
        twin: the comparison of results with the twin, if any.
        table: the evaluations, if the campaign has any.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("rlctl.steering", "page"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["seconds"] = lambda value: f"{value:,.1f}"
    environment.filters["action"] = format_action
    environment.filters["shown"] = shown_value
    environment.filters["safe_svg"] = Markup
    environment.globals["colours"] = css_declarations
    environment.globals["cost"] = lambda value: f"{value:,.1f}" if math.isfinite(value) else "never"
    timeline = run.timeline
    ledger = allocation_ledger(timeline, now.elapsed_s)
    shares: dict[str, float] = {purpose: ledger.shares()[purpose] for purpose in SHOWN}
    colours: dict[str, str] = {purpose: f"--{colour}" for purpose, colour in PURPOSE_COLOURS.items()}
    chart, summed = gantt(timeline)
    failures = [
        attempt for attempt in timeline.attempts if attempt.failure is not None or attempt.state is TaskState.FAILED
    ]
    return environment.get_template("page.html.j2").render(
        mark=Markup(MARK),
        now=now,
        found=None if table is None else table.found().lines(now.run, 10),
        best=None if table is None else table.best(10),
        drawn=None if table is None else search_charts(table, timeline.capacity.nodes, runs_beside(run)),
        sentence=_sentence(now),
        facts=_facts(run, now),
        beside=beside,
        chart=Markup(beside.chart),
        charts={name: Markup(text) for name, text in beside.charts.items()},
        twin=twin,
        beyond=BEYOND,
        pictures=_pictures(run),
        ledger=ledger,
        meanings=_MEANINGS,
        purpose_colours=colours,
        cores_percent=percentages(ledger.cores),
        gpus_percent=percentages(ledger.gpus),
        ledger_bar=Markup(svg.stacked(shares, colours, "what the allocated core-seconds were for")),
        gantt=Markup(chart),
        summed=summed,
        states=[(f"--{STATE_COLOURS[state]}", text) for state, text in _STATES.items()],
        decisions=timeline.decisions,
        failures=_grouped(run, failures),
        failures_all=len(failures),
        commands=_commands(run, beside),
        configuration=yaml.safe_dump(config_data(run.config), sort_keys=False),
        versions=_versions(run),
        written=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        version=rlctl_version(),
    )


def _sentence(now: CampaignStatus) -> str:
    reached = format_count(now.successes, "success") if now.goal is None else f"{now.successes} of {now.goal} successes"
    if now.found is not None and now.found.best and len(now.found.objectives) == 1 and not now.reached:
        (name,) = now.found.objectives
        reached = f"best {name} {shown_value(now.found.best[0].results[name])} in {now.found.ended:,} evaluations"
    cost = f"{reached} for {now.node_seconds:,.1f} node-seconds"
    if now.ended and now.found is not None and not now.found.goal:
        return f"Ended: {cost}."
    if now.ended:
        end = "Goal reached" if now.reached else (now.reason[:1].upper() + now.reason[1:]) or "Goal not reached"
        return f"{end}: {cost}."
    if now.controller.alive:
        return f"In progress: {cost} so far."
    if now.controller.alive is None:
        return f"Not ended: {cost} so far; its controller, if it runs, is on another machine."
    return f"{'Stopped' if now.braked else 'Interrupted'} before the end: {cost} so far."


def _facts(run: RunFolder, now: CampaignStatus) -> list[tuple[str, str]]:
    timeline = run.timeline
    states = Counter(attempt.state.value for attempt in timeline.attempts if attempt.launched_s is not None)
    fallbacks = Counter(decision.fallback for decision in timeline.decisions if decision.fallback)
    useful = percentages(now.core_seconds).get("useful run", 0)
    budget = format_duration(now.elapsed_s)
    budget += f" of {format_duration(now.deadline_s)}" if now.deadline_s is not None else ""
    latencies = sorted(1e3 * (decision.answered_s - decision.asked_s) for decision in timeline.decisions)
    facts = [
        ("node-seconds", f"{now.node_seconds:,.1f}"),
        ("node-seconds per success", f"{now.node_seconds / now.successes:,.1f}" if now.successes else "-"),
        ("allocation used", budget),
        ("cores in useful runs", f"{useful} %"),
        ("decisions", f"{now.decisions:,}"),
        ("task attempts", _counted(states)),
    ]
    if now.braked:
        facts.append(("reason of the stop", now.braked))
    if latencies:
        facts.append(("median decision latency", f"{latencies[len(latencies) // 2]:.2f} ms"))
    if fallbacks:
        facts.append(("decisions of the fallback", ", ".join(f"{n:,} ({why})" for why, n in sorted(fallbacks.items()))))
    extra = timeline.summary["extra"] if timeline.summary is not None else {}
    return facts + [(key.replace("_", " "), format_value(value)) for key, value in extra.items()]


def _counted(states: Counter[str]) -> str:
    spelling = {"canceled": "cancelled"}
    return ", ".join(f"{count:,} {spelling.get(state, state)}" for state, count in sorted(states.items())) or "none"


def _grouped(run: RunFolder, failures: Sequence[TaskAttempt]) -> list[dict[str, Any]]:
    """Failures grouped by kind and message, apart from the name of the task; the most frequent first."""
    groups: dict[tuple[str, str], list[TaskAttempt]] = {}
    for attempt in failures:
        kind = attempt.failure.value if attempt.failure is not None else "will be repeated"
        groups.setdefault((kind, attempt.message.replace(attempt.uid, "...")), []).append(attempt)
    return [
        {
            "count": f"{len(group):,}",
            "kind": kind,
            "message": group[0].message,
            "first": _attempt_text(group[0]),
            "last": _attempt_text(group[-1]) if len(group) > 1 else "",
            "log": next(filter(None, (_log_of(run, attempt) for attempt in reversed(group[-20:]))), ""),
        }
        for (kind, _), group in sorted(groups.items(), key=lambda item: -len(item[1]))
    ]


def _attempt_text(attempt: TaskAttempt) -> str:
    number = f", attempt {attempt.attempt}" if attempt.attempt > 1 else ""
    return f"{attempt.uid}{number} at {attempt.ended_s or 0.0:,.2f} s"


def _log_of(run: RunFolder, attempt: TaskAttempt) -> str:
    """Path of its standard error, or of its standard output if that is empty."""
    folder, name = run.path / WORK / LOGS, file_name(attempt_key(attempt.uid, attempt.attempt))
    for end in ("err", "out"):
        with contextlib.suppress(OSError):
            if (folder / f"{name}.{end}").stat().st_size:
                return str(folder / f"{name}.{end}")
    return ""


def _commands(run: RunFolder, beside: RuleComparison) -> list[tuple[str, str]]:
    """Commands for the next steps, ready to run."""
    config, name = str(run.path / CONFIG), str(run.header.get("policy"))
    policy = str(run.header.get("policy_source") or name)
    instance = str(run.header.get("instance", 0))
    commands = []
    if _loads(run, policy):
        again = ["rlctl", "steer", config, "--policy", policy, "--instance", instance, "--run"]
        if run.timeline.summary is None:
            commands.append(("resume this campaign", shlex.join([*again, str(run.path), "--resume"])))
        commands.append(("repeat this campaign in a new folder", shlex.join([*again, str(_free(run.path))])))
        against = [row.name for row in beside.rows if row.name not in (name, policy)]
        if against:
            evaluate = ["rlctl", "evaluate", config, "--policy", policy, "--against", *against]
            commands.append(("compare policies on held-out instances", shlex.join(evaluate)))
    commands.append(("write this report", shlex.join(["rlctl", "report", str(run.path)])))
    return commands


def _loads(run: RunFolder, policy: str) -> bool:
    """Whether ``load_policy`` finds it; not if it was given from Python, or its package or folder is missing."""
    try:
        load_policy(run.config, policy)
    except RlctlError:
        return False
    return True


def _free(run: Path) -> Path:
    """An unused path beside the run."""
    whole = run if run.name not in ("", "..") else run.resolve()
    names = (whole.with_name(f"{whole.name[:100]}-again{number}") for number in ("", *range(2, 10_000)))
    return next(path for path in names if not os.path.lexists(path))


def _versions(run: RunFolder) -> list[tuple[str, str]]:
    header, made = run.header, run.header.get("provenance") or {}
    facts = [
        ("campaign", f"{header.get('campaign')}, version {header.get('campaign_version')}"),
        ("instance", str(header.get("instance"))),
        ("policy", str(header.get("policy_reason") or header.get("policy"))),
        ("policy from", str(header.get("policy_source") or "given from Python")),
        ("seed", str(header.get("seed"))),
        ("configuration", f"SHA-256 {header.get('config_hash')}"),
        ("commit", str(made.get("commit") or "not a checkout")),
        ("Python", str(made.get("python"))),
        ("platform", str(made.get("platform"))),
    ]
    return facts + [(name, str(version)) for name, version in (made.get("versions") or {}).items()]


def _pictures(run: RunFolder) -> list[tuple[str, str]]:
    """Name and data URI of each picture of the campaign."""
    try:
        factory = configured_campaign(run.config)
    except RlctlError:
        return []
    try:
        found = factory.pictures(run.path / WORK, run.records)
    except Exception as error:  # code of another package; the report is written without pictures
        log.warning("campaign %s could not draw its pictures: %r", run.config.campaign.name, error)
        return []
    return [(name, f"data:image/png;base64,{base64.b64encode(png).decode()}") for name, png in found.items()]
