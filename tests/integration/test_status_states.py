"""``rlctl status --json`` of every state of a run folder: strict JSON, or one line that says why there is none."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
from steering_process import Steering

from rlctl.steering.status import STATUS, StatusFile

AS_IF_SHARED = """
import rlctl.executors.event_log as journal
journal.networked = lambda folder: True
from rlctl.cli.main import main
main()
"""


def rlctl(
    steering: Steering,
    *arguments: str,
    program: str = "from rlctl.cli.main import main; main()",
) -> tuple[int, str]:
    """Exit code and standard output, or standard error where there is none."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=steering.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout or done.stderr


def strict(text: str) -> Any:
    def refuse(name: str) -> NoReturn:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


def status(steering: Steering) -> Any:
    code, text = rlctl(steering, "status", str(steering.run), "--json")
    assert code == 0, text
    return strict(text)


def test_failed_tasks_and_odd_values_of_campaign_and_policy_are_told_in_strict_json(steering: Steering) -> None:
    steering.configure(parts=3, failing=[0, 2], odd=True)
    code, out, err = steering.finish(policy="odd")
    assert code == 0, err
    summary, now = strict(out), status(steering)
    assert now["failures"] == {"diverged": 2}
    assert now["last_failure"].startswith("part-")
    odd = {"nan": None, "count": 3, "exit": {"name": "\\xff"}, "7": [0, 1]}
    assert summary["extra"] == {"size": summary["extra"]["size"], **odd}
    assert strict((steering.run / "summary.json").read_text()) == summary
    assert rlctl(steering, "trace", str(steering.run))[0] == 0
    assert strict((steering.run / "trace.json").read_text())["otherData"]["campaign"] == "tiny"
    code, text = rlctl(steering, "report", str(steering.run), "--no-rules", "--json")
    assert (code, strict(text)) == (0, {"report": str(steering.run / "report.html")})
    assert "name" in (steering.run / "report.html").read_text()


def test_where_others_cannot_read_the_journal_failures_do_not_end_the_campaign(steering: Steering) -> None:
    steering.configure(parts=4, wait=True, failing=[0, 1], odd=True)
    arguments = ["steer", str(steering.config), "--policy", "odd", "--run", str(steering.run), "--json"]
    process = subprocess.Popen(
        [sys.executable, "-c", AS_IF_SHARED, *arguments],
        env=steering.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    steering.processes.append(process)
    steering.reach(process, 2)
    (steering.run / "work" / "go").touch()
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert strict(out)["failures"] == {"diverged": 2}
    written = strict((steering.run / STATUS).read_text())
    assert written["campaign"] == "tiny"


def test_killed_and_resumed_runs_have_a_status(steering: Steering) -> None:
    steering.configure(parts=3, wait=True, failing=[0])
    process = steering.start()
    steering.reach(process, 2)
    assert {task["uid"] for task in status(steering)["running"]} == {"part-0", "part-1"}
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert status(steering)["controller"]["alive"] is False
    (steering.run / "work" / "go").touch()
    code, _, err = steering.finish("--resume")
    assert code == 0, err
    now = status(steering)
    assert (now["reached"], now["failures"]) == (True, {"diverged": 1})


def test_folders_without_a_readable_run_are_one_line(steering: Steering, tmp_path: Path) -> None:
    for name in ("nothing", "empty", "file"):
        steering.run = tmp_path / name
        if name == "empty":
            steering.run.mkdir()
        elif name == "file":
            steering.run.write_text("x")
        code, text = rlctl(steering, "status", str(steering.run), "--json")
        assert (code, text.count("\n")) == (2, 1), text
    steering.run = tmp_path / "run"
    steering.configure(parts=1)
    assert steering.finish()[0] == 0
    journal = steering.run / "journal.db"
    whole = journal.read_bytes()
    for damaged in (b"", b"no journal", whole[: len(whole) // 2], whole.replace(b'"uid"', b'"uix"')):
        journal.write_bytes(damaged)
        code, text = rlctl(steering, "status", str(steering.run), "--json")
        assert (code, text.count("\n")) == (2, 1), (damaged[:20], text)


def test_a_status_that_another_version_or_half_a_disk_left_is_one_line(steering: Steering) -> None:
    steering.configure(parts=4, wait=True)
    arguments = ["steer", str(steering.config), "--policy", "cycling", "--run", str(steering.run)]
    process = subprocess.Popen([sys.executable, "-c", AS_IF_SHARED, *arguments], env=steering.environment)
    steering.processes.append(process)
    steering.reach(process, 2)
    for text in ("", "{", "[]", '{"run": 3}', "\xff"):
        (steering.run / STATUS).write_text(text, encoding="latin-1")
        code, said = rlctl(steering, "status", str(steering.run), "--json", program=AS_IF_SHARED)
        if code != 0:  # it may have been written anew meanwhile
            assert (code, said.count("\n")) == (2, 1), said
            assert STATUS in said
    (steering.run / "work" / "go").touch()
    assert process.wait(timeout=120) == 0


def test_whatever_goes_wrong_with_the_status_is_said_once_and_the_campaign_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> NoReturn:
        raise TypeError("odd")

    monkeypatch.setattr("rlctl.steering.status.write_status", broken)
    journal = SimpleNamespace(exclusive=True)
    for _ in range(2):
        file = StatusFile(tmp_path, None, journal)  # type: ignore[arg-type]
        for _ in range(3):
            file._due_s = 0.0
            file.show()
    said = f"{tmp_path}: status.json cannot be written: odd"
    assert [record.getMessage() for record in caplog.records] == [said] * 2
