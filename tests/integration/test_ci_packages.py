"""``scripts/ci-packages.sh`` asks for what is missing, each thing by itself."""

from __future__ import annotations

import subprocess
from collections.abc import Collection
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "ci-packages.sh"
EXAMPLES = ("xtb", "nwchem", "gmx")
SLURM = ("slurmctld", "slurmd", "srun", "munged", *EXAMPLES)
PYTHON = """case "$2" in
*base_prefix*) echo /opt/python 3.11 ;;
*libpmix.so*) [ -e "$PMIX" ] ;;
*) exit 1 ;;
esac"""


@pytest.mark.parametrize(
    ("there", "pmix", "wanted"),
    [
        (SLURM, True, None),
        (SLURM, False, {"libpmix-dev"}),
        (
            ("slurmctld", *EXAMPLES),
            False,
            {"slurmd", "slurm-client", "munge", "libpmix-dev", "slurm-wlm-basic-plugins"},
        ),
        (("slurmctld", "slurmd", "srun", *EXAMPLES), True, {"munge"}),
        (tuple({*SLURM} - {"xtb"}), True, {"xtb"}),
    ],
)
def test_packages_that_are_asked_for(
    tmp_path: Path, there: Collection[str], pmix: bool, wanted: Collection[str] | None
) -> None:
    def program(name: str, text: str) -> None:
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)

    for name in there:
        program(name, "")
    program("id", "echo 0")
    program("python", PYTHON)
    program("apt-get", f'[ "$1" = update ] || echo "$@" >>{tmp_path}/asked')
    if pmix:
        (tmp_path / "libpmix").touch()
    text = SCRIPT.read_text()
    kept = text.replace("export PATH=$PATH:/usr/sbin:/sbin ", "export ").replace("/usr/lib/*/", f"{tmp_path}/lib/")
    assert kept.count(str(tmp_path)) == 1
    environment = {"PATH": str(tmp_path), "PYTHON": "python", "PMIX": str(tmp_path / "libpmix")}
    done = subprocess.run(["/bin/bash", "-c", kept], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    asked = (tmp_path / "asked").read_text() if (tmp_path / "asked").exists() else None
    assert (asked and {word for word in asked.split()[1:] if not word.startswith("-")}) == wanted
