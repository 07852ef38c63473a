"""What a steered campaign has run, as a workload: its tasks, in the order in which they were submitted."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from rlctl.errors import ConfigError, RlctlError
from rlctl.executors.journal import Journal
from rlctl.task import TaskState
from rlctl_envs.ensemble.workloads.logged import LoggedJob


def read_history(run: Path) -> list[LoggedJob]:
    """The tasks of a run folder that came to a good end; their attempts' times are what they took.

    Tasks that say what their users believed do so by ``estimate_s`` among their parameters.

    Raises:
        ConfigError: there is no journal, or no task in it has ended; one line.
    """
    path = run / "journal.db"
    try:
        with closing(Journal.open(path, read_only=True)) as journal:
            records = list(journal.records())
    except (OSError, RlctlError) as error:
        raise ConfigError(f"{run}: no journal of a campaign can be read there ({error})") from None
    submitted = {r.data["uid"]: r for r in records if r.kind == "submitted"}
    jobs = []
    for record in records:
        result = record.data.get("result") if record.kind == "event" else None
        task = submitted.get(record.data.get("uid", ""))
        if not result or record.data["state"] != TaskState.DONE or task is None:
            continue
        run_s, parameters = result["ended_s"] - result["started_s"], task.data.get("parameters", {})
        estimate = parameters.get("estimate_s")
        ranks = max(1, int(parameters.get("ranks", result["cores"])))
        if run_s > 0.0:
            jobs.append(LoggedJob(task.time_s, run_s, ranks, float(estimate) if estimate else None))
    if not jobs:
        raise ConfigError(f"{run}: no task in its journal has ended well")
    return sorted(jobs, key=lambda job: job.submit_s)
