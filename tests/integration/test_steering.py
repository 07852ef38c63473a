"""Real campaigns of a tiny campaign's real programs, interrupted in every way there is."""

import io
import json
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from rich.console import Console
from steering_process import TWO_POOLS, Steering, answers, await_, cycle, finished
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import rlctl
from rlctl.config.schema import Config
from rlctl.core.errors import LaunchError
from rlctl.core.machine import Capacity
from rlctl.executors.event_log import Journal
from rlctl.plugins.registry import policy_factory
from rlctl.steering import control, steer
from rlctl.steering.status import CampaignStatus


def test_a_campaign_is_steered_to_its_goal_without_torch(steering: Steering) -> None:
    steering.configure(parts=5, failing=[2])
    code, out, err = steering.finish("--instance", "7")
    assert code == 0, err
    summary = json.loads(out)
    assert summary == json.loads((steering.run / "summary.json").read_text())
    assert summary["reached"]
    assert summary["successes"] >= 5
    assert summary["policy"] == "cycling"
    assert summary["instance"] == 7
    assert summary["failures"] == {"diverged": 1}
    assert summary["tasks"]["done"] >= 5
    assert 0.0 < summary["utilisation"] <= 1.0
    assert summary["node_seconds"] > 0.0
    assert summary["fallbacks"] == {}
    assert answers(steering.records()) == cycle(summary["decisions"])
    assert (steering.run / "work" / "instance").read_text() == "7"
    assert (steering.run / "config.yaml").exists()
    curves = EventAccumulator(str(steering.run / "tensorboard"))
    curves.Reload()
    assert len(curves.Scalars("campaign/good")) == summary["decisions"]
    assert all(0.0 <= point.value <= 2.0 for point in curves.Scalars("machine/busy_cores"))


@pytest.mark.parametrize("seed", [0, 1])
def test_after_kill_9_nothing_finished_runs_again_and_no_decision_is_repeated(steering: Steering, seed: int) -> None:
    steering.configure(parts=16, failing=[5])
    chance = random.Random(seed)
    safe: Counter[str] = Counter()
    process = steering.start()
    for kill in range(3):
        goal = 5 * kill + chance.randint(1, 5)
        steering.reach(process, goal)
        # The exact instant is left to chance on purpose: every one must be safe.
        time.sleep(chance.random() * 0.1)
        process.send_signal(signal.SIGKILL)
        process.wait()
        before = finished(steering.records())
        count = Counter(steering.begun())
        assert all(count[uid] == times for uid, times in safe.items())
        safe = Counter({uid: count[uid] for uid in before})
        process = steering.start("--resume")
    out, err = process.communicate(timeout=90)
    assert process.returncode == 0, err
    count = Counter(steering.begun())
    assert safe
    assert {uid: count[uid] for uid in safe} == dict(safe)
    summary = json.loads(out)
    assert summary["successes"] >= 16
    assert summary["failures"] == {"diverged": 1}
    assert answers(steering.records()) == cycle(summary["decisions"])
    times = [record.time_s for record in steering.records() if record.kind == "event"]
    assert times == sorted(times)


def test_status_tells_that_programs_go_on_when_the_controller_was_killed(steering: Steering) -> None:
    steering.configure(parts=2, wait=True)
    process = steering.start()
    steering.reach(process, 2)
    assert rlctl.status(steering.run).unattended == 0
    process.kill()
    process.wait()
    await_(lambda: rlctl.status(steering.run).unattended == 2)
    now = rlctl.status(steering.run)
    assert 0.0 < now.lease_s <= 300.0
    assert CampaignStatus.from_json(now.to_json()) == now
    text = io.StringIO()
    Console(file=text, width=80).print(now.show())
    line = r"2 programs still running; --resume within [45]:\d\d min adopts them"
    assert re.search(line, text.getvalue()), text.getvalue()
    (steering.run / "work" / "go").touch()
    code, _, err = steering.finish("--resume")
    assert code == 0, err
    assert rlctl.status(steering.run).unattended == 0


@pytest.mark.parametrize("meanwhile", ["they run", "they end"])
def test_programs_of_two_pools_are_taken_over_when_the_controller_was_killed(
    steering: Steering, meanwhile: str
) -> None:
    steering.configure(parts=2, wait=True)
    steering.config.write_text(steering.config.read_text().replace("machine: {cores: 2}", TWO_POOLS))
    process = steering.start()
    steering.reach(process, 2)
    assert process.poll() is None, process.communicate()
    process.kill()
    process.wait()
    await_(lambda: rlctl.status(steering.run).unattended == 2)
    if meanwhile == "they end":
        (steering.run / "work" / "go").touch()
        await_(lambda: not steering.alive())
    process = steering.start("--resume")
    if meanwhile == "they run":
        await_(lambda: rlctl.status(steering.run).unattended == 0 or process.poll() is not None)
        assert len(steering.alive()) == 2
        (steering.run / "work" / "go").touch()
    _, err = process.communicate(timeout=90)
    assert process.returncode == 0, err
    assert set(Counter(steering.begun()).values()) == {1}
    launched = {r.data["uid"]: r.data for r in steering.records() if r.kind == "launching"}
    where = [(launched[uid]["pool"], launched[uid]["cores"], launched[uid]["nodes"]) for uid in ("part-0", "part-1")]
    assert where == [("here", [0], [0]), ("there", [1], [1])]
    assert not list((steering.run / "work").glob("exits*"))
    now = rlctl.status(steering.run)
    assert now.ended
    assert now.core_seconds["useful run"] > 0.0
    assert sum(now.core_seconds.values()) == pytest.approx(now.node_seconds)


