"""A search that has ended or was killed goes on: with a larger budget, known results, repeats, from other terminals."""

import csv
import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from search_runs import rlctl

from rlctl.executors.event_log import Journal
from rlctl.steering.recorded_reading import read_recorded
from rlctl.steering.run_folder import read_run
from rlctl.steering.status import status

PROGRAM = """
import pathlib, sys, time
x, y, here, task = float(sys.argv[1]), float(sys.argv[2]), pathlib.Path(sys.argv[3]), sys.argv[4]
time.sleep(float((here / "sleep.txt").read_text()))
with open(here / "log.txt", "a") as file:
    print(task, x, y, file=file)
if (here / "broken").exists() and x > 0.5:
    sys.exit(4)
print("loss =", (x - 0.3) ** 2 + (y - 0.7) ** 2)
"""
SEARCH = """
program:
  command: python {here}/sim.py {x:.17g} {y:.17g} {here} {task}
  results: {loss: {regex: 'loss = (\\S+)'}}
  walltime_s: 60
campaign:
  options:
    parameters: {x: {low: 0, high: 1}, y: {low: 0, high: 1}}
    objective: {minimize: loss}
    until: {evaluations: 5}
machine: {nodes: 1, cores: 2}
steer: {stop_after_first_failures: null, stop_after_failures: null}
"""
MORE = "campaign.options.until.evaluations"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sim.py").write_text(PROGRAM)
    (tmp_path / "scan.yaml").write_text(SEARCH)
    (tmp_path / "sleep.txt").write_text("0.05")
    return tmp_path


def steer(folder: Path, *more: str, code: int = 0) -> dict[str, Any]:
    done = rlctl(folder, "steer", "scan.yaml", "--policy", "sobol", "--run", "run", *more, "--json", code=code)
    found: dict[str, Any] = json.loads(done.stdout) if done.stdout else {"error": done.stderr}
    return found


