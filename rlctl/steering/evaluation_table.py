"""The table of a campaign's evaluations: the best rows, rows that fulfil a condition, and ``evaluations.csv``."""

from __future__ import annotations

import csv
import io
import logging
import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from rlctl.config.expressions import Expression
from rlctl.config.schema import Config
from rlctl.core.campaign import Campaign
from rlctl.core.findings import MINIMIZE, Findings
from rlctl.core.json_values import plain
from rlctl.executors.event_log import Journal
from rlctl.monitoring.formatting import format_value
from rlctl.monitoring.timeline import Timeline
from rlctl.steering.config_history import folded
from rlctl.steering.run_folder import WORK, RunFolder
from rlctl.system.files import write_atomically

log = logging.getLogger(__name__)

EVALUATIONS = "evaluations.csv"
_FOLDERS = "evaluations"
_EVERY_S, _SHARE = 1.0, 0.02
_MOST_BEST = 100
_TIMES = ("queued_s", "started_s", "ended_s")

Row = Mapping[str, Any]


@dataclass(frozen=True)
class EvaluationTable:
    """Evaluations of a campaign at one moment.

    Attributes:
        rows: in the order of their starts, unless ``best`` has chosen.
        findings: what they mean.
        run: the run folder.
    """

    rows: Sequence[Row]
    findings: Findings
    run: Path

    @classmethod
    def of(cls, campaign: Campaign, run: Path) -> EvaluationTable | None:
        """The table of a campaign; None if it has none."""
        findings = campaign.findings()
        return None if findings is None else cls([dict(row) for row in campaign.evaluations()], findings, run)

    @property
    def columns(self) -> list[str]:
        """Names of the columns. One that only some rows have stands behind the one that it follows there."""
        columns: list[str] = []
        for row in self.rows:
            at = 0
            for name in row:
                if name in columns:
                    at = columns.index(name) + 1
                else:
                    columns.insert(at, name)
                    at += 1
        return columns

    def where(self, text: str) -> EvaluationTable:
        """The rows for which an expression over the columns is true; a row that lacks a value is left out.

        Raises:
            ConfigError: it is no expression, or names a column that is not there.
        """
        expression = Expression(text, self.columns)
        return self._of([row for row in self.rows if _holds(expression, row)])

    def best(self, count: int) -> EvaluationTable:
        """The best rows, the best first; of the Pareto front, or of those that fulfil the condition, the first ones."""
        best = {id(self.rows[place]) for place in self.findings.best}
        if len(self.findings.objectives) != 1:
            return self._of([row for row in self.rows if id(row) in best][:count])
        (name, aim), stage = next(iter(self.findings.objectives.items())), self.findings.stage
        sign = 1.0 if aim == MINIMIZE else -1.0
        able = [row for row in self.rows if row.get("feasible") and row.get("stage", stage) == stage]
        return self._of(sorted(able, key=lambda row: (id(row) not in best, sign * row[name]))[:count])

    def csv_text(self) -> str:
        """As text for spreadsheets and programs; numbers keep all their digits."""
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns or ["evaluation"], lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _cell(value) for name, value in row.items()} for row in self.rows)
        return text.getvalue()

    def to_json(self) -> dict[str, Any]:
        """For JSON: the rows, and the numbers of the best ones among all."""
        best = [row["evaluation"] for row in map(self.rows.__getitem__, self.findings.best)]
        data: dict[str, Any] = plain({"objectives": dict(self.findings.objectives), "best": best, "rows": self.rows})
        return data

    def show(self) -> Table:
        """For terminals: number, parameters, results, how it stands, seconds and cost."""
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        shown = self.shown_columns()

        def digits(name: str) -> int:
            return 10 if name in (*self.findings.results, *self.findings.objectives) else 5

        for name in shown:
            numeric = all(isinstance(row.get(name, 0), int | float | None) for row in self.rows)
            table.add_column(name, justify="right" if numeric else "left", overflow="fold")
        for row in self.rows:
            table.add_row(*(Text(shown_value(row.get(name), digits(name))) for name in shown))
        return table

    def found(self) -> Found:
        """What is the best."""
        rows = [self.rows[place] for place in self.findings.best]
        if self.findings.objectives:
            name, aim = next(iter(self.findings.objectives.items()))
            rows = sorted(rows, key=lambda row: float(row[name]) * (1.0 if aim == MINIMIZE else -1.0))
        ended = sum(row["ended_s"] is not None for row in self.rows)
        inputs, outputs = self.findings.parameters, self.findings.results
        extra = [name for name in self.findings.objectives if name not in (*outputs, *inputs)]
        best = [
            BestEvaluation(
                number=int(row["evaluation"]),
                parameters={name: row[name] for name in inputs if name in row},
                results={name: row[name] for name in (*outputs, *extra) if name in row},
            )
            for row in rows[:_MOST_BEST]
        ]
        statuses = dict(Counter(str(row["status"]) for row in self.rows).most_common())
        goal = self.findings.goal
        return Found(ended, len(self.rows), dict(self.findings.objectives), len(rows), best, goal, statuses)

    def curves(self, nodes: int) -> list[tuple[int, dict[str, float]]]:
        """Points of curves, as (node-seconds, values by tag): the tags ``found/...`` of ``rlctl.monitoring.tags``."""
        points, best, failures = list[tuple[int, dict[str, float]]](), dict[str, float](), dict[str, int]()
        counts = self.findings.stage
        for row in sorted((row for row in self.rows if row["ended_s"] is not None), key=lambda row: row["ended_s"]):
            stage, values = str(row.get("stage", "")), dict[str, float]()
            for name, aim in self.findings.objectives.items():
                if isinstance(value := row.get(name), int | float):
                    values[f"found/objective/{name}{'/' * bool(stage)}{stage}"] = value
                    if row["feasible"] and stage == (counts if "stage" in row else ""):
                        best[name] = (min if aim == MINIMIZE else max)(best.get(name, value), value)
                        values[f"found/best/{name}"] = best[name]
            failures[stage] = failures.get(stage, 0) + (row["feasible"] is None)
            values[f"found/failures/{stage or 'all'}"] = failures[stage]
            points.append((round(nodes * float(row["ended_s"])), values))
        return points

    def _of(self, rows: Sequence[Row]) -> EvaluationTable:
        """Some of the rows."""
        places = {id(row): place for place, row in enumerate(rows)}
        best = [places[id(self.rows[place])] for place in self.findings.best if id(self.rows[place]) in places]
        return replace(self, rows=rows, findings=replace(self.findings, best=tuple(best)))

    def shown_columns(self) -> list[str]:
        """Columns that fit on a terminal: without clock times, what is the same everywhere, and what is empty."""
        findings = self.findings
        always = {"evaluation", "status", *findings.parameters, *findings.results, *findings.objectives}
        values = {name: {str(row.get(name)) for row in self.rows} for name in self.columns if name not in _TIMES}
        return [name for name, of in values.items() if name in always or (len(of) > 1 and name != "message")]


