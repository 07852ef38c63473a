"""From ``rlctl init`` to the report, also where only the wheel is installed."""

import importlib
import json
import os
import re
import shlex
import subprocess
import sys
import sysconfig
import time
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from search_runs import rlctl

from rlctl.cli.project_folder import write_project
from rlctl.config.load import load_config
from rlctl.config.shipped import shipped_configs
from rlctl.core.errors import ConfigError, StorageError

ROOT = Path(__file__).parents[2]


def commands(readme: Path) -> list[list[str]]:
    """The commands in the README of a project."""
    block = re.search(r"```shell\n(.*?)```", readme.read_text(), re.DOTALL)
    assert block is not None
    return [shlex.split(line)[1:] for line in block[1].splitlines()]


@pytest.mark.quick
@pytest.mark.parametrize(
    ("name", "config"),
    [("scan", "scan.yaml"), ("my odd: scan!", "my-odd-scan.yaml"), ("a/b/ü", "ü.yaml"), ("..x", "x.yaml")],
)
def test_a_project_is_a_configuration_a_program_and_a_readme(name: str, config: str, tmp_path: Path) -> None:
    written = write_project(tmp_path / name)
    assert [path.name for path in written] == [config, "simulate.py", "README.md"]
    assert load_config(written[0]).campaign.name == "search"
    assert [words[0] for words in commands(written[2])] == ["check", "check", "steer", "results", "report"]
    assert "$" not in written[0].read_text()


@pytest.mark.quick
def test_a_folder_that_is_not_empty_and_unknown_names_are_refused(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("x")
    with pytest.raises(StorageError, match="full is not empty"):
        write_project(tmp_path / "full")
    with pytest.raises(StorageError, match=r"mine.txt is a file"):
        write_project(tmp_path / "full" / "mine.txt")
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]
    with pytest.raises(ConfigError, match="did you mean 'annealing'"):
        write_project(tmp_path / "new", "anealing")
    assert not (tmp_path / "new").exists()
    (tmp_path / "empty").mkdir()
    assert write_project(tmp_path / "empty")


@pytest.mark.quick
def test_every_shipped_configuration_can_be_copied_with_what_it_names(tmp_path: Path) -> None:
    for name in shipped_configs():
        config, *named = write_project(tmp_path / name, name)
        loaded = load_config(config)
        assert {loaded.resolve(entry) for entry in loaded.policies.values() if isinstance(entry, str)} == set(named)
        assert all(path.exists() for path in named)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with the wheel of this clone, and its dependencies, but no clone."""
    folder = tmp_path_factory.mktemp("wheel")
    backend = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["build-backend"]
    importlib.import_module(backend)  # fails here, with a clear message, if the developer tools lack it
    build = f"import importlib; print(importlib.import_module({backend!r}).build_wheel({str(folder)!r}))"
    done = subprocess.run([sys.executable, "-c", build], cwd=ROOT, capture_output=True, text=True, check=True)
    venv.create(folder / "venv", symlinks=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder / "venv")}))
    with zipfile.ZipFile(folder / done.stdout.split()[-1]) as wheel:
        wheel.extractall(site)
    # Its .pth files are not read, so that the editable install of the tests is not seen.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    command = folder / "venv" / "bin" / "rlctl"
    command.write_text(f"#!{folder}/venv/bin/python\nfrom rlctl.__main__ import main\nmain()\n")
    command.chmod(0o755)
    return folder / "venv" / "bin"


def test_the_wheel_goes_from_an_empty_folder_to_the_report_within_two_minutes(installed: Path, tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment |= {"PATH": f"{installed}:/usr/bin:/bin", "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}

    def run(folder: Path, *words: str) -> str:
        done = subprocess.run(
            ["rlctl", *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=200, check=False
        )
        assert done.returncode == 0, f"{words}\n{done.stdout}{done.stderr}"
        return done.stdout

    began_s = time.monotonic()
    project = tmp_path / "my scan"
    assert "next: cd 'my scan' && rlctl check my-scan.yaml" in run(tmp_path, "init", "my scan")
    where = subprocess.run(
        [installed / "python", "-c", "import rlctl, rlctl_envs, rlctl_agents; print(rlctl.__file__)"],
        cwd=project, env=environment, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert Path(where.strip()).is_relative_to(installed.parent)
    said = {words[0]: run(project, *words) for words in commands(project / "README.md")}
    assert time.monotonic() - began_s < 120.0
    assert "best:   product" in said["steer"]
    assert len(said["results"].splitlines()) == 6
    page = (project / "runs" / "my-scan-1" / "report.html").read_text()
    assert "profit" in page
    summary = json.loads((project / "runs" / "my-scan-1" / "summary.json").read_text())
    assert summary["found"]["best"][0]["results"]["profit"] > 0.7
    assert summary["extra"]["evaluations_infeasible"] > 0
    run(tmp_path, "init", "films", "--from", "annealing")
    valid, policy = run(tmp_path / "films", "check", "annealing.yaml").splitlines()
    assert valid == "annealing.yaml: ok"
    assert policy.startswith("policy: ppo, ")  # the copied bundle, with what its judgement says


def test_init_refuses_on_the_command_line(tmp_path: Path) -> None:
    shown = json.loads(rlctl(tmp_path, "init", "scan", "--json").stdout)
    assert shown["config"] == "scan/scan.yaml"
    assert "scan is not empty" in rlctl(tmp_path, "init", "scan", code=2).stderr
    assert "known: annealing" in rlctl(tmp_path, "init", "other", "--from", "nothing", code=2).stderr