def begun(folder: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-P", "-m", "rlctl", "steer", "scan.yaml", "--policy", "sobol", "--run", "run", *more]
    return subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def until(true: Any, process: subprocess.Popen[str]) -> None:
    limit_s = time.monotonic() + 90
    while not true():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < limit_s
        time.sleep(0.05)


def logged(folder: Path) -> list[str]:
    path = folder / "log.txt"
    return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []


def rows(folder: Path, run: str = "run") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(rlctl(folder, "results", run, "--json").stdout)["rows"]
    return found


def test_a_search_that_has_ended_goes_on_with_a_larger_budget_and_nothing_is_made_again(folder: Path) -> None:
    first = steer(folder)
    assert first["extra"]["evaluations_done"] == 5
    second = steer(folder, "--resume", "--set", f"{MORE}=8")
    assert second["extra"]["evaluations_done"] >= 8
    assert second["node_seconds"] > first["node_seconds"]
    (folder / "scan.yaml").write_text(SEARCH.replace("evaluations: 5", "evaluations: 10"))
    third = steer(folder, "--resume")  # folds both extensions
    assert third["extra"]["evaluations_done"] >= 10
    done = [row for row in rows(folder) if row["status"] == "done"]
    assert len({(row["x"], row["y"]) for row in done}) == len(done) == third["extra"]["evaluations_done"]
    repeated = [task for task, count in Counter(logged(folder)).items() if count > 1]
    assert not repeated
    records = read_run(folder / "run").records
    assert [
        record.data["after"]["campaign"]["options"]["until"]["evaluations"]
        for record in records
        if record.kind == "config"
    ] == [8, 10]
    assert steer(folder, "--resume") == third  # it has ended, and nothing asks for more


def test_a_killed_search_goes_on_with_more_cores_and_another_policy(folder: Path) -> None:
    (folder / "sleep.txt").write_text("0.3")
    process = begun(folder, "--set", f"{MORE}=20")
    until(lambda: len(logged(folder)) >= 4, process)
    process.kill()
    process.communicate(timeout=30)
    assert "not ended" in rlctl(folder, "status", "run").stdout
    (folder / "sleep.txt").write_text("0.05")
    more = ("--resume", "--set", f"{MORE}=12", "--set", "machine.cores=1", "--json")
    done = rlctl(folder, "steer", "scan.yaml", "--run", "run", "--policy", "random_search", *more)
    summary = json.loads(done.stdout)
    assert "until.evaluations 12 instead of 20" in done.stderr
    assert "machine.cores 1 instead of 2" in done.stderr
    assert "policy random_search instead of sobol" in done.stderr
    assert summary["policy"] == "random_search"
    assert summary["extra"]["evaluations_done"] >= 12
    timed = [row["ended_s"] is not None for row in read_recorded(folder / "run").rows]
    assert 1 <= len(timed) - sum(timed) <= 3  # without those that ran at the kill
    assert sum(summary["core_seconds"].values()) < 2.0 * summary["node_seconds"]  # two cores at first, then one
    assert sum(summary["core_seconds"].values()) > summary["node_seconds"]
    again = json.loads(rlctl(folder, "steer", "scan.yaml", "--run", "run", *more).stdout)
    assert again == summary
    assert status(folder / "run").policy == "random_search"


def test_a_key_that_ties_evaluations_together_is_refused_with_its_place(folder: Path) -> None:
    steer(folder)
    before = read_run(folder / "run").records
    for key, said in {
        "campaign.options.parameters.x.high=2": "campaign.options.parameters.x.high: run was started with 1, not 2",
        "campaign.options.objective.minimize=loss+x": "objective.minimize: run was started with 'loss', not 'loss+x'",
        "program.command=python sim.py": "program.command: run was started with 'python {here}/sim.py",
        "seed=3": "seed: run was started with 0, not 3",
        "machine.gpus=1": "machine.gpus: run was started with 0, not 1",
    }.items():
        error = steer(folder, "--resume", "--set", f"{MORE}=8", "--set", key, code=2)["error"]
        assert error.startswith("rlctl: scan.yaml with --set ")
        assert said in error
        assert f"campaign.options.known: {folder / 'run'})" in error
    assert read_run(folder / "run").records == before


def test_a_program_without_any_result_is_put_right_and_its_template_stays_from_then_on(folder: Path) -> None:
    template = folder / "in.txt.template"
    template.write_text("wrong {x}\n")
    text = SEARCH.replace("'loss =", "'los =").replace("  walltime_s", "  templates: in.txt.template\n  walltime_s")
    (folder / "scan.yaml").write_text(text)
    assert "nothing matches" in steer(folder, "--set", "steer.stop_after_failures=2", code=3)["error"]
    (folder / "scan.yaml").write_text(text.replace("'los =", "'loss ="))
    template.write_text("right {x}\n")
    assert steer(folder, "--resume")["extra"]["evaluations_done"] >= 5
    row = next(row for row in rows(folder) if row["status"] == "done")
    made = folder / "run/work/evaluations" / f"{row['evaluation']:04d}" / "in.txt"
    assert made.read_text() == f"right {row['x']}\n"
    template.write_text("other {x}\n")
    error = steer(folder, "--resume", "--set", f"{MORE}=8", code=2)["error"]
    assert "in.txt.template is not what it was when run began" in error
    changed = steer(folder, "--resume", "--set", "program.results.loss.regex=x", code=2)["error"]
    assert "results.loss.regex: run was started with" in changed


def test_no_file_of_the_user_is_overwritten(folder: Path) -> None:
    steer(folder)
    for command in (
        ["results", "run", "--csv", "scan.yaml"],
        ["evaluate", "scan.yaml", "--policy", "sobol", "--against", "random_search", "--out", "scan.yaml"],
    ):
        assert "scan.yaml exists, and rlctl did not write it" in rlctl(folder, *command, code=2).stderr
    assert (folder / "scan.yaml").read_text() == SEARCH
    for _ in range(2):
        rlctl(folder, "results", "run", "--csv", "earlier.csv")


def test_a_kill_while_points_are_asked_for_loses_none_and_leaves_none_to_run_here(folder: Path) -> None:
    ask = ("ask", "scan.yaml", "--run", "run", "--policy", "sobol")
    command = [sys.executable, "-P", "-m", "rlctl", *ask, "-n", "3000"]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until(
        lambda: (folder / "run/journal.db").exists() and len(read_run(folder / "run").timeline.decisions) > 5, process
    )
    process.kill()
    process.communicate(timeout=30)
    records = read_run(folder / "run").records
    asked = [number for record in records if record.kind == "asked" for number in record.data["evaluations"]]
    assert asked == list(range(sum(record.kind == "decision" for record in records)))
    opened = json.loads(rlctl(folder, *ask, "--open", "--json").stdout)["evaluations"]
    assert [point["evaluation"] for point in opened] == asked
    assert all((folder / point["folder"]).is_dir() for point in opened)


def test_failed_evaluations_are_made_again_and_the_earlier_attempts_stay(folder: Path) -> None:
    (folder / "broken").touch()
    steer(folder)
    failed = [row["evaluation"] for row in rows(folder) if row["status"] == "failed"]
    assert failed
    (folder / "broken").unlink()
    told = json.loads(rlctl(folder, "rerun", "run", "--failed", "--json").stdout)
    assert told["evaluations"] == failed
    assert not status(folder / "run").ended
    summary = steer(folder, "--resume")
    table = {row["evaluation"]: row for row in rows(folder)}
    again = {row["again"]: row for row in table.values() if row.get("again") is not None}
    assert sorted(again) == failed
    for number, row in again.items():
        assert (row["status"], row["x"], row["y"]) == ("done", table[number]["x"], table[number]["y"])
        assert table[number]["status"] == "failed"
    assert summary["extra"]["evaluations_done"] == 5 + len(failed)  # and no others
    error = rlctl(folder, "rerun", "run", "--failed", code=2).stderr
    assert "nothing to repeat" in error
    assert "is failed and was repeated" in rlctl(folder, "rerun", "run", "--trial", str(failed[0]), code=2).stderr


def test_known_results_begin_a_search_and_cost_nothing(folder: Path) -> None:
    steer(folder)
    known = [row for row in rows(folder) if row["status"] == "done"]
    (folder / "again.yaml").write_text(SEARCH.replace("until:", "known: run\n    until:"))
    done = rlctl(folder, "steer", "again.yaml", "--policy", "cma_es", "--run", "second", "--json")
    summary = json.loads(done.stdout)
    table = rows(folder, "second")
    assert [(row["x"], row["loss"]) for row in table if row["status"] == "known"] == [
        (row["x"], row["loss"]) for row in known
    ]
    assert summary["extra"]["evaluations_known"] == len(known)
    assert summary["extra"]["evaluations_done"] >= 5
    assert all(row["node_seconds"] == 0 for row in table if row["status"] == "known")
    (folder / "run/evaluations.csv").unlink()  # the journal has them
    again = ("--resume", "--set", f"{MORE}=7", "--json")
    more = json.loads(rlctl(folder, "steer", "again.yaml", "--run", "second", *again).stdout)
    assert more["extra"]["evaluations_known"] == len(known)
    assert more["extra"]["evaluations_done"] >= 7


def test_a_goal_that_known_results_reach_ends_the_search_at_once(folder: Path) -> None:
    (folder / "earlier.csv").write_text("x,y,loss\n0.3,0.7,0.0\n0.1,0.2,0.29\n")
    text = SEARCH.replace("until: {evaluations: 5}", "until: {value: 0.001}\n    known: earlier.csv")
    (folder / "scan.yaml").write_text(text)
    summary = steer(folder)
    assert summary["reached"]
    assert summary["decisions"] == 0
    assert not logged(folder)


def test_ask_and_tell_go_through_the_journal_that_steer_goes_on_with(folder: Path) -> None:
    ask = ("ask", "scan.yaml", "--run", "run", "--policy", "sobol", "--json")
    asked = json.loads(rlctl(folder, *ask, "-n", "3").stdout)["evaluations"]
    assert [point["evaluation"] for point in asked] == [0, 1, 2]
    more = json.loads(rlctl(folder, *ask).stdout)["evaluations"]
    assert [point["evaluation"] for point in more] == [3]
    opened = json.loads(rlctl(folder, *ask, "--open").stdout)["evaluations"]
    assert opened == [*asked, *more]
    assert "by hand: go on with rlctl ask and tell" in rlctl(folder, "status", "run").stdout
    rlctl(folder, "tell", "run", "--trial", "0", "loss=0.5")
    rlctl(folder, "tell", "run", "--trial", "1", "--failed")
    (folder / "told.csv").write_text("evaluation,loss,status\n0,0.5,\n2,,infeasible\n")
    assert rlctl(folder, "tell", "run", "--csv", "told.csv").stdout.startswith("told 1 evaluation\n")
    assert rlctl(folder, "tell", "run", "--csv", "told.csv").stdout.startswith("told 0 evaluations\n")  # after a kill
    assert "evaluation 0 is done" in rlctl(folder, "tell", "run", "--trial", "0", "loss=0.6", code=2).stderr
    (folder / "told.csv").write_text("evaluation,loss\n3,0.25\n0,0.1\n")
    error = rlctl(folder, "tell", "run", "--csv", "told.csv", code=2).stderr
    assert error == "rlctl: told.csv:3: evaluation 0 is done\n"
    assert [row["status"] for row in rows(folder)] == ["done", "failed", "infeasible", "queued"]  # all or none
    assert not logged(folder)
    summary = steer(folder, "--resume")  # 3 is made here
    assert summary["extra"]["evaluations_done"] + summary["extra"]["evaluations_infeasible"] >= 5
    assert set(logged(folder)).isdisjoint({"0", "1", "2"})
    assert "3" in logged(folder)
    first = rows(folder)[0]
    assert (first["status"], first["loss"]) == ("done", 0.5)


def test_evaluations_that_were_asked_for_and_not_told_are_made_here_and_no_others(folder: Path) -> None:
    rlctl(folder, "ask", "scan.yaml", "--run", "run", "--policy", "sobol", "-n", "5")
    summary = steer(folder, "--resume")
    assert sorted(logged(folder)) == list("01234")
    assert (summary["decisions"], summary["extra"]["evaluations_done"]) == (5, 5)


def test_a_search_ends_by_hand_with_a_summary(folder: Path) -> None:
    ask = ("ask", "scan.yaml", "--run", "run", "--policy", "sobol", "--json", "-n", "5")
    asked = json.loads(rlctl(folder, *ask).stdout)["evaluations"]
    with (folder / "told.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["evaluation", "loss"])
        writer.writerows([[point["evaluation"], point["parameters"]["x"]] for point in asked])
    told = json.loads(rlctl(folder, "tell", "run", "--csv", "told.csv", "--json").stdout)
    assert told["ended"]
    summary = json.loads((folder / "run/summary.json").read_text())
    assert summary["reason"] == "5 evaluations"
    assert summary["node_seconds"] == 0.0
    after = json.loads(rlctl(folder, *ask).stdout)
    assert (after["evaluations"], after["ended"]) == ([], "5 evaluations")
    more = json.loads(rlctl(folder, *ask, "--set", f"{MORE}=6").stdout)
    assert len(more["evaluations"]) == 5  # one counts, as many may be open
    assert not status(folder / "run").ended


def test_only_one_process_holds_a_run(folder: Path) -> None:
    rlctl(folder, "ask", "scan.yaml", "--run", "run", "--policy", "sobol")
    with Journal.open(folder / "run/journal.db"):
        for command in (["tell", "run", "--trial", "0", "loss=1"], ["rerun", "run", "--failed"]):
            assert "another controller is steering this run" in rlctl(folder, *command, code=2).stderr


def test_a_run_is_paused_continued_and_stopped_from_another_terminal(folder: Path) -> None:
    (folder / "sleep.txt").write_text("0.4")
    process = begun(folder, "--set", f"{MORE}=500")
    try:
        until(lambda: len(logged(folder)) >= 2, process)
        rlctl(folder, "pause", "run")
        until(lambda: not status(folder / "run").running, process)
        assert status(folder / "run").request == "pause"
        assert "paused, being steered" in rlctl(folder, "status", "run").stdout
        paused = len(logged(folder))
        time.sleep(1.5)
        assert len(logged(folder)) == paused
        rlctl(folder, "continue", "run")
        assert "is not paused" in rlctl(folder, "continue", "run", code=2).stderr
        until(lambda: len(logged(folder)) >= paused + 2, process)
        rlctl(folder, "stop", "run")
        _, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "to resume: rlctl steer" in error
    assert status(folder / "run").unattended == 0
    assert "no controller steers it now" in rlctl(folder, "pause", "run", code=2).stderr
    ended = {row["evaluation"] for row in rows(folder) if row["status"] == "done"}
    summary = steer(folder, "--resume", "--set", f"{MORE}={len(ended) + 2}")
    assert summary["extra"]["evaluations_done"] >= len(ended) + 2
    again = {int(task) for task, count in Counter(logged(folder)).items() if count > 1}
    assert not again & ended  # the stop may meet one that has written its line and not ended yet
