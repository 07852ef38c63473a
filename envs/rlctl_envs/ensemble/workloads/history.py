"""What a steered campaign has run, as a workload: its tasks, in the order in which they were submitted."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from rlctl.core.errors import ConfigError, RlctlError
from rlctl.core.records import Record
from rlctl.core.task import TaskState, event_from_json
from rlctl.executors.event_log import Journal
from rlctl_envs.ensemble.workloads.logged import LoggedJob


def read_history(run: Path) -> list[LoggedJob]:
    """The tasks of a run folder that came to a good end; their attempts' times are what they took.

    Tasks that say what their users believed do so by ``estimate_s`` among their parameters: seconds on the ranks that
    they have. An ensemble's own tasks say how long they would take on one; that is shared among their ranks, as if they
    scaled perfectly. Of a task that went on from a checkpoint, only the last attempt counts.
    Raises ConfigError if there is no journal, or no task in it has ended well.
    """
    path = run / "journal.db"
    try:
        with closing(Journal.open(path, read_only=True)) as journal:
            one_rank = journal.header.get("campaign") == "ensemble"
            jobs = _jobs(journal.records(kinds=("epoch", "submitted", "event")), one_rank)
    except (OSError, RlctlError) as error:
        raise ConfigError(f"{run}: no journal of a campaign can be read there ({error})") from None
    if not jobs:
        raise ConfigError(f"{run}: no task in its journal has ended well")
    return sorted(jobs, key=lambda job: job.submit_s)


def _jobs(records: Iterable[Record], one_rank: bool) -> list[LoggedJob]:
    submitted: dict[str, Record] = {}
    jobs: list[LoggedJob] = []
    for record in records:
        match record.kind:
            case "epoch":  # calls of functions die with their controller, and the next one's have their numbers again
                submitted = {uid: r for uid, r in submitted.items() if "function" not in r.data}
            case "submitted":  # what a later controller submits again has waited since the first time
                submitted.setdefault(record.data["uid"], record)
            case _:
                event = event_from_json(record.data)
                if event.result is None or event.state is not TaskState.DONE or event.uid not in submitted:
                    continue
                task = submitted.pop(event.uid)
                parameters = task.data.get("parameters", {})
                estimate = parameters.get("estimate_s")
                ranks = max(1, int(parameters.get("ranks", event.result.cores)))
                run_s = event.result.ended_s - event.result.started_s
                estimate_s = float(estimate) / (ranks if one_rank else 1) if estimate else None
                if run_s > 0.0:
                    jobs.append(LoggedJob(task.time_s, run_s, ranks, estimate_s))
    return jobs
