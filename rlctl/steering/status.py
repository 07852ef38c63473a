"""Reads the current state of a campaign from its run folder, without locking or writing anything."""

from __future__ import annotations

import json
import logging
import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from rich.console import Group
from rich.table import Table
from rich.text import Text

from rlctl.config.schema import Config
from rlctl.core.campaign import Campaign
from rlctl.core.errors import JournalError
from rlctl.core.json_values import json_text, plain
from rlctl.executors.event_log import Journal, JournalInUseError
from rlctl.executors.local.pid_file import unattended
from rlctl.monitoring.formatting import format_action, format_cores, format_count, format_duration
from rlctl.monitoring.ledger import allocation_ledger, ledger_line
from rlctl.monitoring.timeline import AnsweredDecision, Timeline
from rlctl.plugins.registry import configured_campaign
from rlctl.steering.evaluation_table import EvaluationTable, Found, read_table
from rlctl.steering.run_folder import WORK, Controller, RunFolder, controller, now_s, read_run
from rlctl.steering.stop_requests import requested
from rlctl.system.files import write_atomically

log = logging.getLogger(__name__)

STATUS = "status.json"
"""Written only where other processes cannot read the journal of a running campaign."""

LAST = 10
_MOST_RUNNING = 20


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """A task that holds cores."""

    uid: str
    attempt: int
    elapsed_s: float
    cores: tuple[int, ...]
    gpus: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class CampaignStatus:
    """Current state of a campaign.

    Attributes:
        reason: why it has ended, if it says more than whether the goal was reached.
        successes: successes at the last decision or at the end.
        goal: successes to reach; None: the campaign defines none, or is not installed.
        deadline_s: end of the allocation; None: it has none, or the campaign is not installed.
        elapsed_s: charged time so far.
        left_s: estimated time to the goal at the rate so far; None: unknown.
        last: the last decisions, newest last.
        failures: number of failed attempts by kind of failure.
        last_failure: task and message of the last failure; empty: no attempt has failed.
        braked: why the controller stopped the campaign, unless it was resumed since; empty: it did not.
        unattended: number of programs that still run on this machine although their controller has died.
        lease_s: remaining lease of these programs.
        found: the best evaluations; None: the campaign has no table of evaluations, or is not installed.
        policy_reason: why this policy was chosen; empty: it was named.
        by_hand: whether evaluations were asked for that are made elsewhere.
        request: ``stop`` or ``pause``, if the controller was asked for it; else empty.
    """

    run: str
    campaign: str
    instance: int
    policy: str
    ended: bool
    reached: bool
    reason: str
    controller: Controller
    successes: int
    goal: int | None
    elapsed_s: float
    deadline_s: float | None
    node_seconds: float
    left_s: float | None
    running: Sequence[TaskStatus]
    queued: int
    busy_cores: int
    total_cores: int
    decisions: int
    last: Sequence[AnsweredDecision]
    failures: Mapping[str, int]
    last_failure: str
    core_seconds: Mapping[str, float]
    gpu_seconds: Mapping[str, float]
    braked: str = ""
    unattended: int = 0
    lease_s: float = 0.0
    found: Found | None = None
    by_hand: bool = False
    policy_reason: str = ""
    request: str = ""

    def to_json(self) -> dict[str, Any]:
        """The status for JSON."""
        data: dict[str, Any] = plain(self)
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> CampaignStatus:
        """Make a status of what ``to_json`` returned."""
        return TypeAdapter(cls).validate_python(data)

    def show(self) -> Group:
        """Tables for terminals of 80 columns or more."""
        facts = Table.grid(padding=(0, 2))
        facts.add_column(no_wrap=True, style="bold")
        facts.add_column(overflow="fold")
        for name, text in self._facts():
            facts.add_row(name, Text(text))
        parts: list[Any] = [facts]
        if self.running:
            parts += [Text(""), self._running()]
        if self.last:
            parts += [Text(""), self._last()]
        return Group(*parts)

    def _facts(self) -> list[tuple[str, str]]:
        reached = format_count(self.successes, "success")
        if self.goal is not None:
            reached = f"{self.successes} of {self.goal} successes"
        missed = "goal not reached" if self.found is None or self.found.goal else ""
        ended = ", ".join(filter(None, ("ended", self.reason or missed)))
        state = "goal reached" if self.reached else ended if self.ended else self._steered()
        budget = format_duration(self.elapsed_s)
        if self.deadline_s is not None:
            left_s = max(self.deadline_s - self.elapsed_s, 0.0)
            budget += f" of {format_duration(self.deadline_s)} used, {format_duration(left_s)} left"
        facts = [
            ("run", self.run),
            ("campaign", f"{self.campaign}, instance {self.instance}, steered by {self.policy}"),
            *([("policy", self.policy_reason)] if self.policy_reason else []),
            ("state", state),
            *self._unattended(),
            ("goal", f"{reached} after {format_count(self.decisions, 'decision')}"),
            *(self.found.lines(self.run) if self.found is not None else []),
            ("budget", f"{budget}; {self.node_seconds:,.1f} node-seconds"),
        ]
        if not self.ended:
            facts.append(("tasks", f"{len(self.running)} running, {self.queued} waiting"))
            facts.append(("busy", f"{self.busy_cores} of {self.total_cores} cores"))
            left = "not known yet"
            if self.left_s is not None:
                left = f"about {format_duration(self.left_s)} at the rate so far"
            facts.append(("to go", left))
        if self.failures:
            kinds = ", ".join(f"{kind} {count}" for kind, count in self.failures.items())
            facts.append(("failed", f"{kinds}; the last: {self.last_failure}"))
        ledger = ledger_line(self.core_seconds, self.gpu_seconds)
        return [*facts, ("ledger", ledger)] if ledger else facts

    def _steered(self) -> str:
        if self.controller.alive:
            doing = {"stop": "stopping, ", "pause": "paused, "}.get(self.request, "")
            return f"{doing}being steered by process {self.controller.holder}"
        if self.controller.alive is None:
            return f"last steered by process {self.controller.holder} on another machine, which may still run"
        if self.braked:
            return self.braked
        if self.by_hand:
            return "by hand: go on with rlctl ask and tell, or with rlctl steer and --resume"
        return "interrupted: resume it with rlctl steer and --resume"

    def _unattended(self) -> list[tuple[str, str]]:
        if not self.unattended:
            return []
        several = self.unattended > 1
        text = f"{self.unattended} {'programs' if several else 'program'} still running; "
        text += f"--resume within {format_duration(self.lease_s)} adopts {'them' if several else 'it'}"
        return [("", text)]

    def _running(self) -> Table:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("running", overflow="fold")
        for heading in ("attempt", "for", "on cores"):
            table.add_column(heading, justify="right" if heading != "on cores" else "left")
        for task in self.running[:_MOST_RUNNING]:
            table.add_row(Text(task.uid), str(task.attempt), format_duration(task.elapsed_s), format_cores(task.cores))
        if len(self.running) > _MOST_RUNNING:
            table.add_row(f"and {len(self.running) - _MOST_RUNNING} more", "", "", "")
        return table

    def _last(self) -> Table:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("decision", justify="right")
        table.add_column("at", justify="right", no_wrap=True)
        table.add_column("subject", overflow="fold")
        table.add_column("action", overflow="fold")
        for decision in self.last:
            text = format_action(decision.shown) + (f"  (fallback: {decision.fallback})" if decision.fallback else "")
            table.add_row(str(decision.number), f"{decision.asked_s:,.1f} s", Text(decision.subject), Text(text))
        return table


