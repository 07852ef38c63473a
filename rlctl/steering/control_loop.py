"""The loop of a steering process: asks the policy, waits for tasks, and keeps what people see up to date."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlctl.config.provenance import provenance
from rlctl.config.schema import Config
from rlctl.core.campaign_factory import CampaignFactory
from rlctl.core.errors import NoAnswerError, StoppedError
from rlctl.core.policy import Policy
from rlctl.core.task import Event
from rlctl.executors.engine import Executor
from rlctl.executors.event_log import Journal
from rlctl.executors.factory import BackendFactory
from rlctl.executors.recovery import History
from rlctl.monitoring.progress import Progress
from rlctl.steering.config_history import Amendment, back_here, last_state, replaying
from rlctl.steering.ending import record_end
from rlctl.steering.evaluation_table import EvaluationsFile
from rlctl.steering.failure_limit import FailureLimit
from rlctl.steering.going_on import amend
from rlctl.steering.live_curves import LiveCurves
from rlctl.steering.policy_guard import PolicyGuard
from rlctl.steering.run_folder import TENSORBOARD, WORK
from rlctl.steering.status import StatusFile
from rlctl.steering.stop_requests import stop_requests
from rlctl.steering.summary import Summary
from rlctl.system.watchdog import watching

log = logging.getLogger(__name__)

TIMEOUT = "steer.decision_timeout_s"

_SLICE_S = 0.25
_COUNT_S = 1.0
"""Time between two counts of busy cores and queued tasks."""


class ControlLoop:
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
        self._policy, self._fallback = policy, fallback
        self._records = journal.records()
        self._shown_s = self._counted_s = 0.0
        self._busy_cores = 0

    def run(self, boot_s: float, before: Config, amendments: Sequence[Amendment]) -> Summary:
        """Run the campaign from its last record to its end.

        Args:
            boot_s: seconds of the allocation that this process has used so far.
            before: the configuration that the journal's last controller had.
            amendments: what is changed before it goes on.
        """
        origin_s = max((record.time_s for record in self._records), default=0.0)
        self._journal.append("epoch", origin_s, provenance())
        capacity, steer = self._config.machine.capacity(), self._config.steer
        with stop_requests(self._run) as self._requests:
            scoring, start_s = self._factory.scoring, origin_s + boot_s
            self._executor = Executor.open(self._executors, capacity, self._run / WORK, self._journal, start_s, scoring)
            self._driver = replaying(
                before,
                self._records,
                int(self._identity["instance"]),
                self._executor,
                self._journal,
                self._wait,
                self._held,
            )
            self._campaign = campaign = self._driver.campaign
            self._failures = FailureLimit(steer, self._run, self._run / WORK, self._records, campaign.excuses)
            self._status = StatusFile(self._run, self._config, self._journal, campaign)
            self._table = EvaluationsFile(self._run, campaign)
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
            timeout_s = steer.decision_timeout_s
            try:
                with watching(timeout_s, TIMEOUT, self._give_up):
                    self._decide(amendments)
                    summary = record_end(self._config, self._run, self._journal, self._identity, self._driver)
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

    def _held(self) -> bool:
        """Whether no decision is to be asked for: the run is paused, and no task starts either."""
        return self._requests.paused

    def _decide(self, amendments: Sequence[Amendment]) -> None:
        state = None if any(data.get("policy") for _, data in amendments) else last_state(self._records)
        self._driver.fold(self._records)
        amend(self._run, self._config, self._driver, [*amendments, *back_here(self._records, self._campaign)])
        clean, campaign = self._config.steer.clean_answers, self._campaign
        guard = PolicyGuard(self._policy, self._fallback, campaign.action_space, campaign.refuses, clean)
        guard.reset(int(self._identity["instance"]))
        if state is not None:
            guard.restore(state)
        launched = History.read(self._records).attempts
        decision = self._driver.go_on({uid: attempt.number for uid, attempt in launched.items()})
        while decision is not None:
            self._requests.check()
            self._failures.check()
            began_s = time.perf_counter()
            action, reason = guard.act(decision)
            latency_s = time.perf_counter() - began_s
            now_s, state = self._executor.now(), guard.state()
            if reason is not None:
                self._journal.append("fallback", now_s, {"number": decision.number, "reason": reason})
            if state:
                self._journal.append("policy", now_s, {"number": decision.number, "state": state})
            self._curves.decided(decision, action, latency_s)
            decision = self._driver.step(action)

    def _wait(self, timeout_s: float, *, idle: bool = False) -> list[Event]:
        """Wait for events in short slices, to react to stop requests and update what is shown meanwhile."""
        end_s, paused = self._executor.now() + timeout_s, self._requests.paused
        while True:
            self._requests.check()
            self._show()
            slice_s = min(_SLICE_S, max(end_s - self._executor.now(), 0.0))
            asked_s = time.monotonic()
            events = self._executor.wait(slice_s, idle=idle, starts=not paused)
            # An early return means that nothing is queued or running, or that nodes came or went.
            early = time.monotonic() - asked_s < 0.5 * slice_s
            for event in events:
                self._failures.note(event)
            if events or early or self._executor.now() >= end_s or paused != self._requests.paused:
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
