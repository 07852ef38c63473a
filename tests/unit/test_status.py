"""Status: what is so now, from the run folder alone."""

import io
import json
import os
import platform
from pathlib import Path

import pytest
from rich.console import Console
from run_folders import queue_config, simulated_run
from typer.testing import CliRunner

import rlctl
from rlctl.cli.main import app
from rlctl.core.errors import JournalError
from rlctl.core.records import Record
from rlctl.executors.event_log import Journal
from rlctl.executors.local.processes import boot, start_time
from rlctl.steering.run_folder import controller
from rlctl.steering.summary import SCHEMA, Summary


def shown(run: Path, width: int = 80) -> str:
    text = io.StringIO()
    Console(file=text, width=width).print(rlctl.status(run).show())
    return text.getvalue()


def test_a_finished_campaign(tmp_path: Path) -> None:
    run = simulated_run(tmp_path / "run", queue_config(tmp_path), "equal")
    now = rlctl.status(run)
    assert (now.ended, now.reached, now.running, now.queued, now.left_s) == (True, True, [], 0, None)
    assert now.node_seconds == pytest.approx(sum(now.core_seconds.values()))
    assert now.successes == json.loads((run / "summary.json").read_text())["successes"]
    assert len(now.last) == 10
    assert now.last[-1].number == now.decisions - 1
    assert "goal reached" in shown(run)


def test_a_killed_campaign_runs_nothing_and_says_how_to_go_on(tmp_path: Path) -> None:
    run = simulated_run(tmp_path / "run", queue_config(tmp_path), "equal", decisions=4)
    now = rlctl.status(run)
    assert (now.ended, now.controller.alive, now.running, now.busy_cores) == (False, False, [], 0)
    assert "--resume" in shown(run)
    assert max(len(line) for line in shown(run).splitlines()) <= 80


def test_failed_tasks_are_counted_and_the_last_one_says_why(tmp_path: Path) -> None:
    whole = simulated_run(tmp_path / "whole", queue_config(tmp_path), "wide", decisions=4)
    assert (rlctl.status(whole).failures, rlctl.status(whole).last_failure) == ({}, "")
    assert "; the last: " not in shown(whole)
    about = {"uid": "run7", "attempt": 1}
    result = {"values": {}, "failure": "exit", "message": "no [bold] input", "cores": 1}
    result |= {"started_s": 1e6, "ended_s": 1e6 + 1}
    plus = [
        Record(0, 1e6, "submitted", about),
        Record(0, 1e6, "launching", {**about, "cores": [0]}),
        Record(0, 1e6 + 1, "event", {**about, "time_s": 1e6 + 1, "state": "failed", "result": result}),
    ]
    run = simulated_run(tmp_path / "run", queue_config(tmp_path), "wide", decisions=4, plus=plus)
    now = rlctl.status(run)
    assert (now.failures, now.last_failure) == ({"exit": 1}, "run7: no [bold] input")
    assert "exit 1; the last: run7: no [bold] input" in shown(run)


def test_a_campaign_with_a_controller_shows_what_runs(tmp_path: Path) -> None:
    run = simulated_run(tmp_path / "run", queue_config(tmp_path), "wide", decisions=4)
    with Journal.open(run / "journal.db"):
        now = rlctl.status(run)
        assert now.controller.alive
        assert now.controller.holder.split()[0] == str(os.getpid())
        assert now.running
        assert now.busy_cores == sum(len(task.cores) for task in now.running) <= 32
        assert sum(now.core_seconds.values()) == pytest.approx(32 * now.elapsed_s)
        assert "being steered by process" in shown(run)
        assert max(len(line) for line in shown(run).splitlines()) <= 80
    assert rlctl.status(run).controller.alive is False


def test_a_controller_on_another_machine_cannot_be_told(tmp_path: Path) -> None:
    assert controller(tmp_path).alive is False
    owner = {"pid": os.getpid(), "host": "elsewhere", "start": 1, "boot": boot(), "epoch": 1, "beat": 3}
    (tmp_path / "lock").write_text(json.dumps(owner))
    assert controller(tmp_path).alive is None
    (tmp_path / "lock").write_text(json.dumps(owner | {"host": platform.node()}))
    assert controller(tmp_path).alive is False  # the number is another process's by now
    (tmp_path / "lock").write_text(json.dumps(owner | {"host": platform.node(), "start": start_time(os.getpid())}))
    assert controller(tmp_path).alive is True


def test_json_and_watch_end_with_the_campaign(tmp_path: Path) -> None:
    run = simulated_run(tmp_path / "run", queue_config(tmp_path), "equal")
    once = CliRunner().invoke(app, ["status", str(run), "--json"])
    assert once.exit_code == 0
    assert json.loads(once.stdout)["reached"] is True
    watched = CliRunner().invoke(app, ["status", str(run), "--watch"])
    assert watched.exit_code == 0
    assert "goal reached" in watched.stdout


def test_old_summaries_are_read_and_later_ones_refused() -> None:
    old = {
        **dict.fromkeys(("campaign", "policy", "config_hash"), "x"),
        **dict.fromkeys(("instance", "successes", "decisions", "seed"), 1),
        **{key: {} for key in ("tasks", "failures", "fallbacks")},
        "reached": True,
        "node_seconds": 3.0,
        "utilisation": 0.5,
        "schema": 1,
    }
    summary = Summary.from_json(old)
    assert (summary.core_seconds, summary.schema) == ({}, 1)
    with pytest.raises(JournalError, match="schema 99"):
        Summary.from_json({**old, "schema": 99})
    with pytest.raises(JournalError, match="damaged"):
        Summary.from_json({**old, "schema": SCHEMA, "odd": 1})
    with pytest.raises(JournalError):
        Summary.from_json({})
