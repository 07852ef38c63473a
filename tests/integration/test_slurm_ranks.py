"""Whether srun can bring ranks together: it lists plugins whose library is not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlctl.cli import doctor
from rlctl.core.errors import LaunchError
from rlctl.distributed.launch.launcher import LauncherName, prepare
from rlctl.executors.slurm import commands
from rlctl.system.launchers import Launcher

LISTED = """MPI plugin types are...
	pmix
	none
	pmi2
specific pmix plugin versions available: pmix_v4"""  # fmt: skip
SRUN = """#!/bin/sh
case "$1 $2" in
--mpi=list*) echo '%s'; exit 0 ;;
'--mpi=pmix --test-only')
    echo "srun: error: mpi/pmix_v4: init: can not load PMIx library" >&2
    echo "srun: error: Invalid MPI type 'pmix', --mpi=list for acceptable types" >&2
    exit 1 ;;
'--mpi=pmi2 --test-only') echo "allocation failure: Requested node configuration is not available" >&2; exit 1 ;;
esac
exit 9
"""


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Programs of a Slurm whose PMIx cannot be loaded."""
    for name, text in {"srun": SRUN % LISTED, "sinfo": "#!/bin/sh\necho 'main* 4 nodes'\n"}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    commands.pmi_problem.cache_clear()
    yield
    commands.pmi_problem.cache_clear()


def test_what_is_listed_and_cannot_be_loaded_is_told_apart_from_what_is_not_there(slurm: None) -> None:
    assert commands.pmi_problem("pmi2") is None  # whether nodes are free is another matter
    assert "srun cannot load pmix here: have the library libpmix.so installed" in str(commands.pmi_problem("pmix"))
    assert commands.pmi_problem("cray_shasta") == (
        "srun has no cray_shasta here (it has pmix, none, pmi2): have the plugin installed"
    )


def test_doctor_says_so_with_the_cure(slurm: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "mpi_library", lambda program, variables: Launcher.OPENMPI)
    finding = doctor.slurm()
    assert finding.ok is False
    assert finding.detail.startswith("main* 4 nodes; inside job 7; ")
    assert "srun cannot load pmix here" in finding.detail
    assert "libpmix-dev" in finding.advice
    monkeypatch.setattr(doctor, "mpi_library", lambda program, variables: Launcher.MPICH)
    assert doctor.slurm() == doctor.Finding("Slurm", True, "main* 4 nodes; inside job 7")


def test_a_training_on_ranks_says_so_before_it_starts_any(
    slurm: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlctl.distributed.launch.launcher.mpi_library", lambda program, variables: Launcher.OPENMPI)
    with pytest.raises(LaunchError, match="--ranks: srun cannot load pmix here: have the library"):
        prepare(2, LauncherName.AUTO, tmp_path)