@dataclass(frozen=True, slots=True)
class BestEvaluation:
    """One of the best evaluations."""

    number: int
    parameters: Mapping[str, Any]
    results: Mapping[str, Any]

    def files(self, run: Path | str) -> str:
        """Folder of its files; empty if they are not kept."""
        folder = Path(run) / WORK / _FOLDERS / f"{self.number:04d}"
        return str(folder) if folder.is_dir() else ""


@dataclass(frozen=True, slots=True)
class Found:
    """The best that a campaign has found so far.

    Attributes:
        ended: number of evaluations that have ended.
        started: number of all.
        objectives: ``minimize`` or ``maximize`` by name; empty: a condition is looked for.
        count: number of best ones: of the Pareto front, or of those that fulfil the condition.
        best: the first of them.
        goal: whether there is a goal besides the end.
        statuses: number of evaluations by status.
    """

    ended: int
    started: int
    objectives: Mapping[str, str]
    count: int
    best: Sequence[BestEvaluation]
    goal: bool = True
    statuses: Mapping[str, int] = field(default_factory=dict)

    def lines(self, run: Path | str, most: int = 5) -> list[tuple[str, str]]:
        """Names and texts for people; of several best ones, ``most``."""
        counts = ", ".join(f"{count:,} {status}" for status, count in self.statuses.items())
        return [*self._best_lines(run, most), *([("evaluations", counts)] if len(self.statuses) > 1 else [])]

    def _best_lines(self, run: Path | str, most: int) -> list[tuple[str, str]]:
        if not self.best:
            return [("best", "none yet")]
        first = self.best[0]
        files = [("files", folder)] if (folder := first.files(run)) else []
        if len(self.objectives) == 1:
            best = f"{_named(first.results)} (evaluation {first.number} of {self.started})"
            return [("best", best), ("at", _named(first.parameters, 7)), *files]
        kind, each = ("front", "not dominated") if self.objectives else ("found", "fulfil the condition")
        lines = [(kind, f"{self.count:,} of {self.ended:,} evaluations {'are ' * bool(self.objectives)}{each}")]
        lines += [
            (f"{one.number}", f"{_named(one.results)} at {_named(one.parameters, 7)}") for one in self.best[:most]
        ]
        if self.count > most:
            lines.append(("", f"and {self.count - most:,} more"))
        return [*lines, *files]


