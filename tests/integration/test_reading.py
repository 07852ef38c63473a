"""Status, trace, report and ledger of a real campaign: while it runs, after its controller was killed, at its end."""

import json
import math
import re
import signal
import subprocess
import sys

import pytest
from test_steering import Steering, steering  # noqa: F401  (the fixture)

from rlctl.monitoring.account import account
from rlctl.steering.run_folder import read_run


def rlctl(steering: Steering, *arguments: str) -> str:  # noqa: F811
    command = [sys.executable, "-m", "rlctl.cli", *arguments]
    done = subprocess.run(command, env=steering.environment, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_campaign_can_be_watched_killed_resumed_and_reported(steering: Steering) -> None:  # noqa: F811
    run = str(steering.run)
    steering.configure(parts=4, wait=True, failing=[1])
    process = steering.start()
    steering.reach(process, 2)
    now = json.loads(rlctl(steering, "status", run, "--json"))
    assert now["controller"]["alive"] is True
    assert now["controller"]["holder"].split()[0] == str(process.pid)
    assert {task["uid"] for task in now["running"]} == {"part-0", "part-1"}
    assert now["busy_cores"] == 2
    assert math.fsum(now["core_seconds"].values()) == pytest.approx(2 * now["elapsed_s"])

    process.send_signal(signal.SIGKILL)
    process.wait()
    now = json.loads(rlctl(steering, "status", run, "--json"))
    assert (now["controller"]["alive"], now["running"], now["ended"]) == (False, [], False)
    rlctl(steering, "report", run, "--no-rules")
    page = (steering.run / "report.html").read_text()
    assert "Interrupted, and not ended" in page

    (steering.run / "work" / "go").touch()
    # The run folder's own configuration is enough to go on with.
    steering.config = steering.run / "config.yaml"
    code, out, err = steering.finish("--resume")
    assert code == 0, err
    summary = json.loads(out)
    for seconds, devices in ((summary["core_seconds"], 2), (summary["gpu_seconds"], 0)):
        assert math.fsum(seconds.values()) == pytest.approx(devices * summary["node_seconds"])
        assert min(seconds.values()) >= 0.0
    assert summary["core_seconds"]["wasted run"] > 0.0
    assert summary["core_seconds"]["useful run"] > 0.0
    assert summary["core_seconds"]["boot"] > 0.0
    timeline = read_run(steering.run).timeline
    assert {purpose.value: s for purpose, s in account(timeline).cores.items()} == pytest.approx(
        summary["core_seconds"]
    )
    lost = [attempt.uid for attempt in timeline.attempts if attempt.failure is not None and attempt.failure == "lost"]
    assert lost == []  # the programs went on while nobody was there, and were taken over

    rlctl(steering, "report", run, "--no-rules")
    page = (steering.run / "report.html").read_text()
    assert "Goal reached" in page
    assert "Interrupted" not in page
    assert sum(int(percent) for percent in re.findall(r'data-label="%">(\d+)<', page)) == 100
    assert json.loads(rlctl(steering, "trace", run, "--json"))["trace"] == f"{run}/trace.json"
    assert "goal reached" in rlctl(steering, "status", run, "--watch")