@pytest.mark.parametrize("signals", [[signal.SIGINT], [signal.SIGINT, signal.SIGINT], [signal.SIGTERM]])
def test_an_interrupt_stops_everything_and_the_line_it_prints_goes_on(
    steering: Steering, signals: list[signal.Signals]
) -> None:
    steering.configure(parts=3, wait=True)
    process = steering.start()
    steering.reach(process, 2)
    time.sleep(1.0)  # nothing happens, but the allocation is held
    for number in signals:
        process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert out == ""
    assert err.count("\n") == 1
    assert steering.alive() == []
    assert not (steering.run / "summary.json").exists()
    before, last = steering.records()[-2:]
    assert last.kind == "time"
    assert last.time_s > before.time_s + 0.5

    (steering.run / "work" / "go").touch()
    command = shlex.split(err.partition("to resume: ")[2])
    assert command[0] == "rlctl"
    done = subprocess.run(
        [sys.executable, "-m", "rlctl.cli.main", *command[1:]],
        env=steering.environment,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["successes"] >= 3
    assert answers(steering.records()) == cycle(json.loads(done.stdout)["decisions"])
    curves = EventAccumulator(str(steering.run / "tensorboard"))
    curves.Reload()
    steps = [event.step for event in curves.Scalars("campaign/good")]
    assert steps == list(range(json.loads(done.stdout)["decisions"]))


def test_an_interrupt_while_the_run_folder_is_made_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Config.model_validate({"schema": 1, "seed": 0, "campaign": {"name": "block_copolymer"}})

    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "create", interrupted)
    with pytest.raises(KeyboardInterrupt):
        steer(config, policy_factory("feedback")(), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_decision_can_cancel_a_task(steering: Steering) -> None:
    steering.configure(parts=3, cancel_at=3)
    code, out, err = steering.finish()
    assert code == 0, err
    assert json.loads(out)["tasks"]["canceled"] >= 1
    assert json.loads(out)["successes"] >= 3


def test_a_finished_campaign_is_not_run_again(steering: Steering) -> None:
    steering.configure(parts=2)
    _, first, _ = steering.finish()
    begun = steering.begun()
    (steering.run / "summary.json").unlink()
    code, again, err = steering.finish("--resume")
    assert code == 0
    assert "already ended" in err
    assert again == first
    assert steering.begun() == begun
    assert json.loads((steering.run / "summary.json").read_text()) == json.loads(first)


def test_only_the_same_campaign_can_be_resumed(steering: Steering) -> None:
    steering.configure(parts=2)
    assert steering.finish()[0] == 0
    records = steering.records()
    for more, policy, said in [
        (["--resume", "--instance", "1"], "cycling", "instance"),
        (["--resume", "--set", "seed=1"], "cycling", "seed: "),
        ([], "cycling", "--resume"),
    ]:
        code, out, err = steering.finish(*more, policy=policy)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert said in err
    assert steering.records() == records


def test_what_the_policy_cannot_answer_the_fallback_does(steering: Steering) -> None:
    steering.configure(parts=5, blind=[1])
    code, out, err = steering.finish(
        "--set", "steer.fallback=cycling", "--set", "steer.clean_answers=0", policy="breaks"
    )
    assert code == 0, err
    assert json.loads(out)["fallbacks"] == {"observation": 1, "exception": 1}
    assert "ZeroDivisionError" in err
    assert answers(steering.records())[:4] == [(0, [0]), (1, [0]), (2, [1]), (3, [1])]


def test_the_executor_of_the_configuration_runs_the_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked to check first, then opened with what it needs to resume."""
    seen: list[object] = []

    class Refusing:
        def check(self, capacity: Capacity) -> None:
            seen.append(capacity)
            raise LaunchError("no machine today")

    monkeypatch.setattr(control, "executor_factory", lambda name, options: Refusing())
    config = Config.model_validate({"schema": 1, "seed": 0, "campaign": {"name": "block_copolymer"}})
    with pytest.raises(LaunchError, match="no machine today"):
        steer(config, policy_factory("feedback")(), tmp_path / "run")
    assert seen == [Capacity(nodes=1, cores=2, gpus=0)]
    assert not (tmp_path / "run").exists()
