"""The end of a campaign: its summary, recorded in the journal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlctl.config.provenance import provenance
from rlctl.config.schema import Config
from rlctl.core.driver import Driver
from rlctl.core.json_values import json_text, plain
from rlctl.executors.event_log import Journal
from rlctl.monitoring.ledger import allocation_ledger
from rlctl.monitoring.timeline import Timeline
from rlctl.steering.evaluation_table import EvaluationTable
from rlctl.steering.run_folder import SUMMARY
from rlctl.steering.summary import Summary, task_counts
from rlctl.system.files import write_atomically


def record_end(config: Config, run: Path, journal: Journal, start: Mapping[str, Any], driver: Driver) -> Summary:
    """Sum up a campaign that has ended, and record it.

    Args:
        config: its last one.
        run: the run folder.
        journal: of the run.
        start: what it was started with, with its last policy.
        driver: of the campaign.
    """
    outcome, ledger = driver.outcome(), driver.ledger
    records = journal.records()
    tasks, failures, fallbacks = task_counts(records)
    timeline = Timeline.read(records, config.machine.capacity())
    uses = allocation_ledger(timeline, timeline.elapsed_s(ledger.node_seconds))
    table = EvaluationTable.of(driver.campaign, run)
    summary = Summary(
        campaign=start["campaign"],
        instance=start["instance"],
        policy=start["policy"],
        reached=outcome.reached,
        reason=outcome.reason,
        successes=outcome.successes,
        node_seconds=ledger.node_seconds,
        utilisation=uses.utilisation,
        decisions=driver.decisions,
        tasks=tasks,
        failures=failures,
        fallbacks=fallbacks,
        seed=config.seed,
        config_hash=start["config_hash"],
        extra=dict(outcome.extra),
        provenance=provenance(),
        core_seconds={purpose.value: seconds for purpose, seconds in uses.cores.items()},
        gpu_seconds={purpose.value: seconds for purpose, seconds in uses.gpus.items()},
        found={} if table is None else plain(table.found()),
        policy_reason=str(start.get("policy_reason", "")),
    )
    journal.append("ended", driver.executor.now(), summary.to_json())
    return summary


def write_summary(run: Path, summary: Summary) -> None:
    """Write the summary into the run folder."""
    write_atomically(run / SUMMARY, json_text(summary.to_json(), indent=2) + "\n", only_writer=True)
