"""``rlctl benchmark`` from end to end: training, tuning, controls, variants; then again from what is there."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

CONFIG = Path(__file__).parents[2] / "configs" / "ensemble_small.yaml"
SETS = (
    "train.decisions=16384",
    "benchmark.seeds=2",
    "benchmark.decisions=4096",
    "benchmark.controls=32",
    "benchmark.real=1",
)
COMMAND = ["benchmark", str(CONFIG), "--instances=32", "--json", *(f"--set={one}" for one in SETS)]


def run(folder, *arguments):
    command = [sys.executable, "-m", "rlctl", *COMMAND, "--out=results", "--work=work", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    folder = tmp_path_factory.mktemp("judged")
    done = run(folder)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)["families"]["ensemble_small"]


def rows(found, measure, family="ensemble_small"):
    return {row["system"]: row for row in found if row["measure"] == measure and row["family"] == family}


def test_every_control_and_a_weak_rule_lose_to_the_policy(judged):
    _, found = judged
    controls = rows(found, "cost per success of a control, relative to the policy")
    assert len(controls) == 3
    assert all(row["met"] for row in controls.values()), controls
    assert rows(found, "hidden numbers in fields")["policy, best seed"]["met"]
    assert rows(found, "the same, geometric mean over instances")["narrow"]["median"] > 1.0


def test_all_systems_are_there_with_their_intervals(judged):
    folder, found = judged
    cost = rows(found, "cost per success")
    assert {"policy", "policy, seed 1", "policy, seed 2", "policy, best seed", "lpt, tuned", "narrow", "random"} <= {
        *cost
    }
    assert all(row["low"] < row["median"] < row["high"] for name, row in cost.items())
    assert cost["policy"]["runs"] == 64
    hindsight = cost["best rule of each instance, in hindsight"]["median"]
    assert hindsight <= min(cost[name]["median"] for name in ("lpt", "lpt, tuned", "narrow", "same_efficiency"))
    (holm,) = rows(found, "sign-flip test, Holm's correction").values()
    assert holm["unit"] == "p, of 3 tests"
    assert set(rows(found, "cost per success", "ensemble_small: 16 nodes")) >= {"policy", "lpt, tuned"}
    assert rows(found, "processor time of training or tuning")["policy"]["median"] > 1.0
    results = json.loads((folder / "results" / "ensemble_small.json").read_text())
    assert 16_384 <= results["systems"]["policy"]["decisions"] < 18_000
    assert "needs" in results["skipped"]["real campaigns"] or "cores" in results["skipped"]["real campaigns"]
    assert results["systems"]["lpt, tuned"]["decisions"] <= 4096
    assert str(folder) not in json.dumps(results)
    assert (folder / "results" / "ensemble_small.md").read_text().startswith("# Results: ensemble_small")
    assert (folder / "results" / "ensemble_small.svg").read_text().startswith("<svg")


def test_the_same_again_plays_nothing_and_gives_the_same(judged):
    folder, _ = judged
    results = {path.name: path.read_bytes() for path in (folder / "results").iterdir()}
    work = {path: path.stat().st_mtime_ns for path in (folder / "work").rglob("*") if path.is_file()}
    done = run(folder)
    assert done.returncode == 0, done.stderr
    assert {path.name: path.read_bytes() for path in (folder / "results").iterdir()} == results
    assert {path: path.stat().st_mtime_ns for path in (folder / "work").rglob("*") if path.is_file()} == work


def test_what_was_made_for_another_game_is_refused(judged):
    folder, _ = judged
    done = run(folder, "--set=machine.nodes=7")
    assert done.returncode == 2
    assert "was trained for another game: choose another folder with --work" in done.stderr
    assert "Traceback" not in done.stderr


def test_real_campaigns_stand_beside_their_twins_and_are_not_run_twice(tmp_path):
    sets = ("benchmark.real=1", "benchmark.controls=2", "campaign.options.workload.tasks=[2, 3]")
    sets += ("campaign.options.workload.most_tasks=3", "campaign.options.workload.work_s=0.5")
    sets += ("benchmark.seeds=1", "train.decisions=256", "train.num_envs=4")
    sets += ("benchmark.calibrated={campaign.options.program.start_up_s: {1: 60, 2: 60, 4: 60, 8: 60}}",)
    paced = [str(CONFIG.with_name("ensemble_paced.yaml")), "--instances=2", *(f"--set={one}" for one in sets)]
    command = [sys.executable, "-m", "rlctl", "benchmark", *paced, "--out=results", "--work=work", "--json"]
    done = [subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300) for _ in range(2)]
    assert done[0].returncode == 0, done[0].stderr
    assert done[0].stdout == done[1].stdout
    found = json.loads(done[0].stdout)["families"]["ensemble_paced"]
    ratios = rows(found, "cost of real campaigns, relative to the twin", "ensemble_paced")
    assert "policy" in ratios
    assert len(ratios) == 2
    slow = rows(found, "cost of real campaigns, relative to the calibrated twin", "ensemble_paced")
    assert all(
        slow[name]["median"] < 0.2 * ratios[name]["median"] for name in ratios
    )  # of a machine that starts slowly
    # A busy machine starts programs late, so that only the size is asserted.
    assert all(0.5 < row["median"] < 10.0 and row["target"] == 1.1 and row["runs"] == 1 for row in ratios.values())
    assert all(row["median"] > 0.0 for row in rows(found, "cost per success, real", "ensemble_paced").values())
    assert len(list((tmp_path / "work").glob("ensemble_paced/real/*/*/summary.json"))) == 2


def test_the_policy_may_be_a_rule_that_is_tuned_with_each_seed(tmp_path):
    config, sets = CONFIG.with_name("rlscheduler.yaml"), ("benchmark.seeds=2", "benchmark.decisions=100000")
    sets += ("campaign.options.workload.tasks=[48, 48]", "benchmark.search.instances=16", "benchmark.variants={}")
    command = [sys.executable, "-m", "rlctl", "benchmark", str(config), "--instances=8", "--json", "--work=work"]
    command += ["--out=results", *(f"--set={one}" for one in sets)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    cost = rows(json.loads(done.stdout)["families"]["rlscheduler"], "cost per success", "rlscheduler")
    assert {"policy", "policy, seed 1", "policy, seed 2", "weighted", "f4", "random"} <= {*cost}
    assert cost["policy"]["runs"] == 16
    results = json.loads((tmp_path / "results" / "rlscheduler.json").read_text())
    assert results["systems"]["policy"]["rule"] == "weighted"
    assert results["systems"]["policy"]["seeds"] == [1, 2]
    assert "is a rule" in results["skipped"]["controls of observations"]
    assert {path.name for path in (tmp_path / "work" / "rlscheduler" / "train").iterdir()} == {"1.yaml", "2.yaml"}

    wrong = subprocess.run(
        [*command, "--set=benchmark.search.rule=weigted"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert wrong.returncode == 2
    assert "benchmark.search.rule: unknown rule" in wrong.stderr
