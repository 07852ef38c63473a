"""Steers a real campaign: a policy decides, programs run on this allocation, and a journal records both."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from rlctl.config.schema import Config
from rlctl.core.policy import Policy
from rlctl.executors.event_log import Journal
from rlctl.monitoring.progress import Progress, Silent
from rlctl.plugins.preflight import check_campaign, load_fallback
from rlctl.plugins.registry import executor_factory, executor_options
from rlctl.steering.control_loop import TIMEOUT, ControlLoop
from rlctl.steering.ending import write_summary
from rlctl.steering.evaluation_table import write_table
from rlctl.steering.going_on import create_run, goes_on, start_of
from rlctl.steering.run_folder import JOURNAL, require_journal
from rlctl.steering.summary import Summary
from rlctl.system.watchdog import watching

log = logging.getLogger(__name__)


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
        ConfigError: a key of ``config`` has changed that may not; see ``rlctl.steering.config_changes``.
        StoppedError: tasks fail repeatedly, or the policy exceeds its time limit; all tasks are stopped, and the
            campaign can be resumed.
        KeyboardInterrupt: SIGINT or SIGTERM arrived; all tasks are stopped, and the campaign can be resumed.
    """
    factory = check_campaign(config, real=True)
    with watching(config.steer.decision_timeout_s, TIMEOUT):
        fallback = load_fallback(config, factory)
    began = start_of(config, factory, policy, fallback, instance, source, choice)
    executors = executor_factory(config.executor.name, executor_options(config))
    executors.check(config.machine.capacity())  # before the run folder is made
    if not resume:
        create_run(run, config, factory, began)
    else:
        require_journal(run)
    if begun is not None:
        begun(run)
    with closing(Journal.open(run / JOURNAL)) as journal:
        going = goes_on(run, config, factory, began, journal)
        if going.over:
            log.warning("%s: this campaign has already ended; nothing was run", run)
            summary = Summary.from_json(journal.records(kinds=("ended",))[-1].data)
            if summary.found:  # a kill may have come before the last lines of its table
                write_table(run, config, journal)
        else:
            quiet = progress or Silent()
            loop = ControlLoop(config, factory, executors, policy, fallback, run, journal, going.start, quiet)
            summary = loop.run(boot_s, going.before, going.amendments)
        write_summary(run, summary)
    return summary
