from __future__ import annotations

import sys
from pathlib import Path

import pytest

from rlctl.cli import doctor
from rlctl.system import mpi
from rlctl.system.launchers import Launcher


def program(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_here_python_packages_and_cores_are_in_order(tmp_path: Path) -> None:
    findings = {finding.name: finding for finding in doctor.diagnose(tmp_path)}
    assert list(findings) == ["Python", "packages", "cores", "MPI", "GPUs", "Slurm", "folder"]
    assert all(findings[name].ok for name in ("Python", "packages", "cores", "folder"))
    assert "numpy 2" in findings["packages"].detail
    assert all(finding.advice for finding in findings.values() if finding.ok is False)


def test_two_ranks_are_really_started() -> None:
    if mpi.find_mpiexec() is None:
        pytest.skip("no mpiexec here")
    finding = doctor.mpi()
    assert finding.ok, finding
    assert "2 ranks" in finding.detail
    survives = mpi.launcher_family(str(mpi.find_mpiexec())) is Launcher.OPENMPI
    assert finding.detail.endswith("continues when a rank dies" if survives else "a rank that dies ends the training")


def test_missing_mpiexec_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "find_mpiexec", lambda: None)
    finding = doctor.mpi()
    assert finding.ok is False
    assert "pip install 'rlctl[mpi]'" in finding.advice


def test_launcher_and_library_of_different_mpis_are_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = 'if [ "$1" = --version ]; then echo "HYDRA build details:"; exit; fi; echo size 1 0 X; echo size 1 0 X'
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    (tmp_path / "bin").mkdir()
    program(tmp_path / "bin", "mpiexec", foreign)
    finding = doctor.mpi()
    assert finding.ok is False
    assert "different MPIs" in finding.advice


def test_mpiexec_that_breaks_is_reported_with_its_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = 'if [ "$1" = --version ]; then echo "mpiexec (Open MPI) 5"; exit; fi; echo "Error: no slots" >&2; exit 1'
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    (tmp_path / "bin").mkdir()
    program(tmp_path / "bin", "mpiexec", broken)
    finding = doctor.mpi()
    assert finding.ok is False
    assert "Error: no slots" in finding.detail


def test_gpus_and_slurm_are_read_from_their_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    program(tmp_path, "nvidia-smi", "echo 'GPU 0: NVIDIA H200'")
    program(tmp_path, "sinfo", "echo 'debug* 4 nodes'")
    assert doctor.gpus() == doctor.Finding("GPUs", True, "GPU 0: NVIDIA H200")
    finding = doctor.slurm()
    assert finding.detail == "debug* 4 nodes; outside a job"
    assert "salloc" in finding.advice
    program(tmp_path, "nvidia-smi", "echo 'driver mismatch' >&2; exit 9")
    program(tmp_path, "sinfo", "echo 'unable to contact slurm controller' >&2; exit 1")
    assert doctor.gpus().ok is False
    assert "unable to contact" in doctor.slurm().detail


def test_folder_that_cannot_be_written_is_found(tmp_path: Path) -> None:
    finding = doctor.writable(tmp_path / "missing")
    assert finding.ok is False
    assert "--run" in finding.advice
