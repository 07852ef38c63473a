"""``rlctl check`` looks whether what a campaign would start is there: environments, programs, launchers, modules."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from steering_process import Steering

# Several commands in one process, since most of the time goes into its start.
CHECKS = """
import contextlib, io, json, sys
from rlctl.cli.main import main

told = []
for arguments in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            main(["check", *arguments])
        except SystemExit as left:
            code = left.code or 0
    told.append((code, out.getvalue(), err.getvalue()))
print(json.dumps(told))
"""


def checks(steering: Steering, *commands: Sequence[str], **environment: str) -> list[tuple[int, str]]:
    """Exit code and output of a check with each of these lists of changes."""
    arguments = [[str(steering.config), *(f"--set={change}" for change in changes)] for changes in commands]
    done = subprocess.run(
        [sys.executable, "-c", CHECKS, json.dumps(arguments)],
        env={**steering.environment, **environment},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert all(code in (0, 2) and err.count("\n") <= 1 for code, _, err in told), told
    return [(code, err + out) for code, out, err in told]


def check(steering: Steering, *changes: str, **environment: str) -> tuple[int, str]:
    return checks(steering, changes, **environment)[0]


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    folder = tmp_path / "venv"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to(sys.executable)
    lmp = folder / "bin" / "lmp"
    lmp.write_text("#!/bin/sh\n")
    lmp.chmod(0o755)
    return folder


def solver(**application: Any) -> str:
    return f"executor.options.applications={json.dumps({'solver': application})}"


@pytest.mark.parametrize("path", ["venv", "./venv", "~/venv", "$PLACE/venv", "{tmp_path}/venv"])
def test_an_environment_is_found_however_its_path_is_written(
    steering: Steering,
    venv: Path,
    tmp_path: Path,
    path: str,
) -> None:
    for program in ("python", "lmp", str(venv / "bin" / "lmp")) if path == "venv" else ("lmp",):
        steering.configure(parts=1, task={"application": "solver", "executable": program, "walltime_s": 9.0})
        place = {"HOME": str(tmp_path), "PLACE": str(tmp_path)}
        code, said = check(steering, solver(venv=path.format(tmp_path=tmp_path)), **place)
        assert (code, said) == (0, f"{steering.config}: ok\n")


@pytest.mark.parametrize(
    ("application", "task", "said"),
    [
        ({"venv": "nowhere"}, {}, "nowhere: no virtual environment, it is not there"),
        ({"venv": "tiny.yaml"}, {}, "tiny.yaml: no virtual environment, it is a file"),
        ({"venv": "empty"}, {}, "empty: no virtual environment, it has no folder bin"),
        ({"venv": "dangling"}, {"application": "solver"}, "dangling/bin/python: no interpreter"),
        ({"venv": "plain"}, {"application": "solver"}, "plain/bin/python: no interpreter"),
        ({"venv": "venv"}, {"application": "solver", "executable": "vasp"}, "vasp: no such program"),
        ({"environment": {"PATH": "/nowhere"}}, {"application": "solver", "executable": "lmp"}, "lmp: no such program"),
        ({"container": ["apptainer-5", "exec", "a.sif"]}, {}, "container: apptainer-5: no such program"),
        ({"mpiexec": "/nowhere/mpiexec"}, {}, "mpiexec: /nowhere/mpiexec: no such program"),
        ({"mpiexec": "./tiny.yaml"}, {}, "tiny.yaml: no such program that can be executed"),
        ({"modules": ["gromacs/2026"]}, {}, "module load gromacs/2026 fails"),
        ({}, {"application": "lammps"}, "application 'lammps' is not described"),
        ({}, {"executable": "lmp-of-nobody"}, "lmp-of-nobody: no such program"),
        ({}, {"executable": "/nowhere/lmp"}, "/nowhere/lmp: no such program"),
        ({}, {"executable": "/etc/passwd"}, "/etc/passwd: no such program that can be executed"),
        ({}, {"executable": None, "function": "no_such_module:run"}, "there is no module no_such_module"),
    ],
)
def test_what_cannot_be_started_is_told_here_and_only_doubted_of_other_machines(
    steering: Steering,
    venv: Path,
    tmp_path: Path,
    application: dict[str, Any],
    task: dict[str, Any],
    said: str,
) -> None:
    for name in ("empty", "dangling/bin", "plain/bin"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "dangling" / "bin" / "python").symlink_to("/nowhere/python")
    (tmp_path / "plain" / "bin" / "python").write_text("")
    steering.configure(parts=1, task=task)
    described = solver(**application)
    pools = [{"name": "here", "options": {"applications": {"solver": application}}}]
    in_pools = ["executor.name=pools", f"executor.options.pools={json.dumps(pools)}"]
    here, slurm, pool = checks(steering, [described], [described, "executor.name=slurm"], in_pools)
    assert [code for code, _ in (here, slurm, pool)] == [2, 0, 2], (here, slurm, pool)
    assert all(said in told for _, told in (here, slurm, pool)), (here, slurm, pool)
    if application and "application" not in task:
        assert "executor.options.applications" in here[1]
    assert "whether the nodes have it" in slurm[1]


def test_one_pool_that_has_a_program_is_enough(steering: Steering, venv: Path) -> None:
    steering.configure(parts=1, task={"application": "solver", "executable": "lmp"})
    described = {"applications": {"solver": {"venv": "venv"}}}
    pools = [{"name": "here"}, {"name": "there", "options": described}]
    code, told = check(steering, "executor.name=pools", f"executor.options.pools={json.dumps(pools)}")
    assert (code, told.endswith(": ok\n")) == (0, True), told


def test_what_the_configuration_says_of_executor_and_policies_is_looked_at(steering: Steering) -> None:
    steering.configure(parts=1)
    wrong = {
        "executor.name=locl": "unknown executor 'locl'",
        "executor.options.lease=3": "executor.options",
        'executor.options.applications={"a": {"vnev": "x"}}': "vnev",
        "policies.saved=no/such/policy": "no/such/policy: no such file or folder",
        "steer.stop_after_failures=0": "stop_after_failures",
        "steer.fallback=cyclin": "cyclin",
    }
    for said, (code, told) in zip(wrong.values(), checks(steering, *([change] for change in wrong)), strict=True):
        assert code == 2, told
        assert said in told


def test_a_module_command_that_hangs_is_told_of(
    steering: Steering,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from rlctl.core.errors import LaunchError
    from rlctl.executors import application

    bash = tmp_path / "programs" / "bash"
    bash.parent.mkdir()
    bash.write_text("#!/bin/sh\nexec sleep 100\n")
    bash.chmod(0o755)
    monkeypatch.setenv("PATH", f"{bash.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(application, "_LOGIN_SHELL_S", 0.2)
    with pytest.raises(LaunchError, match="module load quantum does not come to its end"):
        application.Application(modules=("quantum",)).check(dict(os.environ))
