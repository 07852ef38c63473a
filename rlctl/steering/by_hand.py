"""Acts on the journal of a run without steering it: evaluations that are made elsewhere, and repeated ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlctl.config.provenance import provenance
from rlctl.config.schema import Config
from rlctl.core.campaign_factory import CampaignFactory
from rlctl.core.driver import Driver
from rlctl.core.errors import ConfigError, one_line
from rlctl.core.policy import Policy
from rlctl.core.records import Record
from rlctl.core.runner import NoRunner
from rlctl.core.task import Event, Failure, TaskResult, TaskState, event_to_json
from rlctl.executors.event_log import Journal
from rlctl.plugins.preflight import load_fallback
from rlctl.steering.asked_points import AskedPoint, asked_points
from rlctl.steering.config_history import Amendment, last_state, newest_config, newest_start, replaying
from rlctl.steering.control_loop import TIMEOUT
from rlctl.steering.ending import record_end, write_summary
from rlctl.steering.evaluation_table import EvaluationsFile
from rlctl.steering.going_on import amend, create_run, goes_on, start_of
from rlctl.steering.hand_results import ToldResult
from rlctl.steering.policy_guard import PolicyGuard
from rlctl.steering.run_folder import JOURNAL, has_ended, recorded_config, require_run
from rlctl.steering.summary import Summary
from rlctl.system.watchdog import watching

FAILED, INFEASIBLE = "failed", "infeasible"


class _Waiting(Exception):
    """The campaign has no question before something has happened."""


@dataclass(frozen=True, slots=True)
class OpenRun:
    """A run whose journal this process holds.

    Attributes:
        config: its last configuration.
        start: what it was started with, with its last policy.
        driver: it has folded the records.
    """

    path: Path
    config: Config
    start: Mapping[str, Any]
    records: Sequence[Record]
    journal: Journal
    driver: Driver


@dataclass(frozen=True, slots=True)
class Asked:
    """Evaluations that are to be made elsewhere.

    Attributes:
        points: their parameters, files and commands.
        ended: why the campaign has no more of them; empty: it has, or waits for results.
    """

    points: Sequence[AskedPoint]
    ended: str


def ask(
    config: Config,
    factory: CampaignFactory,
    policy: Policy,
    run: Path,
    instance: int,
    count: int,
    source: str | None,
    choice: Mapping[str, Any],
) -> Asked:
    """Have a policy choose evaluations, which are made elsewhere; a run folder is made if there is none.

    Args:
        config: the experiment.
        factory: of its campaign.
        policy: that chooses.
        run: the run folder.
        instance: number of the instance.
        count: of evaluations; fewer, where the policy waits for results.
        source, choice: see ``rlctl.steering.control.steer``.

    Raises:
        JournalError: another process holds the run, or its campaign has no table of evaluations.
        ConfigError: a key of the configuration has changed that may not.
    """
    limit_s = config.steer.decision_timeout_s
    with watching(limit_s, TIMEOUT):
        fallback = load_fallback(config, factory)
    if not factory.by_hand:
        raise ConfigError(f"campaign {factory.name} cannot be made by hand: steer it", ("campaign", "name"))
    start = start_of(config, factory, policy, fallback, instance, source, choice)
    if not (run / JOURNAL).exists():
        create_run(run, config, factory, start)
    with closing(Journal.open(run / JOURNAL)) as journal:
        going = goes_on(run, config, factory, start, journal)
        if going.over:
            summary = Summary.from_json(journal.records(kinds=("ended",))[-1].data)
            return Asked([], summary.reason or "goal reached")
        records = journal.records()
        time_s = _last_s(records)
        journal.append("epoch", time_s, provenance())
        runner = NoRunner(config.machine.capacity(), time_s)
        driver = replaying(going.before, records, instance, runner, journal, _no_wait)
        driver.fold(records)
        amend(run, config, driver, going.amendments)
        campaign = driver.campaign
        guard = PolicyGuard(policy, fallback, campaign.action_space, campaign.refuses, config.steer.clean_answers)
        guard.reset(instance)
        if (state := _state(records, going.amendments)) is not None:
            guard.restore(state)
        before = set(campaign.open_evaluations())
        with watching(limit_s, TIMEOUT):
            while len(new := campaign.open_evaluations().keys() - before) < count:
                if not _answer(driver, guard, journal):
                    break
        outcome = driver.outcome()
        if outcome.ended:
            summary = record_end(config, run, journal, going.start, driver)
            write_summary(run, summary)
        EvaluationsFile(run, campaign).show(now=True)
        why = (outcome.reason or "goal reached") if outcome.ended else ""
        return Asked(asked_points(config, run, driver, sorted(new)), why)


def still_asked(run: Path) -> Asked:
    """Evaluations that were asked for and have not ended; their folders are made anew where they are missing."""
    with opened(run) as held:
        return Asked(asked_points(held.config, run, held.driver, sorted(held.driver.campaign.open_evaluations())), "")


def tell(run: Path, told: Sequence[ToldResult]) -> tuple[int, Summary | None]:
    """Record what came of evaluations that were made elsewhere, all or none.

    Returns:
        how many of them were not known yet, and the summary if the campaign has ended by them.

    Raises:
        JournalError: another process holds the run.
        ConfigError: there is no such evaluation, it has ended otherwise, or a result is missing.
    """
    with opened(run) as held:
        driver, now_s = held.driver, held.driver.executor.now()
        events = [event for one in told if (event := _event(held, one, now_s)) is not None]
        with held.journal.batch():
            for event in events:
                held.journal.append("event", now_s, event_to_json(event))
        driver.take(events)
        EvaluationsFile(run, driver.campaign).show(now=True)
        if not driver.outcome().ended or has_ended(held.records):
            return len(events), None
        summary = record_end(held.config, run, held.journal, held.start, driver)
        write_summary(run, summary)
        return len(events), summary


def rerun(run: Path, numbers: Sequence[int] | None = None) -> list[int]:
    """Have evaluations that gave no result made again when the run goes on; returns their numbers.

    Args:
        run: the run folder.
        numbers: of evaluations; None: all that failed or were infeasible.

    Raises:
        JournalError: another process holds the run.
        ConfigError: one of them cannot be repeated, or there is none.
    """
    with opened(run) as held:
        able = held.driver.campaign.repeatable()
        if numbers is None:
            numbers = [number for number, status in able.items() if status in (FAILED, INFEASIBLE)]
            if not numbers:
                raise ConfigError(f"{run}: no evaluation has failed without a result since: nothing to repeat")
        for number in numbers:
            if number not in able:
                raise ConfigError(f"{run}: evaluation {number} {_standing(held, number)}: it cannot be repeated")
        chosen = list(dict.fromkeys(numbers))
        held.driver.amend("rerun", {"evaluations": chosen})
        EvaluationsFile(run, held.driver.campaign).show(now=True)
        return chosen


@contextmanager
def opened(run: Path) -> Iterator[OpenRun]:
    """Hold the journal of a run, and replay it.

    Raises:
        JournalError: it is no run folder, or another process holds it.
    """
    require_run(run)
    with closing(Journal.open(run / JOURNAL)) as journal:
        records = journal.records()
        config = newest_config(recorded_config(run), records)
        start = newest_start(journal.header, records)
        runner = NoRunner(config.machine.capacity(), _last_s(records))
        driver = replaying(config, records, int(start["instance"]), runner, journal, _no_wait)
        driver.fold(records)
        yield OpenRun(run, config, start, records, journal, driver)


def _answer(driver: Driver, guard: PolicyGuard, journal: Journal) -> bool:
    """Have the next decision answered; False: there is none."""
    try:
        decision = driver.advance()
    except _Waiting:
        return False
    if decision is None:
        return False
    action, reason = guard.act(decision)
    now_s, state = driver.executor.now(), guard.state()
    with journal.batch():  # a kill must not leave a point that is asked for and held to run here
        if reason is not None:
            journal.append("fallback", now_s, {"number": decision.number, "reason": reason})
        if state:
            journal.append("policy", now_s, {"number": decision.number, "state": state})
        driver.answer(action)
        numbers = [n for n, uid in driver.campaign.open_evaluations().items() if uid in driver.started]
        if numbers:
            driver.amend("asked", {"evaluations": numbers})
    return True


def _event(held: OpenRun, told: ToldResult, time_s: float) -> Event | None:
    """The end of an evaluation; None: it has ended in just this way."""
    campaign = held.driver.campaign
    findings, uid = campaign.findings(), campaign.open_evaluations().get(told.number)
    assert findings is not None
    if told.status == "":
        told.check(findings.results)
    if uid is None:
        row = next((row for row in campaign.evaluations() if row["evaluation"] == told.number), {})
        same = row.get("status") == (told.status or "done")
        if same and all(row.get(name) == value for name, value in told.results.items()):
            return None
        raise ConfigError(f"{told.where}evaluation {told.number} {_standing(held, told.number)}")
    if told.status == FAILED:
        result = TaskResult(uid, TaskState.FAILED, 1, {}, Failure.EXIT, "failed elsewhere", time_s, time_s)
        return Event(time_s, uid, TaskState.FAILED, 1, result)
    values: dict[str, Any] = {"outputs": dict(told.results)}
    if told.status == INFEASIBLE:
        values = {"then": INFEASIBLE, "kind": INFEASIBLE, "message": "infeasible elsewhere"}
    result = TaskResult(uid, TaskState.DONE, 1, values, None, "", time_s, time_s)
    return Event(time_s, uid, TaskState.DONE, 1, result)


def _standing(held: OpenRun, number: int) -> str:
    """How an evaluation stands, in words."""
    rows = held.driver.campaign.evaluations()
    row = next((row for row in rows if row["evaluation"] == number), None)
    if row is None:
        return f"is not there, the run has {len(rows)}"
    return f"is {one_line(str(row['status']))}" + (" and was repeated" if row["status"] in (FAILED, INFEASIBLE) else "")


def _state(records: Sequence[Record], amendments: Sequence[Amendment]) -> Any:
    return None if any(data.get("policy") for _, data in amendments) else last_state(records)


def _last_s(records: Sequence[Record]) -> float:
    return max((record.time_s for record in records), default=0.0)


def _no_wait(timeout_s: float, *, idle: bool = False) -> list[Event]:
    raise _Waiting
