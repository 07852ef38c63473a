"""Steers a real campaign: a policy decides, programs run on this allocation, a journal remembers."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from rlctl.campaign import CampaignFactory
from rlctl.config import Config, config_hash, provenance, write_config
from rlctl.driver import Driver
from rlctl.errors import JournalError
from rlctl.executors.journal import Journal, last_attempts
from rlctl.executors.local import LocalExecutor
from rlctl.executors.slots import machine_slots
from rlctl.monitoring.progress import Progress, Silent
from rlctl.policy import Policy
from rlctl.records import Record
from rlctl.registry import campaign_factory, load_policy
from rlctl.steering.curves import SteeringCurves
from rlctl.steering.guard import Guard
from rlctl.steering.summary import Summary, task_counts
from rlctl.steering.watch import StopRequest, WatchedExecutor, stop_requests

log = logging.getLogger(__name__)

JOURNAL, CONFIG, SUMMARY, TENSORBOARD, WORK = "journal.db", "config.yaml", "summary.json", "tensorboard", "work"


def steer(
    config: Config,
    policy: Policy,
    run: Path,
    instance: int = 0,
    *,
    resume: bool = False,
    boot_s: float = 0.0,
    progress: Progress | None = None,
) -> Summary:
    """Run one campaign for real, from its start or from where it was interrupted, to its end.

    Args:
        config: the experiment; ``campaign``, ``machine`` and ``steer`` are used.
        policy: who decides; ``config.steer.fallback`` steps in where it fails.
        run: the run folder: journal, configuration, summary, TensorBoard files, and the tasks' files in ``work``.
        instance: which instance of the campaign.
        resume: go on with what is in ``run``; without it ``run`` must not exist or be empty.
        boot_s: seconds of the allocation that this process has taken to get here; they are charged.
        progress: told how far it is; silent if None.

    Raises:
        LaunchError: this machine has less than ``config.machine``.
        JournalError: ``run`` holds a campaign and ``resume`` is not set, or the other way round, or it is another
            campaign's.
        KeyboardInterrupt: SIGINT or SIGTERM came; everything is stopped and ``resume`` goes on.
    """
    factory = campaign_factory(config.campaign.name, config.campaign.options)
    identity = {
        "campaign": factory.name,
        "campaign_version": factory.version,
        "instance": instance,
        "policy": policy.name,
        "config_hash": config_hash(config),
    }
    fallback = load_policy(config, config.steer.fallback) if config.steer.fallback is not None else None
    machine_slots(config.machine.capacity())  # before anything is made: refuses what this machine does not have
    if not resume:
        _create(run, config, factory, identity)
    elif not (run / JOURNAL).exists():
        raise JournalError(f"{run}: nothing to resume, there is no {JOURNAL}; to begin, leave out --resume")
    with closing(Journal.open(run / JOURNAL)) as journal:
        _check(run, journal.header, identity)
        records = list(journal.records())
        ended = next((record for record in records if record.kind == "ended"), None)
        if ended is not None:
            log.warning("%s: this campaign has already ended; nothing was run", run)
            summary = Summary(**ended.data)
        else:
            loop = _Loop(config, factory, policy, fallback, run, journal, records, identity, progress or Silent())
            summary = loop.run(boot_s)
        summary.write(run / SUMMARY)
    return summary


class _Loop:
    """One life of the steering process."""

    def __init__(
        self,
        config: Config,
        factory: CampaignFactory,
        policy: Policy,
        fallback: Policy | None,
        run: Path,
        journal: Journal,
        records: Sequence[Record],
        identity: Mapping[str, Any],
        progress: Progress,
    ) -> None:
        self._config, self._run, self._journal, self._progress = config, run, journal, progress
        self._records, self._identity = records, identity
        self._factory = factory
        self._campaign = factory.campaign(int(identity["instance"]))
        self._guard = Guard(policy, fallback, self._campaign.action_space)
        self._shown_s = 0.0

    def run(self, boot_s: float) -> Summary:
        """From the last record to the end of the campaign."""
        origin_s = max((record.time_s for record in self._records), default=0.0)
        self._journal.append("epoch", origin_s, provenance())
        capacity = self._config.machine.capacity()
        with stop_requests() as stop:
            start_s = origin_s + boot_s
            executor = LocalExecutor(capacity, workdir=self._run / WORK, journal=self._journal, start_s=start_s)
            self._executor = WatchedExecutor(executor, stop, self._show)
            self._driver = Driver(self._campaign, self._executor, self._journal)
            self._curves = SteeringCurves(
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
            try:
                self._decide(stop)
                summary = self._end()
                self._curves.ended(summary)
                return summary
            finally:
                self._progress.stop()
                executor.shutdown()
                self._curves.close()

    def _decide(self, stop: StopRequest) -> None:
        self._guard.reset(int(self._identity["instance"]))
        answered = sum(record.kind == "decision" for record in self._records)
        # A state beyond the last recorded answer is of a decision that will be asked again.
        states = [r for r in self._records if r.kind == "policy" and r.data["number"] < answered]
        if states:
            self._guard.restore(states[-1].data["state"])
        decision = self._driver.replay(self._records, last_attempts(self._records))
        while decision is not None:
            stop.check()
            began_s = time.perf_counter()
            action, reason = self._guard.act(decision)
            latency_s = time.perf_counter() - began_s
            now_s, state = self._executor.now(), self._guard.state()
            if reason is not None:
                self._journal.append("fallback", now_s, {"number": decision.number, "reason": reason})
            if state:
                self._journal.append("policy", now_s, {"number": decision.number, "state": state})
            busy = sum(self._executor.busy.values())
            self._curves.decided(decision, action, latency_s, busy, self._executor.queued)
            decision = self._driver.step(action)

    def _end(self) -> Summary:
        outcome, ledger = self._driver.outcome(), self._driver.ledger
        tasks, failures, fallbacks = task_counts(self._journal.records())
        allocated_s = ledger.node_seconds * self._config.machine.cores
        summary = Summary(
            campaign=self._identity["campaign"],
            instance=self._identity["instance"],
            policy=self._identity["policy"],
            reached=outcome.reached,
            successes=outcome.successes,
            node_seconds=ledger.node_seconds,
            utilisation=ledger.core_seconds / allocated_s if allocated_s else 0.0,
            decisions=self._driver.decisions,
            tasks=tasks,
            failures=failures,
            fallbacks=fallbacks,
            seed=self._config.seed,
            config_hash=self._identity["config_hash"],
            extra=dict(outcome.extra),
            provenance=provenance(),
        )
        self._journal.append("ended", self._executor.now(), summary.to_json())
        return summary

    def _show(self) -> None:
        self._curves.looked()
        now_s = self._executor.now()
        note = f"{self._driver.outcome().successes} successes, {self._driver.decisions} decisions, "
        self._progress.advance(now_s - self._shown_s, note + f"{sum(self._executor.busy.values())} cores busy")
        self._shown_s = now_s


def _create(run: Path, config: Config, factory: CampaignFactory, identity: Mapping[str, Any]) -> None:
    """Make the run folder: it appears whole, with its journal, or not at all."""
    if run.exists() and (not run.is_dir() or any(run.iterdir())):
        raise JournalError(f"{run} exists already: add --resume to go on with it, or give another folder")
    new = run.with_name(f".{run.name}.new")
    if new.exists():
        shutil.rmtree(new)  # what a start that was killed left
    (new / WORK).mkdir(parents=True)
    factory.prepare(new / WORK, int(identity["instance"]))
    write_config(config, new / CONFIG)
    Journal.create(new / JOURNAL, {**identity, "seed": config.seed, "provenance": provenance()}).close()
    new.rename(run)


def _check(run: Path, header: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    for key, value in identity.items():
        if header.get(key) != value:
            said, what = header.get(key), key.replace("_", " ")
            raise JournalError(f"{run} is a run with {what} {said!r}, not {value!r}: resume it with what it began with")