def status(path: Path | str) -> CampaignStatus:
    """Current state of the campaign in a run folder; see ``rlctl.status``."""
    path = Path(path)
    try:
        return status_of(path)[1]
    except JournalInUseError:  # the controller writes a status file instead
        if not (path / STATUS).exists():
            raise
        try:
            return CampaignStatus.from_json(json.loads((path / STATUS).read_text()))
        except (KeyError, TypeError, ValueError) as error:
            raise JournalError(f"{path / STATUS}: damaged, or of another version ({error}): try again soon") from error


def status_of(path: Path) -> tuple[RunFolder, CampaignStatus]:
    """Content of a run folder, and the state of its campaign."""
    steering = controller(path)  # first, so that a controller that has ended has written all its records
    run = read_run(path)
    return run, _status(run, steering, _found(run))


class StatusFile:
    """Keeps ``status.json`` up to date where other processes cannot read the journal.

    It takes at most 2 % of the time, and logs errors once instead of stopping the campaign.
    """

    def __init__(self, run: Path, config: Config, journal: Journal, campaign: Campaign | None = None) -> None:
        self._run, self._config, self._journal, self._campaign = run, config, journal, campaign
        self._due_s = 0.0
        self._problem = ""

    def show(self) -> None:
        """Write the file if it is needed and due."""
        began_s = time.monotonic()
        if not self._journal.exclusive or began_s < self._due_s:
            return
        problem = ""
        try:
            write_status(self._run, self._config, self._journal, self._campaign)
        except Exception as error:  # a full disk, or code of the campaign; it is tried again
            problem = f"{self._run}: {STATUS} cannot be written: {error}"
        if problem and problem != self._problem:
            log.warning("%s", problem)
        self._problem = problem
        self._due_s = time.monotonic() + max(5.0, 49.0 * (time.monotonic() - began_s))