def _named(values: Mapping[str, Any], digits: int = 10) -> str:
    return ", ".join(f"{name} {shown_value(value, digits)}" for name, value in values.items())


def read_table(run: RunFolder) -> EvaluationTable | None:
    """The table of a run, by replay of its journal; None if its campaign has none.

    Raises:
        JournalError: the journal does not fit the campaign that is installed.
    """
    campaign = folded(run.path, run.config, run.records, int(run.header.get("instance", 0))).campaign
    return EvaluationTable.of(campaign, run.path)


def read_csv(run: Path) -> list[dict[str, Any]]:
    """Rows of the ``evaluations.csv`` of a run; texts, numbers and truth as they look."""
    with (run / EVALUATIONS).open(newline="") as file:
        return [{name: cell_value(text) for name, text in row.items()} for row in csv.DictReader(file)]


def write_table(run: Path, config: Config, journal: Journal) -> None:
    """Write ``evaluations.csv`` of a run that has ended."""
    records = journal.records()
    timeline = Timeline.read(records, config.machine.capacity())
    if (table := read_table(RunFolder(run, config, journal.header, records, timeline))) is not None:
        write_atomically(run / EVALUATIONS, table.csv_text(), only_writer=True)


class EvaluationsFile:
    """Keeps ``evaluations.csv`` up to date, about once a second; logs errors once instead of stopping the campaign."""

    def __init__(self, run: Path, campaign: Campaign) -> None:
        self._run, self._campaign = run, campaign
        self._due_s = 0.0
        self._written = self._problem = ""

    def show(self, *, now: bool = False) -> None:
        """Write the file if it is due and something has changed; ``now``: due or not."""
        began_s = time.monotonic()
        if began_s < self._due_s and not now:
            return
        problem = ""
        try:
            table = EvaluationTable.of(self._campaign, self._run)
            if table is None:
                self._due_s = math.inf
                return
            text = table.csv_text()
            if text != self._written:
                write_atomically(self._run / EVALUATIONS, text, only_writer=True)
                self._written = text
        except Exception as error:  # a full disk, or code of the campaign; it is tried again
            problem = f"{self._run}: {EVALUATIONS} cannot be written: {error}"
        if problem and problem != self._problem:
            log.warning("%s", problem)
        self._problem = problem
        self._due_s = began_s + max(_EVERY_S, (time.monotonic() - began_s) / _SHARE)


def _holds(expression: Expression, row: Row) -> bool:
    if any(row.get(name) is None for name in expression.names):
        return False
    return bool(expression({name: row[name] for name in expression.names}))


def cell_value(text: str) -> Any:
    """Number, truth, text or None of a cell, as it looks."""
    if text in ("", "true", "false"):
        return {"": None, "true": True, "false": False}[text]
    try:
        return float(text)
    except ValueError:
        return text


def _cell(value: Any) -> Any:
    """Truth as in JSON and YAML."""
    return str(value).lower() if isinstance(value, bool) else value


def shown_value(value: Any, digits: int = 10) -> str:
    """A value of a row for people, with so many significant digits."""
    if isinstance(value, float):
        return f"{value:.{digits}g}"
    return "-" if value is None or value == "" else format_value(value)
