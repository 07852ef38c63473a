"""An editable install works wherever Python is started, also beside a clone whose folder is named as the package."""

import importlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def beside_clone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folder that holds a clone named ``rlctl``, and a Python with this clone installed in editable mode."""
    folder = tmp_path_factory.mktemp("home")
    clone = folder / "rlctl"
    clone.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, clone)
    for name in ("rlctl", "envs", "agents"):
        shutil.copytree(ROOT / name, clone / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    venv.create(folder / "venv", symlinks=True)
    python = folder / "venv" / "bin" / "python"
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout.strip())
    # The dependencies are those of the tests. A folder that a .pth file names has no .pth files read, so that
    # the editable install of the tests is not seen.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    backend = tomllib.loads((clone / "pyproject.toml").read_text())["build-system"]["build-backend"]
    build = f"import importlib; print(importlib.import_module({backend!r}).build_editable({str(folder)!r}))"
    importlib.import_module(backend)  # fails here, with a clear message, if the developer tools lack it
    done = subprocess.run([sys.executable, "-c", build], cwd=clone, capture_output=True, text=True, check=True)
    with zipfile.ZipFile(folder / done.stdout.split()[-1]) as wheel:
        wheel.extractall(site)
    return folder, python


@pytest.mark.parametrize("start", [".", "rlctl", "rlctl/envs", "/"])
def test_the_package_is_found_wherever_python_starts(beside_clone: tuple[Path, Path], start: str) -> None:
    folder, python = beside_clone
    code = "import rlctl, rlctl_envs, rlctl_agents; print(rlctl.load_config.__name__, rlctl.__file__)"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    for arguments, expected in (
        (["-c", code], f"load_config {folder / 'rlctl' / 'rlctl' / '__init__.py'}"),
        (["-m", "rlctl", "--version"], "rlctl 0.1.0"),
    ):
        done = subprocess.run(
            [python, *arguments], cwd=folder / start, env=environment, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout.strip()) == (0, expected), done.stderr
