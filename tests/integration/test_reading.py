"""Status, trace, report and ledger of a real campaign: while it runs, after its controller was killed, at its end."""

import json
import math
import re
import signal

import pytest
from steering_process import Steering, await_
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rlctl.core.records import Record
from rlctl.monitoring.ledger import allocation_ledger
from rlctl.steering.run_folder import read_run


def test_a_campaign_can_be_watched_killed_resumed_and_reported(steering: Steering) -> None:
    run = str(steering.run)
    steering.configure(parts=4, wait=True, failing=[1])
    process = steering.start()
    steering.reach(process, 2)
    now = json.loads(steering.rlctl("status", run, "--json"))
    assert now["controller"]["alive"] is True
    assert now["controller"]["holder"].split()[0] == str(process.pid)
    assert {task["uid"] for task in now["running"]} == {"part-0", "part-1"}
    assert now["busy_cores"] == 2
    assert math.fsum(now["core_seconds"].values()) == pytest.approx(2 * now["elapsed_s"])

    process.send_signal(signal.SIGKILL)
    process.wait()
    now = json.loads(steering.rlctl("status", run, "--json"))
    assert (now["controller"]["alive"], now["running"], now["ended"]) == (False, [], False)
    steering.rlctl("report", run, "--no-rules")
    page = (steering.run / "report.html").read_text()
    assert "Interrupted before the end" in page

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
    assert {purpose.value: s for purpose, s in allocation_ledger(timeline).cores.items()} == pytest.approx(
        summary["core_seconds"]
    )
    lost = [attempt.uid for attempt in timeline.attempts if attempt.failure is not None and attempt.failure == "lost"]
    assert lost == []  # the programs went on while nobody was there, and were taken over

    steering.rlctl("report", run, "--no-rules")
    page = (steering.run / "report.html").read_text()
    assert "Goal reached" in page
    assert "Interrupted" not in page
    assert sum(int(percent) for percent in re.findall(r'data-label="%">(\d+)<', page)) == 100
    assert json.loads(steering.rlctl("trace", run, "--json"))["trace"] == f"{run}/trace.json"
    assert "goal reached" in steering.rlctl("status", run, "--watch")


def starts(steering: Steering) -> list[Record]:
    """Records of attempts that run; each controller that takes one over writes another."""
    return [r for r in steering.records() if r.kind == "event" and r.data["state"] == "running"]


@pytest.mark.parametrize("runs_on", [True, False])
def test_what_a_later_controller_takes_over_counts_since_it_began(steering: Steering, runs_on: bool) -> None:
    run, go = str(steering.run), steering.run / "work" / "go"
    steering.configure(parts=3, wait=True)
    process = steering.start()
    steering.reach(process, 2)
    await_(lambda: len(starts(steering)) == 2)
    began = {r.data["uid"]: r.data["time_s"] for r in starts(steering)}
    process.send_signal(signal.SIGKILL)
    process.wait()
    if not runs_on:
        go.touch()
        await_(lambda: not steering.alive())
    process = steering.start("--resume")
    if runs_on:  # three controllers, since the second one is killed as well
        await_(lambda: len(starts(steering)) == 4)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process = steering.start("--resume")
        await_(lambda: len(starts(steering)) == 6)
        go.touch()
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    summary = json.loads(out)
    results = [r.data for r in steering.records() if r.kind == "event" and "result" in r.data]
    for uid, began_s in began.items():
        assert [data["result"]["started_s"] for data in results if data["uid"] == uid] == [began_s]
    timeline = read_run(steering.run).timeline
    for attempt in timeline.attempts:
        assert attempt.started_s == pytest.approx(began.get(attempt.uid, attempt.started_s), abs=0.1)
    seconds = summary["core_seconds"]
    busy = summary["utilisation"] * math.fsum(seconds.values())
    assert seconds["useful run"] + seconds["wasted run"] <= busy + 1e-6
    assert busy <= seconds["useful run"] + seconds["wasted run"] + seconds["boot"] + 1e-6
    now = json.loads(steering.rlctl("status", run, "--json"))
    assert now["core_seconds"] == pytest.approx(seconds)
    steering.rlctl("report", run, "--no-rules")
    useful = round(100 * seconds["useful run"] / math.fsum(seconds.values()))
    page = (steering.run / "report.html").read_text()
    (shown,) = re.findall(r"<dt>cores in useful runs</dt><dd>(\d+) %</dd>", page)
    assert abs(int(shown) - useful) <= 1
    board = EventAccumulator(str(steering.run / "tensorboard"))
    board.Reload()
    assert board.Scalars("machine/utilisation")[-1].value == pytest.approx(summary["utilisation"], rel=1e-5)
