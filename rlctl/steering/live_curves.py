"""Writes the curves of a running campaign to TensorBoard, with the same tags as in training."""

from __future__ import annotations

import logging
import shlex
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rlctl.config.schema import Config
from rlctl.core.campaign import Action, Decision
from rlctl.core.campaign_factory import CampaignFactory
from rlctl.core.driver import Driver
from rlctl.core.json_values import leaves
from rlctl.core.records import Record
from rlctl.evaluation.success_curves import (
    Curve,
    load_rules,
    replacing_writer,
    results_table,
    run_curve,
    summary_scalars,
    twin_curves,
    write_rules,
)
from rlctl.executors.event_log import Journal
from rlctl.monitoring.occupancy import write_occupancy
from rlctl.monitoring.run_metadata import write_run_metadata
from rlctl.monitoring.summary_writer import SummaryWriter
from rlctl.monitoring.tags import EVALUATIONS, POLICY
from rlctl.monitoring.timeline import Timeline
from rlctl.steering.evaluation_table import EvaluationTable
from rlctl.steering.summary import Summary

log = logging.getLogger(__name__)

EVERY_S = 5.0
"""Least time between two pictures of the machine."""
SHARE = 0.01
"""Largest share of the controller's time for pictures."""
LATENCIES = 1000


class LiveCurves:
    """Curves of one steering process; ``records`` are those of earlier ones. Errors never stop the campaign."""

    def __init__(
        self,
        folder: Path,
        config: Config,
        factory: CampaignFactory,
        identity: Mapping[str, Any],
        journal: Journal,
        records: Sequence[Record],
        driver: Driver,
    ) -> None:
        self._folder, self._config, self._factory, self._identity = folder, config, factory, identity
        self._journal, self._records, self._driver = journal, list(records), driver
        decisions = sum(record.kind == "decision" for record in records)
        # The last decision may have been drawn but not recorded; it is asked and drawn again.
        self._board = SummaryWriter(folder, since=decisions)
        spent = max((record.time_s for record in records), default=-1.0) * config.machine.nodes
        self._policy = SummaryWriter(folder / POLICY, since=round(spent) + 1 if records else 0)
        self._latencies_ms: deque[float] = deque(maxlen=LATENCIES)
        self._chosen: dict[str, list[float]] = {}
        self._masked: list[float] = []
        self._look_s = time.monotonic() + EVERY_S
        if not decisions:
            run = {"run": "steer", "policy": identity["policy"], "instance": identity["instance"]}
            policy = shlex.quote(str(journal.header.get("policy_source") or identity["policy"]))
            command = f"rlctl steer experiment.yaml --policy {policy} --run NEW-FOLDER --instance {run['instance']}"
            write_run_metadata(self._board, config, factory, run, command)

    def decided(self, decision: Decision, action: Action, latency_s: float) -> None:
        """Write the values of a decision."""
        self._latencies_ms.append(1e3 * latency_s)
        with _only_curves("curves of choices"):
            for name, value in _numbers(self._driver.campaign.named(action), action):
                self._chosen.setdefault(name, []).append(value)
        if decision.observed:  # rules do not read it, and making it may take longer than they do
            self._masked.append(1.0 - float(np.mean(decision.mask)) if decision.mask.size else 0.0)
        ledger, successes = self._driver.ledger, self._driver.outcome().successes
        values = {f"campaign/{name}": value for name, value in decision.fields.items()}
        values["machine/node_seconds"] = ledger.node_seconds
        values |= {f"machine/answers/{command}": n for command, n in self._driver.commands.items()}
        cost = self._driver.outcome().cost
        if successes:
            values["winning/node_seconds_per_success"] = ledger.node_seconds / successes
            if cost is not None:
                values["winning/cost_per_success"] = cost / successes
        self._board.scalars(values, decision.number)
        self._policy.scalars({"winning/successes": successes}, round(ledger.node_seconds))

    def count(self, busy_cores: int, queued_tasks: int) -> None:
        """Write the numbers of busy cores and queued tasks."""
        counts = {"machine/busy_cores": busy_cores, "machine/queued_tasks": queued_tasks}
        self._board.scalars(counts, self._driver.decisions)

    def update(self) -> None:
        """Draw the machine when it is time."""
        began_s = time.monotonic()
        if began_s >= self._look_s:
            with _only_curves("picture of the machine"):
                self._machine()
            took_s = time.monotonic() - began_s
            self._look_s = began_s + max(EVERY_S, took_s / SHARE)

    def ended(self, summary: Summary) -> None:
        """Write the result of the campaign, and of the rules on the twin of the same instance."""
        with _only_curves("last curves"):
            self._end(summary)
        self._board.end_session(succeeded=True)

    def close(self) -> None:
        """Write the pictures of the campaign, and everything buffered."""
        with _only_curves("pictures of the campaign"):
            drawn = self._factory.pictures(self._folder.parent / "work", self._newest())
            for name, png in drawn.items():
                self._board.image(f"pictures/{name}", png, self._driver.decisions)
        self._board.close()
        self._policy.close()

    def _end(self, summary: Summary) -> None:
        step, curve = self._driver.decisions, run_curve(self._machine(), summary.policy, summary.instance)
        curve = replace(curve, cost=self._driver.outcome().cost)
        figures = summary_scalars([curve]) | {
            "machine/node_seconds": summary.node_seconds,
            "learning/return_mean": self._return(summary.node_seconds),
        }
        self._board.scalars(figures, step)
        self._policy.scalars({"winning/successes": summary.successes}, round(summary.node_seconds))
        beside: dict[str, list[Curve]] = {}
        with _only_curves("rules beside the campaign"):
            beside = self._rules(summary.instance)
            write_rules(self._folder, beside, (0, max(step, 1)))
        self._board.text("about/result", results_table({f"{summary.policy}, real": [curve], **beside}), step)

    def _machine(self) -> Timeline:
        step, board = self._driver.decisions, self._board
        timeline = Timeline.read(self._newest(), self._config.machine.capacity())
        ledger = write_occupancy(board, timeline, step)
        board.scalars({"machine/utilisation": ledger.utilisation}, step)
        if self._latencies_ms:
            p50, p99 = np.quantile(self._latencies_ms, (0.5, 0.99), method="higher")
            board.scalars({"machine/latency_p50_ms": p50, "machine/latency_p99_ms": p99}, step)
        for name, values in self._chosen.items():
            whole = all(isinstance(value, int) for value in values)
            board.histogram(f"learning/actions/{name}", np.array(values, np.int64 if whole else np.float64), step)
        self._evaluations()
        board.histogram("learning/masked_shares", self._masked, step)
        if self._masked:
            board.scalars({"learning/masked_share": float(np.mean(self._masked))}, step)
        return timeline

    def _evaluations(self) -> None:
        """Write what has been found against node-seconds, anew each time: a resumed run lacks nothing then."""
        table = EvaluationTable.of(self._driver.campaign, self._folder.parent)
        if table is not None:
            with replacing_writer(self._folder / EVALUATIONS) as writer:
                for step, values in table.curves(self._config.machine.nodes):
                    writer.scalars(values, step)

    def _newest(self) -> list[Record]:
        self._records += self._journal.records(after=len(self._records))
        return self._records

    def _return(self, node_seconds: float) -> float:
        campaign, fresh = self._driver.campaign, self._factory.campaign(int(self._identity["instance"]))
        fresh.begin(self._config.machine.capacity())
        outcome = campaign.outcome()
        cost = node_seconds if outcome.cost is None else outcome.cost
        return outcome.potential - fresh.outcome().potential - campaign.reward_scale * cost

    def _rules(self, instance: int) -> dict[str, list[Curve]]:
        if not self._config.steer.rules_on_twin or not self._factory.has_twin:
            return {}
        if self._driver.campaign.findings() is not None:  # the twin of a search is an invented problem
            return {}
        loaded, problems = load_rules(self._config)
        for problem in problems:
            log.warning("%s", problem)
        return twin_curves(self._factory, self._config.machine.capacity(), loaded, [instance]) if loaded else {}


def _numbers(named: Mapping[str, Any] | None, action: Action) -> Iterator[tuple[str, float]]:
    """The numbers among the quantities that an answer names, or its indices."""
    if named is None and not isinstance(action, Mapping):
        yield from ((f"head_{head}", int(index)) for head, index in enumerate(np.atleast_1d(action)))
        return
    for path, value in leaves(named or action, lists=False):
        if isinstance(value, bool | int | float):
            yield ".".join(path), int(value) if isinstance(value, bool) else value


@contextmanager
def _only_curves(what: str) -> Iterator[None]:
    """Log errors of pictures, rules and twins, and go on."""
    try:
        yield
    except Exception as error:
        log.warning("no %s: %s", what, error)
