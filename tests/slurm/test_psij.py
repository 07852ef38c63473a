"""An allocation that is asked for through PSI/J, in an environment of its own: it wants older libraries than rlctl."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import slurm_bed
from slurm_bed import Bed

pytestmark = pytest.mark.slurm

PROGRAM = """
import sys
from pathlib import Path
from rlctl.executors.base import Capacity
from rlctl.executors.slurm import SlurmExecutor
from rlctl.executors.slurm.allocation import Request
from rlctl.executors.slurm.backend import SlurmSettings
from rlctl.core.task import Resources, TaskId, TaskSpec

submit = Request("0:05:00", ("--comment=rehearsal",), through="psij")
capacity = Capacity(nodes=2, cores=2, gpus=1)
executor = SlurmExecutor(capacity, Path(sys.argv[1]), eager=True, slurm=SlurmSettings(submit, poll_s=0.3))
wide = TaskSpec(TaskId("wide"), executable="hostname", resources=Resources(ranks=2, nodes=2, gpus_per_rank=1.0))
print(executor.submit_task(wide).result(60))
executor.close()
"""


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """An interpreter that has PSI/J, and everything else from this environment."""
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True, timeout=120)
    made = tmp_path / "venv" / "bin" / "python"
    command = [str(made), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "psij-python==0.9.11"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        pytest.skip(f"pip cannot install PSI/J here: {done.stderr.strip().splitlines()[-1:]}")
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    (site / "rlctl.pth").write_text(f"{Path(__file__).parents[2]}\n{sysconfig.get_path('purelib')}\n")
    return made


def test_psij_gets_the_allocation(bed: Bed, python: Path, tmp_path: Path) -> None:
    slurm_bed.end_whole()
    environment = {n: v for n, v in os.environ.items() if not n.startswith("SLURM_")} | bed.environment
    done = subprocess.run(
        [str(python), "-c", PROGRAM, str(tmp_path / "work")],
        env=environment | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout == "{}\n", done.stderr
    assert not [name for name in bed.ask("squeue", "--noheader", "--format=%j").split() if name.startswith("rlctl")]