def write_status(path: Path, config: Config, journal: Journal, campaign: Campaign | None = None) -> None:
    """Write ``status.json`` atomically; ``campaign``: that is being steered."""
    records = journal.records()
    timeline = Timeline.read(records, config.machine.capacity())
    run = RunFolder(path, config, journal.header, records, timeline)
    table = None if campaign is None else EvaluationTable.of(campaign, path)
    now = _status(run, controller(path), None if table is None else table.found())
    write_atomically(path / STATUS, json_text(now) + "\n", only_writer=True)


def _found(run: RunFolder) -> Found | None:
    """The best evaluations, by the summary or a replay of the journal."""
    if run.timeline.summary is not None and (found := run.timeline.summary.get("found")):
        return TypeAdapter(Found).validate_python(found)
    try:
        table = read_table(run)
    except Exception:  # code of another package or version, or not installed
        return None
    return None if table is None else table.found()


def _status(run: RunFolder, steering: Controller, found: Found | None) -> CampaignStatus:
    timeline, summary = run.timeline, run.timeline.summary
    elapsed_s = now_s(run) if summary is None and steering.alive else timeline.charged_s
    campaign = _campaign(run)
    goal = None if campaign is None else campaign.goal
    if summary is not None:
        successes = int(summary["successes"])
    else:
        successes = timeline.decisions[-1].successes if timeline.decisions else 0
    alive = summary is None and steering.alive is not False
    open_ = [attempt for attempt in timeline.attempts if attempt.ended_s is None] if alive else []
    running = [
        TaskStatus(a.uid, a.attempt, max(elapsed_s - a.launched_s, 0.0), a.cores, a.gpus)
        for a in open_
        if a.launched_s is not None
    ]
    left_s = None
    if alive and goal is not None and 2 <= successes < goal:
        left_s = elapsed_s / successes * (goal - successes)
    orphaned = summary is None and steering.alive is False
    programs, lease_s = unattended(run.path / WORK) if orphaned else (0, 0.0)
    failed = [attempt for attempt in timeline.attempts if attempt.failure is not None]
    failed.sort(key=lambda attempt: attempt.ended_s or 0.0)
    if orphaned and found is not None:  # whether they still run is not known
        counts = Counter[str]()
        for status, count in found.statuses.items():
            counts["not ended" if status in ("running", "queued") else status] += count
        found = replace(found, statuses=counts)
    ledger = allocation_ledger(timeline, elapsed_s)
    return CampaignStatus(
        run=str(run.path),
        campaign=str(run.header.get("campaign", "")),
        instance=int(run.header.get("instance", 0)),
        policy=str(run.header.get("policy", "")),
        ended=summary is not None,
        reached=summary is not None and bool(summary["reached"]),
        reason="" if summary is None else str(summary.get("reason", "")),
        controller=steering,
        successes=successes,
        goal=goal,
        elapsed_s=elapsed_s,
        deadline_s=campaign.deadline_s if campaign is not None and math.isfinite(campaign.deadline_s) else None,
        node_seconds=timeline.node_seconds(elapsed_s),
        left_s=left_s,
        running=running,
        queued=len(open_) - len(running),
        busy_cores=sum(len(task.cores) for task in running),
        total_cores=timeline.capacity.total_cores,
        decisions=len(timeline.decisions),
        last=timeline.decisions[-LAST:],
        failures=dict(Counter(str(a.failure) for a in failed)),
        last_failure=": ".join(filter(None, [failed[-1].uid, failed[-1].message])) if failed else "",
        core_seconds={purpose.value: seconds for purpose, seconds in ledger.cores.items()},
        gpu_seconds={purpose.value: seconds for purpose, seconds in ledger.gpus.items()},
        braked=timeline.braked,
        unattended=programs,
        lease_s=lease_s,
        found=found,
        policy_reason=str(run.header.get("policy_reason", "")),
        by_hand=next((r.data.get("away", True) for r in reversed(run.records) if r.kind == "asked"), False),
        request=requested(run.path) if alive else "",
    )


def _campaign(run: RunFolder) -> Campaign | None:
    try:
        return configured_campaign(run.config).campaign(int(run.header.get("instance", 0)))
    except Exception:  # code of another package, or not installed: the journal suffices
        return None
