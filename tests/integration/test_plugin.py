"""Somebody else's packages: built as wheels, installed, trained, tuned, compared, steered with real processes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from rlctl.executors.event_log import Journal

EXAMPLES = Path(__file__).parents[2] / "examples"
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]


class Installed:
    """The two example packages in a folder of their own, and the command line that sees them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.packages = folder / "packages"
        self.config = EXAMPLES / "own_simulation" / "curing.yaml"
        self.environment = {**os.environ, "PYTHONPATH": str(self.packages), "OMP_NUM_THREADS": "1"}

    def command(self, *arguments: object) -> list[str]:
        return [sys.executable, "-m", "rlctl", *map(str, arguments)]

    def run(self, *arguments: object, packages: Path | None = None) -> subprocess.CompletedProcess[str]:
        environment = dict(self.environment)
        if packages is not None:
            environment["PYTHONPATH"] = os.pathsep.join([str(packages), str(self.packages)])
        return subprocess.run(
            self.command(*arguments), env=environment, capture_output=True, text=True, timeout=240, check=False
        )

    def json(self, *arguments: object) -> dict:
        done = self.run(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("plugins")
    sources = [shutil.copytree(EXAMPLES / name, folder / name) for name in ("own_simulation", "own_policy")]
    offline = ["--no-deps", "--no-build-isolation", "--no-index"]
    wheels = folder / "wheels"
    subprocess.run([*PIP, "wheel", *offline, "--wheel-dir", str(wheels), *map(str, sources)], check=True)
    installed = Installed(folder)
    files = sorted(str(wheel) for wheel in wheels.iterdir())
    assert [Path(file).name.split("-")[0] for file in files] == ["curing", "secant_rule"]
    subprocess.run([*PIP, "install", *offline, "--target", str(installed.packages), *files], check=True)
    return installed


def test_it_keeps_its_promises_trains_is_tuned_and_compared(installed: Installed, tmp_path: Path) -> None:
    checked = installed.json("check", installed.config, "--play", "--set", "policies.gp.rule=gaussian_process")
    assert checked["reached"]["bisection"] == checked["reached"]["gp"] == checked["instances"]
    brief = ["--set", "train.decisions=2048", "--set", "train.num_envs=16"]
    trained = installed.json("train", installed.config, "--out", tmp_path / "train", *brief)
    manifest = json.loads((Path(trained["policy"]) / "manifest.json").read_text())
    assert manifest["campaign"] == {"name": "curing", "version": 1}
    few = ["--generations", 2, "--instances", 6]
    tuned = installed.json("tune", "secant", installed.config, "--out", tmp_path / "secant.yaml", *few)
    assert tuned["parameters"].keys() == {"coarse_above_K", "inwards", "apart"}
    against = ["--against", tmp_path / "secant.yaml", "bisection", "gaussian_process"]
    compared = installed.json("evaluate", installed.config, "--policy", trained["policy"], *against, "--instances", 16)
    rows = {row["policy"]: row for row in compared["rows"]}
    assert rows["bisection"]["reached"] == rows["secant"]["reached"] == rows["gaussian_process"]["reached"] == 1.0
    assert rows["gaussian_process"]["node_seconds"] < rows["bisection"]["node_seconds"]


@pytest.mark.parametrize("policy", ["secant", "gaussian_process"])  # without a memory and with one
def test_real_runs_reach_the_goal_though_the_controller_is_killed(
    installed: Installed, tmp_path: Path, policy: str
) -> None:
    run = tmp_path / "run"
    steer = ["steer", installed.config, "--policy", policy, "--run", run, "--instance", 5]
    process = subprocess.Popen(
        installed.command(*steer), env=installed.environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        end_s = time.monotonic() + 60.0
        # Killed once something has finished, so that there is something that must not run again.
        while not list((run / "work").glob("run*.json")):
            assert time.monotonic() < end_s
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.communicate()
    summary = installed.json(*steer, "--resume")
    assert summary["reached"]
    with Journal.open(run / "journal.db", read_only=True) as journal:
        records = journal.records()
    ends = Counter(r.data["uid"] for r in records if r.kind == "event" and "result" in r.data)
    assert set(ends.values()) == {1}
    peaks = [
        r.data["result"]["values"]["peak_K"] for r in records if r.kind == "event" and r.data.get("state") == "done"
    ]
    assert any(438.0 <= peak <= 440.0 for peak in peaks)


def broken(folder: Path, code: str, entry_points: str, name: str = "broken") -> Path:
    """A package as it lies in site-packages."""
    info = folder / f"{name}_package-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entry_points)
    (folder / f"{name}_module.py").write_text(code)
    return folder


CAMPAIGN = "[rlctl.campaigns]\nbroken = broken_module:Factory\n"
GOOD = "from curing.factory import CuringFactory\nfrom curing.campaign import Curing\n"
BREAKS = {
    "import": ("import nowhere_to_be_found\n", "ModuleNotFoundError"),
    "name": ("class Other: pass\n", "AttributeError"),
    "class": ("class Factory:\n    def __init__(self, options): pass\n", "derive from rlctl.SimpleFactory"),
    "nameless": (
        "from rlctl.core.campaign_factory import CampaignFactory\nclass Factory(CampaignFactory):\n"
        "    def __init__(self, options): pass\n    def campaign(self, seed): pass\n",
        "'name'",
    ),
    "campaign": (
        GOOD + "class Factory(CuringFactory):\n    def campaign(self, seed): return object()\n",
        "derive from rlctl.Campaign",
    ),
    "constructor": ("class Factory:\n    def __init__(self, options): 1 / 0\n", "ZeroDivisionError"),
    "promise": (
        GOOD + "class Bad(Curing):\n    def on_event(self, event):\n"
        "        self.open, self.now = None, self.now + 1.0\n        super().on_event(event)\n"
        "class Factory(CuringFactory):\n    def campaign(self, seed): return Bad(self.options)\n",
        "on_event()",
    ),
    "raises": (
        GOOD + "class Bad(Curing):\n    def on_event(self, event): event.result.values['nothing']\n"
        "class Factory(CuringFactory):\n    def campaign(self, seed): return Bad(self.options)\n",
        "on_event()",
    ),
}


@pytest.mark.parametrize("kind", BREAKS)
def test_what_a_broken_package_does_is_one_line_that_names_it(installed: Installed, tmp_path: Path, kind: str) -> None:
    code, said = BREAKS[kind]
    packages = broken(tmp_path, code, CAMPAIGN)
    done = installed.run("check", installed.config, "--play", "--set", "campaign.name=broken", packages=packages)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.count("\n") == 1
    assert "broken-package" in done.stderr
    assert said in done.stderr


def test_a_rule_and_an_executor_that_are_broken_are_named_too(installed: Installed, tmp_path: Path) -> None:
    points = "[rlctl.policies]\nlazy = broken_module:Lazy\n[rlctl.executors]\nfar = broken_module:Lazy\n"
    packages = broken(tmp_path, "class Lazy:\n    def __init__(self, options=None): pass\n", points)
    run = ["--run", tmp_path / "run"]
    rule = installed.run("steer", installed.config, "--policy", "lazy", *run, packages=packages)
    executor = installed.run(
        "steer", installed.config, "--policy", "secant", *run, "--set", "executor.name=far", packages=packages
    )
    for done, missing in ((rule, "'act'"), (executor, "'check'")):
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert "broken-package" in done.stderr
        assert missing in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_program_that_never_works_stops_the_campaign(installed: Installed, tmp_path: Path) -> None:
    code = (
        "import dataclasses\nfrom rlctl.core.campaign import Start\n" + GOOD + "class Bad(Curing):\n"
        "    def apply(self, action):\n"
        "        spec = super().apply(action)[0].spec\n"
        "        return [Start(dataclasses.replace(spec, executable='curing-slab'))]\n"
        "class Factory(CuringFactory):\n    def campaign(self, seed): return Bad(self.options)\n"
    )
    packages, run = broken(tmp_path, code, CAMPAIGN), tmp_path / "run"
    short = ["--set", "campaign.name=broken", "--set", "campaign.options.allocation_s=3"]
    done = installed.run("steer", installed.config, "--policy", "bisection", "--run", run, *short, packages=packages)
    assert done.returncode == 3, done.stderr
    assert "failures in a row (launch)" in done.stderr
    assert "curing-slab: no such program on PATH" in installed.run("status", run, packages=packages).stdout


def test_a_name_that_two_packages_register_names_both(installed: Installed, tmp_path: Path) -> None:
    packages = broken(tmp_path, "", "[rlctl.campaigns]\ncuring = broken_module:Factory\n")
    done = installed.run("check", installed.config, packages=packages)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "broken-package and curing" in done.stderr
