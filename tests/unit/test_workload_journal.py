"""Workloads from journals of campaigns that were steered, resumed, or are still running."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_folders import queue_config, simulated_run

from rlctl.core.errors import ConfigError
from rlctl.core.machine import Capacity
from rlctl.core.task import TaskState
from rlctl.executors.event_log import Journal
from rlctl.monitoring.timeline import Timeline
from rlctl_envs.ensemble.workloads.history import read_history


def end(uid: str, started_s: float, ended_s: float, state: str = "done", cores: int = 2) -> dict[str, Any]:
    result = {"values": {}, "failure": None, "message": "", "started_s": started_s, "ended_s": ended_s, "cores": cores}
    return {"time_s": ended_s, "uid": uid, "state": state, "attempt": 1, "result": result}


def journal_of(run: Path, records: list[tuple[str, float, dict[str, Any]]], campaign: str = "mine") -> Path:
    run.mkdir()
    with Journal.create(run / "journal.db", {"campaign": campaign}) as journal:
        for kind, time_s, data in records:
            journal.append(kind, time_s, data)
    return run


def submit(uid: str, **parameters: Any) -> dict[str, Any]:
    return {"uid": uid, "attempt": 1, "parameters": parameters}


@pytest.mark.parametrize("decisions", [None, 6], ids=["ended", "killed"])
def test_a_run_is_read_as_its_timeline_tells_it(tmp_path: Path, decisions: int | None) -> None:
    run = simulated_run(tmp_path / "run", queue_config(tmp_path), "equal", decisions=decisions)
    before = sorted(path.name for path in run.iterdir())
    jobs = read_history(run)
    assert sorted(path.name for path in run.iterdir()) == before
    with Journal.open(run / "journal.db", read_only=True) as journal:
        timeline = Timeline.read(journal.records(), Capacity(nodes=32, cores=1))
    done = [a for a in timeline.attempts if a.state is TaskState.DONE]
    told = sorted((a.queued_s, a.ended_s - a.started_s, len(a.cores)) for a in done)  # type: ignore[operator]
    np.testing.assert_allclose(sorted((job.submit_s, job.run_s, job.ranks) for job in jobs), told)
    assert all(job.estimate_s is not None for job in jobs)


def test_a_task_that_was_submitted_again_after_a_resume_has_waited_since_the_first_time(tmp_path: Path) -> None:
    records = [
        ("epoch", 0.0, {}),
        ("submitted", 1.0, submit("a", estimate_s=40.0, ranks=4)),
        ("epoch", 50.0, {}),
        ("submitted", 50.0, submit("a", estimate_s=40.0, ranks=4)),
        ("event", 90.0, end("a", 60.0, 90.0)),
    ]
    (job,) = read_history(journal_of(tmp_path / "run", records))
    assert (job.submit_s, job.run_s, job.ranks, job.estimate_s) == (1.0, 30.0, 4, 40.0)


def test_calls_of_another_controller_are_others_though_they_have_the_same_number(tmp_path: Path) -> None:
    call = {"uid": "#1", "attempt": 1, "function": "f"}
    records = [("submitted", 1.0, call), ("epoch", 50.0, {}), ("submitted", 51.0, call)]
    records.append(("event", 60.0, end("#1", 52.0, 60.0, cores=1)))
    (job,) = read_history(journal_of(tmp_path / "run", records))
    assert (job.submit_s, job.run_s, job.ranks) == (51.0, 8.0, 1)


def test_estimates_of_ensembles_are_for_one_rank(tmp_path: Path) -> None:
    records = [("submitted", 0.0, submit("a", estimate_s=80.0, ranks=4)), ("event", 30.0, end("a", 0.0, 30.0))]
    (job,) = read_history(journal_of(tmp_path / "run", records, campaign="ensemble"))
    assert job.estimate_s == 20.0


def test_what_failed_or_was_stopped_is_no_job(tmp_path: Path) -> None:
    records = [("submitted", 0.0, submit(uid)) for uid in "abc"]
    records += [("event", 5.0, end("a", 0.0, 5.0, "failed")), ("event", 5.0, end("b", 0.0, 5.0, "canceled"))]
    run = journal_of(tmp_path / "run", records)
    with pytest.raises(ConfigError, match="no task in its journal has ended well") as caught:
        read_history(run)
    assert "\n" not in str(caught.value)
