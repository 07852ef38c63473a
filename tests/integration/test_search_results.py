"""A search from YAML alone: where its run lies, and how its results are read while it runs and after it."""

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from board_curves import Curves
from search_runs import rlctl, write_search

import rlctl as package
from rlctl.cli.main import main
from rlctl.core.errors import ConfigError

COLUMNS = ["evaluation", "x", "y", "ranks", "cores", "gpus", "status", "energy", "size", "feasible", "queued_s"]


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """The run folder of a search that has ended, and what ``steer`` has said."""
    folder = tmp_path_factory.mktemp("search")
    write_search(folder)
    done = rlctl(folder, "steer", "scan.yaml")
    return folder / "runs" / "scan-1", done.stdout, done.stderr


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    """What a command prints that runs in this process; mistakes give one line."""
    with pytest.raises(SystemExit) as left:
        main(arguments)
    out, err = capsys.readouterr()
    assert (left.value.code or 0) == code, err
    err = err.removeprefix("policy: target_per_second, the campaign's default\n")
    assert err.count("\n") == (1 if code else 0), err
    return err if code else out


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "evaluations.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.quick
def test_the_first_run_is_number_one_and_its_end_shows_the_best_point(ended: tuple[Path, str, str]) -> None:
    run, out, err = ended
    assert "run folder: runs/scan-1" in err.splitlines()
    done = [row for row in rows(run) if row["status"] == "done"]
    best = min(done, key=lambda row: float(row["energy"]))
    assert f"best:   energy {float(best['energy']):.10g}, size" in out
    assert f"at:     x {float(best['x']):.7g}, y {best['y']}" in out
    assert f"files:  runs/scan-1/work/evaluations/{int(best['evaluation']):04d}" in out
    assert (run / "work" / "evaluations" / f"{int(best['evaluation']):04d}" / "sim.py").exists()
    assert "rlctl results runs/scan-1 --best 10" in out
    assert "rlctl report runs/scan-1" in out
    summary = json.loads((run / "summary.json").read_text())
    assert {name: value for name, value in summary["extra"].items() if name.startswith("evaluations_")} == {
        f"evaluations_{status}": sum(row["status"] == status for row in rows(run))
        for status in ("done", "infeasible", "failed", "stopped")
    }
    found = summary["found"]
    assert found["best"][0]["results"]["energy"] == float(best["energy"])


@pytest.mark.quick
def test_the_table_has_a_row_for_each_evaluation_with_all_digits(ended: tuple[Path, str, str]) -> None:
    run = ended[0]
    table = package.results(run)
    assert table.columns[: len(COLUMNS)] == COLUMNS
    assert [row["evaluation"] for row in table.rows] == list(range(len(table.rows)))
    assert len(table.rows) >= 8
    for row, written in zip(table.rows, rows(run), strict=True):
        for name, value in row.items():
            shown = str(value).lower() if isinstance(value, bool) else str(value)
            assert written[name] == ("" if value is None else shown), name
        assert row["status"] != "running"
        if row["x"] > 4.0 and row["status"] != "stopped":
            assert (row["status"], row["kind"], row["feasible"]) == ("infeasible", "diverged", None)
        elif row["status"] == "done":
            assert row["energy"] == pytest.approx((row["x"] - 1.0) ** 2 + row["y"])
            assert row["queued_s"] <= row["started_s"] <= row["ended_s"]


@pytest.mark.quick
def test_the_best_come_first_and_conditions_hold(ended: tuple[Path, str, str]) -> None:
    table = package.results(ended[0])
    energies = [row["energy"] for row in table.best(3).rows]
    assert energies == sorted(row["energy"] for row in table.rows if row["status"] == "done")[:3]
    chosen = table.where("x < 2 and energy < 20 and status == 'done'")
    assert chosen.rows
    assert all(row["x"] < 2 and row["energy"] < 20 for row in chosen.rows)
    assert table.where("energy > -1").best(1).rows == table.best(1).rows
    assert not table.where("x > 99").rows
    with pytest.raises(ConfigError, match="did you mean 'energy'"):
        table.where("enrgy < 3")


@pytest.mark.quick
def test_curves_show_best_values_objectives_and_failures_against_node_seconds(ended: tuple[Path, str, str]) -> None:
    run = ended[0]
    curves, table = Curves(run / "tensorboard"), package.results(run)
    points = curves.points("evaluations", "found/objective/energy")
    done = sorted((row for row in table.rows if row["status"] == "done"), key=lambda row: row["ended_s"])
    assert points == [(round(row["ended_s"]), pytest.approx(row["energy"], rel=1e-6)) for row in done]
    best = [value for _, value in curves.points("evaluations", "found/best/energy")]
    assert best == sorted(best, reverse=True)
    assert best[-1] == pytest.approx(table.best(1).rows[0]["energy"], rel=1e-6)
    infeasible = sum(row["status"] == "infeasible" for row in table.rows)
    failures = [value for _, value in curves.points("evaluations", "found/failures/all")]
    assert failures == sorted(failures)
    assert failures[-1] == infeasible + sum(row["status"] == "stopped" for row in table.rows if row["ended_s"])
    assert {"learning/actions/x", "learning/actions/y"} <= curves.tags(".", "histograms")


