"""Real campaigns whose programs fail again and again: they stop, say why, and go on once that is put right."""

import json
import re
import signal
import sys
from collections import Counter
from pathlib import Path

import pytest
from steering_process import TWO_POOLS, Steering


def failures(steering: Steering) -> Counter[str]:
    """Of attempts, by kind."""
    counted: Counter[str] = Counter()
    for record in steering.records():
        if record.kind == "event":
            counted[record.data.get("failure") or (record.data.get("result") or {}).get("failure")] += 1
    del counted[None]  # type: ignore[arg-type]
    return counted


def application(folder: Path, where: Path) -> list[str]:
    venv = json.dumps({"solver": {"venv": str(where.relative_to(folder))}})
    return ["--set", f"executor.options.applications={venv}"]


def test_an_application_that_is_gone_stops_the_campaign_and_its_repair_lets_it_reach_the_goal(
    steering: Steering,
    tmp_path: Path,
) -> None:
    steering.configure(parts=3, task={"application": "solver"})
    venv = tmp_path / "venv"
    wrong, right = application(tmp_path, tmp_path / "nowhere"), application(tmp_path, venv)
    code, out, err = steering.finish(*wrong)
    assert (code, out) == (3, "")
    last = err.splitlines()[-1]
    assert "no task has ever succeeded" in last
    assert "nowhere: no virtual environment" in last
    assert "--resume" in last
    assert 3 <= failures(steering)["launch"] <= 4  # two at a time
    braked = [record for record in steering.records() if record.kind == "braked"]
    assert len(braked) == 1
    assert "(launch)" in braked[0].data["reason"]
    assert "nowhere: no virtual environment" in steering.rlctl("status", str(steering.run))
    steering.rlctl("report", str(steering.run), "--no-rules")
    assert "Stopped before the end" in (steering.run / "report.html").read_text()

    # Put right in the configuration; killed in the middle; once more.
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to(sys.executable)
    process = steering.start("--resume", *right)
    before = len(set(steering.begun()))
    steering.reach(process, before + 1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    code, out, err = steering.finish("--resume", *right)
    assert code == 0, err
    assert json.loads(out)["reached"]
    assert "stopped" not in steering.rlctl("status", str(steering.run))
    # What may be put right is how programs are started; the game stays what it was.
    code, out, err = steering.finish("--resume", *right, "--set", "seed=1")
    assert (code, out) == (2, "")
    assert "was started with 0, not 1" in err


@pytest.mark.parametrize(
    ("options", "kind", "count"),
    [
        ({"breaking": list(range(100))}, "exit", 3),
        ({"breaking": list(range(2, 100))}, "exit", 10),
        ({"task": {"executable": "/no/such/lmp"}}, "launch", 3),
        ({"task": {"executable": "no-such-lmp"}}, "launch", 3),
        ({"task": {"executable": "true", "arguments": []}}, "garbage", 3),
        ({"task": {"retries": 100_000}, "breaking": list(range(100))}, "exit", 3),
        ({"task": {"retries": 100_000, "executable": "no-such-lmp"}}, "launch", 3),
        ({"task": {"executable": None, "function": "json:loads", "arguments": [], "result_file": None}}, "exit", 3),
        ({"task": {"executable": None, "function": "no_such:module", "retries": 100_000}}, "launch", 3),
    ],
)
def test_whatever_fails_again_and_again_stops(
    steering: Steering,
    options: dict[str, object],
    kind: str,
    count: int,
) -> None:
    steering.configure(parts=1000, **options)
    code, out, err = steering.finish()
    assert (code, out) == (3, ""), err
    assert kind in failures(steering), failures(steering)
    assert count <= failures(steering)[kind] <= count + 2
    assert f"failures in a row ({kind})" in err.splitlines()[-1]
    assert not steering.alive()


def test_the_last_line_names_the_log_of_the_last_failure(steering: Steering) -> None:
    steering.configure(parts=4, breaking=list(range(100)))
    code, _, err = steering.finish()
    assert code == 3
    found = re.search(r"no licence \(see (\S+)\)", err)
    assert found
    assert Path(found[1]).read_text().strip() == "no licence"


def test_tasks_that_run_are_stopped_in_order_and_run_again(steering: Steering) -> None:
    steering.configure(parts=3, wait=[0], breaking=list(range(1, 100)))
    code, _, err = steering.finish()
    assert code == 3, err
    assert not steering.alive()
    for name in ("go", "repaired"):
        (steering.run / "work" / name).touch()
    code, out, err = steering.finish("--resume")
    assert code == 0, err
    assert json.loads(out)["reached"]
    assert Counter(steering.begun())["part-0"] == 2
    assert max(count for uid, count in Counter(steering.begun()).items() if uid != "part-0") == 1


def test_runs_that_all_diverge_stop_the_campaign_later_than_a_program_that_never_worked(steering: Steering) -> None:
    steering.configure(parts=2, failing=list(range(9)))
    code, out, err = steering.finish()
    assert code == 0, err
    assert json.loads(out)["failures"] == {"diverged": 9}
    steering.run = steering.run.with_name("other")
    steering.configure(parts=2, failing=list(range(12)))
    code, _, err = steering.finish()
    assert code == 3
    assert "stopped after 10 failures in a row (diverged)" in err


def test_the_brake_can_be_switched_off(steering: Steering) -> None:
    steering.configure(parts=2, breaking=list(range(12)))
    code, out, err = steering.finish("--set", "steer.stop_after_failures=null")
    assert code == 0, err
    assert json.loads(out)["failures"] == {"exit": 12}


def test_pools_that_fail_everything_stop_too(steering: Steering) -> None:
    steering.configure(parts=100, breaking=list(range(1000)))
    with steering.config.open("a") as file:
        file.write(TWO_POOLS)
    steering.config.write_text(steering.config.read_text().replace("machine: {cores: 2}\n", "", 1))
    code, _, err = steering.finish()
    assert code == 3, err
    assert 3 <= failures(steering)["exit"] <= 5
