"""Steers a real campaign: a policy decides, programs run on this allocation, and a journal records both."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from rlctl.bundle.network import NumpyPolicy
from rlctl.config.load import config_data, config_hash, load_config, write_config
from rlctl.config.provenance import provenance
from rlctl.config.schema import Config
from rlctl.core.campaign_factory import CampaignFactory
from rlctl.core.driver import Driver
from rlctl.core.errors import JournalError, NoAnswerError, StoppedError
from rlctl.core.json_values import differences, digest, json_text, plain
from rlctl.core.policy import Policy
from rlctl.core.task import Event
from rlctl.environments.residual import ResidualPolicy
from rlctl.executors.engine import Executor
from rlctl.executors.event_log import Journal
from rlctl.executors.factory import BackendFactory
from rlctl.executors.recovery import History
from rlctl.monitoring.ledger import allocation_ledger
from rlctl.monitoring.progress import Progress, Silent
from rlctl.monitoring.timeline import Timeline
from rlctl.plugins.preflight import check_campaign, load_fallback
from rlctl.plugins.registry import executor_factory, executor_options
from rlctl.steering.evaluation_table import EvaluationsFile, EvaluationTable, write_table
from rlctl.steering.failure_limit import FailureLimit
from rlctl.steering.live_curves import LiveCurves
from rlctl.steering.policy_guard import PolicyGuard
from rlctl.steering.run_folder import CONFIG, JOURNAL, MADE, SUMMARY, TENSORBOARD, WORK, portable, require_journal
from rlctl.steering.status import StatusFile
from rlctl.steering.stop_requests import stop_requests
from rlctl.steering.summary import Summary, task_counts
from rlctl.system.files import atomic_folder, require_folder, write_atomically
from rlctl.system.watchdog import watching

log = logging.getLogger(__name__)

TIMEOUT = "steer.decision_timeout_s"

_SLICE_S = 0.25
_COUNT_S = 1.0
"""Time between two counts of busy cores and queued tasks."""


def steer(
    config: Config,
    policy: Policy,
    run: Path,
    instance: int = 0,
    *,
    resume: bool = False,
    boot_s: float = 0.0,
    source: str | None = None,
    choice: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    begun: Callable[[Path], None] | None = None,
) -> Summary:
    """Run a real campaign from its start, or from its interruption, to its end.

    Args:
        config: the experiment; ``campaign``, ``machine``, ``executor`` and ``steer`` are used.
        policy: the steering policy; ``config.steer.fallback`` decides where it fails.
        run: the run folder: journal, configuration, summary, TensorBoard files, and task files in ``work``.
        instance: number of the instance.
        resume: resume the campaign in ``run``; otherwise ``run`` must not exist or be empty.
        boot_s: seconds of the allocation that this process has used so far; they are charged.
        source: argument of ``load_policy`` for this policy, recorded in the journal.
        choice: why it was chosen where none was named (``policy_reason``), and the rule that it is if ``config`` was
            given that (``policy_rule``); recorded too.
        progress: receives the progress; None: not shown.
        begun: receives the run folder once it is made, or found.

    Raises:
        LaunchError: this machine is smaller than ``config.machine``.
        StorageError: ``run`` cannot be made, or is not empty and ``resume`` is not set.
        JournalError: ``resume`` is set and ``run`` contains no campaign, or another one.
        StoppedError: tasks fail repeatedly, or the policy exceeds its time limit; all tasks are stopped, and the
            campaign can be resumed.
        KeyboardInterrupt: SIGINT or SIGTERM arrived; all tasks are stopped, and the campaign can be resumed.
    """
    factory = check_campaign(config, real=True)
    identity: dict[str, Any] = {
        "campaign": factory.name,
        "campaign_version": factory.version,
        "instance": instance,
        "policy": policy.name,
        "config_hash": config_hash(config),
    }
    with watching(config.steer.decision_timeout_s, TIMEOUT):
        fallback = load_fallback(config, factory)
    # A saved policy may be replaced under its name; a run is resumed with the same policy only.
    for role, one in (("policy", policy), ("fallback", fallback)):
        if isinstance(one, NumpyPolicy | ResidualPolicy) and one.digest is not None:
            identity[f"{role}_digest"] = one.digest
    executors = executor_factory(config.executor.name, executor_options(config))
    executors.check(config.machine.capacity())  # before the run folder is made
    if not resume:
        again = {"policy_source": source, **(choice or {}), "game_hash": digest(_game(config))}
        _create(run, config, factory, {**identity, **again})
    else:
        require_journal(run)
    if begun is not None:
        begun(run)
    with closing(Journal.open(run / JOURNAL)) as journal:
        repaired = identity["config_hash"] != journal.header.get("config_hash")
        if repaired and digest(_game(config)) == journal.header.get("game_hash"):
            identity["config_hash"] = journal.header["config_hash"]
        _check(run, journal.header, identity, config)
        ended = journal.records(kinds=("ended",))
        if ended:
            log.warning("%s: this campaign has already ended; nothing was run", run)
            summary = Summary.from_json(ended[0].data)
            if summary.found:  # a kill may have come before the last lines of its table
                write_table(run, config, journal)
        else:
            if repaired:
                new = run / f".{CONFIG}.new"
                write_config(portable(config), new)
                new.replace(run / CONFIG)
            quiet = progress or Silent()
            loop = _Loop(config, factory, executors, policy, fallback, run, journal, identity, quiet)
            summary = loop.run(boot_s)
        write_atomically(run / SUMMARY, json_text(summary.to_json(), indent=2) + "\n", only_writer=True)
    return summary


class _Loop:
    """The control loop of one steering process."""

    def __init__(
        self,
        config: Config,
        factory: CampaignFactory,
        executors: BackendFactory,
        policy: Policy,
        fallback: Policy | None,
        run: Path,
        journal: Journal,
        identity: Mapping[str, Any],
        progress: Progress,
    ) -> None:
        self._config, self._run, self._journal, self._progress = config, run, journal, progress
        self._factory, self._identity, self._executors = factory, identity, executors
        self._records = journal.records()
        self._campaign = factory.campaign(int(identity["instance"]))
        self._guard = PolicyGuard(
            policy, fallback, self._campaign.action_space, self._campaign.refuses, config.steer.clean_answers
        )
        self._failures = FailureLimit(config.steer, run, run / WORK, self._records, self._campaign.excuses)
        self._shown_s = self._counted_s = 0.0
        self._busy_cores = 0
        self._status = StatusFile(run, config, journal, self._campaign)
        self._table = EvaluationsFile(run, self._campaign)

    def run(self, boot_s: float) -> Summary:
        """Run the campaign from its last record to its end."""
        origin_s = max((record.time_s for record in self._records), default=0.0)
        self._journal.append("epoch", origin_s, provenance())
        capacity = self._config.machine.capacity()
        with stop_requests() as self._check_stop:
            scoring, start_s = self._factory.scoring, origin_s + boot_s
            self._executor = Executor.open(self._executors, capacity, self._run / WORK, self._journal, start_s, scoring)
            self._driver = Driver(self._campaign, self._executor, self._journal, self._wait)
            self._curves = LiveCurves(
                self._run / TENSORBOARD,
                self._config,
                self._factory,
                self._identity,
                self._journal,
                self._records,
                self._driver,
            )
            self._progress.start("steering", self._campaign.deadline_s, "s of the allocation", origin_s)
            self._shown_s = origin_s
            timeout_s = self._config.steer.decision_timeout_s
            try:
                with watching(timeout_s, TIMEOUT, self._give_up):
                    self._decide()
                    summary = self._end()
                try:
                    with watching(timeout_s, TIMEOUT):  # rules run on the twin after the end of the campaign
                        self._curves.ended(summary)
                except NoAnswerError as error:
                    log.warning("%s", error)
                return summary
            except KeyboardInterrupt:
                self._note_stop("")
                raise
            except StoppedError as error:
                self._note_stop(error.problem)
                raise
            except NoAnswerError as error:
                stopped = StoppedError(f"{self._run}: stopped: {error.problem}; then resume")
                self._note_stop(stopped.problem)
                raise stopped from error
            finally:
                self._progress.stop()
                self._executor.close()
                self._table.show(now=True)
                self._curves.close()

    def _note_stop(self, why: str) -> None:
        """Record that the allocation was held until now."""
        self._journal.append("time", self._executor.now(), {})
        if why:
            self._journal.append("braked", self._executor.now(), {"reason": why})

    def _give_up(self, why: str) -> None:
        """Close down from the watchdog's thread, since user code blocks the main thread and the process will exit."""
        self._executor.close()
        self._note_stop(why)

    def _decide(self) -> None:
        self._guard.reset(int(self._identity["instance"]))
        answered = sum(record.kind == "decision" for record in self._records)
        # A state after the last recorded decision belongs to one that will be asked again.
        states = [r for r in self._records if r.kind == "policy" and r.data["number"] < answered]
        if states:
            self._guard.restore(states[-1].data["state"])
        launched = History.read(self._records).attempts
        decision = self._driver.replay(self._records, {uid: attempt.number for uid, attempt in launched.items()})
        while decision is not None:
            self._check_stop()
            self._failures.check()
            began_s = time.perf_counter()
            action, reason = self._guard.act(decision)
            latency_s = time.perf_counter() - began_s
            now_s, state = self._executor.now(), self._guard.state()
            if reason is not None:
                self._journal.append("fallback", now_s, {"number": decision.number, "reason": reason})
            if state:
                self._journal.append("policy", now_s, {"number": decision.number, "state": state})
            self._curves.decided(decision, action, latency_s)
            decision = self._driver.step(action)

    def _end(self) -> Summary:
        outcome, ledger = self._driver.outcome(), self._driver.ledger
        records = self._journal.records()
        tasks, failures, fallbacks = task_counts(records)
        end_s = ledger.node_seconds / self._config.machine.capacity().nodes
        uses = allocation_ledger(Timeline.read(records, self._executor.capacity), end_s)
        table = EvaluationTable.of(self._campaign, self._run)
        summary = Summary(
            campaign=self._identity["campaign"],
            instance=self._identity["instance"],
            policy=self._identity["policy"],
            reached=outcome.reached,
            reason=outcome.reason,
            successes=outcome.successes,
            node_seconds=ledger.node_seconds,
            utilisation=uses.utilisation,
            decisions=self._driver.decisions,
            tasks=tasks,
            failures=failures,
            fallbacks=fallbacks,
            seed=self._config.seed,
            config_hash=self._identity["config_hash"],
            extra=dict(outcome.extra),
            provenance=provenance(),
            core_seconds={purpose.value: seconds for purpose, seconds in uses.cores.items()},
            gpu_seconds={purpose.value: seconds for purpose, seconds in uses.gpus.items()},
            found={} if table is None else plain(table.found()),
            policy_reason=str(self._journal.header.get("policy_reason", "")),
        )
        self._journal.append("ended", self._executor.now(), summary.to_json())
        return summary

    def _wait(self, timeout_s: float, *, idle: bool = False) -> list[Event]:
        """Wait for events in short slices, to react to stop requests and update what is shown meanwhile."""
        end_s = self._executor.now() + timeout_s
        while True:
            self._check_stop()
            self._show()
            slice_s = min(_SLICE_S, max(end_s - self._executor.now(), 0.0))
            asked_s = time.monotonic()
            events = self._executor.wait(slice_s, idle=idle)
            # An early return means that nothing is queued or running, or that nodes came or went.
            early = time.monotonic() - asked_s < 0.5 * slice_s
            for event in events:
                self._failures.note(event)
            if events or early or self._executor.now() >= end_s:
                return events

    def _show(self) -> None:
        outcome = self._driver.outcome()
        if not outcome.ended:  # tasks that are stopped at the end may fail
            self._failures.check()
        self._status.show()
        self._table.show()
        if time.monotonic() >= self._counted_s + _COUNT_S:
            self._counted_s = time.monotonic()
            executor = self._executor.status()
            self._busy_cores = sum(task.resources.cores for task in executor.running)
            self._curves.count(self._busy_cores, executor.waiting)
        self._curves.update()
        now_s = self._executor.now()
        note = f"{outcome.successes} successes, {self._driver.decisions} decisions, "
        note += f"{self._failures.failed} failed (last: {self._failures.last}), " if self._failures.failed else ""
        note += f"best {outcome.extra['best']:.10g}, " if "best" in outcome.extra else ""
        self._progress.advance(now_s - self._shown_s, note + f"{self._busy_cores} cores busy")
        self._shown_s = now_s


def _create(run: Path, config: Config, factory: CampaignFactory, identity: Mapping[str, Any]) -> None:
    """Make the run folder with its journal, atomically."""
    require_folder(run, made=MADE)
    with atomic_folder(run, MADE) as new:
        (new / WORK).mkdir()
        factory.prepare(new / WORK, int(identity["instance"]))
        write_config(portable(config), new / CONFIG)
        Journal.create(new / JOURNAL, {**identity, "seed": config.seed, "provenance": provenance()}).close()


def _check(run: Path, header: Mapping[str, Any], identity: Mapping[str, Any], config: Config) -> None:
    for key, value in identity.items():
        if header.get(key) != value:
            recorded, what = header.get(key), key.replace("_", " ")
            if key == "config_hash":
                began = _game(load_config(run / CONFIG))
                what, recorded, value = next(differences(began, _game(config)), (what, recorded, value))
            raise JournalError(f"{run} was started with {what} {recorded!r}, not {value!r}: resume it unchanged")


def _game(config: Config) -> dict[str, Any]:
    """The configuration without what may change on a resumption: ``steer`` and the options of the executor."""
    data = config_data(portable(config))
    del data["steer"], data["executor"]["options"]
    return data