@pytest.mark.quick
def test_results_on_the_command_line(
    ended: tuple[Path, str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(ended[0])
    shown = said(capsys, "results", run, "--best", "2").splitlines()
    assert shown[0].split()[:6] == ["evaluation", "x", "y", "status", "energy", "size"]
    assert len(shown) == 3
    assert max(map(len, shown)) <= 80
    data = json.loads(said(capsys, "results", run, "--where", "y > 2", "--json"))
    assert data["objectives"] == {"energy": "minimize"}
    assert data["rows"]
    assert all(row["y"] > 2 for row in data["rows"])
    out = tmp_path / "out.csv"
    assert said(capsys, "results", run, "--csv", str(out), "--best", "1") == f"wrote {out}: 1 evaluation\n"
    assert len(out.read_text().splitlines()) == 2
    assert said(capsys, "results", run, "--where", "x > 100") == "no evaluation with x > 100\n"


@pytest.mark.quick
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--where", "x = 3"], "== compares"),
        (["--csv", "nowhere/a.csv"], "nowhere: no such folder"),
        (["--where", "x <"], "--where: 'x <' is not an expression"),
        (["--where", "z < 1"], "unknown name z"),
        (["--where", "status < 1"], "cannot be computed"),
        (["--best", "0"], "--best"),
        (["--csv", "."], "is a folder"),
    ],
)
def test_wrong_requests_are_one_line(
    ended: tuple[Path, str, str], arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told in said(capsys, "results", str(ended[0]), *arguments, code=2)


@pytest.mark.quick
def test_status_shows_the_best_point_and_named_decisions(
    ended: tuple[Path, str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    run = ended[0]
    shown = said(capsys, "status", str(run))
    best = package.results(run).best(1).rows[0]
    assert f"energy {best['energy']:.10g}" in shown
    assert f"x {best['x']:.7g}, y {best['y']}" in shown
    assert "277777777" not in shown
    now = json.loads(said(capsys, "status", str(run), "--json"))
    assert now["found"]["best"][0]["number"] == best["evaluation"]
    assert all(set(decision["named"]) in ({"x", "y"}, {"wait"}) for decision in now["last"] if decision["named"])


@pytest.mark.quick
def test_a_dry_run_shows_decisions_commands_and_files_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_search(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    shown = said(capsys, "steer", "scan.yaml", "--dry-run").splitlines()
    assert shown[0].startswith("decision 0 on search: x ")
    assert shown[1].startswith("  evaluation in work/evaluations/0000: x ")
    assert sum(line.lstrip().startswith("$ ") for line in shown) == 2  # as many as there are cores
    assert f"    sim.py: copy of {tmp_path}/sim.py" in shown
    assert shown[-1].endswith("nothing was started or written")
    data = json.loads(said(capsys, "steer", "scan.yaml", "--dry-run", "--json", "--policy", "random"))
    assert data["policy"] == "random"
    assert [set(decision["action"]) for decision in data["decisions"]] == [{"x", "y"}] * 2
    assert data["decisions"][1]["tasks"][0]["command"][1] == "sim.py"
    assert "omit --resume" in said(capsys, "steer", "scan.yaml", "--dry-run", "--resume", code=2)
    assert "neither a known name" in said(capsys, "steer", "scan.yaml", "--dry-run", "--policy", "no.yaml", code=2)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_killed_run_is_read_and_the_newest_unfinished_one_goes_on(tmp_path: Path) -> None:
    write_search(tmp_path, **{"evaluations: 8": "evaluations: 25"})
    slow = "import time\ntime.sleep(0.5)\n"  # or it may have ended before it is interrupted
    (tmp_path / "sim.py").write_text(slow + (tmp_path / "sim.py").read_text())
    command = [sys.executable, "-P", "-m", "rlctl", "steer", "scan.yaml", "--policy", "random", "--instance", "3"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    run, limit_s = tmp_path / "runs" / "scan-1", time.monotonic() + 60
    while time.monotonic() < limit_s and not ((run / "evaluations.csv").exists() and len(rows(run)) > 4):
        assert process.poll() is None
        time.sleep(0.1)
    before = len(rows(run))  # while it runs
    assert before > 4
    assert len(package.results(run).rows) >= before
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    again = "rlctl steer scan.yaml --policy random --instance 3 --resume --run=runs/scan-1"
    assert err.splitlines()[-1] == f"rlctl: stopped; to resume: {again}"
    shutil.copytree(run, tmp_path / "runs" / "scan-4")
    shutil.copytree(run, tmp_path / "runs" / "other-7")
    done = rlctl(tmp_path, "steer", "scan.yaml", "--resume", "--set", "steer.stop_after_failures=50", "--json")
    summary = json.loads(done.stdout)
    assert (summary["run"], summary["policy"], summary["instance"]) == ("runs/scan-4", "random", 3)
    resumed = package.results(tmp_path / "runs" / "scan-4")
    assert sum(row["status"] in ("done", "infeasible") for row in resumed.rows) >= 25
    assert len(rows(tmp_path / "runs" / "scan-4")) == len(resumed.rows)
    assert rlctl(tmp_path, "results", "runs/scan-1", "--best", "1").stdout


def test_wrong_requests_of_steer_are_one_line_and_leave_nothing(tmp_path: Path) -> None:
    write_search(tmp_path)
    assert "no run runs/scan-N is unfinished" in rlctl(tmp_path, "steer", "scan.yaml", "--resume", code=2).stderr
    assert not (tmp_path / "runs").exists()
    rlctl(tmp_path, "steer", "scan.yaml", "--set", "machine.cores=4000", code=2)
    assert not list((tmp_path / "runs").glob("*"))
    (tmp_path / "ensemble.yaml").write_text("schema: 1\nseed: 1\ncampaign: {name: ensemble}\nmachine: {cores: 2}\n")
    told = rlctl(tmp_path, "steer", "ensemble.yaml", code=2).stderr
    assert "campaign ensemble has no default policy, and no saved policy" in told
    assert told.strip().endswith("name one with --policy, e.g. random")
