"""The simulation program as a user meets it: real processes, real files, real MPI."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys

import numpy as np
import pytest

from rlctl.system.mpi import clean_environment, find_mpiexec, mpiexec_command
from rlctl_envs.block_copolymer import calibrate
from rlctl_envs.block_copolymer.field import (
    advance,
    generators,
    initial,
    measure,
    structure_factor,
    to_field,
    to_spectrum,
)
from rlctl_envs.block_copolymer.material import Material

MATERIAL = Material.draw(3)
PROGRAM = [sys.executable, "-m", "rlctl_envs.block_copolymer.simulate"]
needs_mpi = pytest.mark.skipif(find_mpiexec() is None, reason="no mpiexec in this environment")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "m.json").write_text(json.dumps(MATERIAL.to_json()))
    return tmp_path


def run(folder, *more, ranks=1, fault="", timeout=60, largest_file=None, **options):
    given = {"material": "m.json", "temperature": 1.2, "steps": 40, "grid": 32, "seed": 5}
    given |= {"restart_out": "f.npz", "result": "r.json"} | options
    arguments = [text for key, value in given.items() for text in (f"--{key.replace('_', '-')}", str(value))]
    environment = clean_environment(os.environ)
    if fault:
        environment["RLCTL_SIMULATE_FAULT"] = fault
    launcher = mpiexec_command(ranks) if ranks > 1 else []
    return subprocess.run(
        [*launcher, *PROGRAM, *arguments, *more],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        preexec_fn=largest_file and (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))),
    )


def film(folder, name="f.npz"):
    with np.load(folder / name, allow_pickle=False) as archive:
        return archive["field"]


def test_program_computes_the_film_and_says_what_it_measured(folder):
    done = run(folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    noise, _, start = generators(5)
    assert (
        np.abs(film(folder) - to_field(advance(initial(MATERIAL, 32, start), MATERIAL, 1.2, 40, noise))).max() < 1e-12
    )
    result = json.loads((folder / "r.json").read_text())
    assert set(result) == {
        *("q", "amplitude", "bands", "wavenumber", "good", "temperature", "steps", "grid", "ranks"),
        *("structure_factor", "seconds"),
    }
    assert (result["temperature"], result["steps"], result["grid"], result["ranks"]) == (1.2, 40, 32, 1)
    seconds = result["seconds"]
    assert set(seconds) == {"start_up", "read", "compute", "write", "total"}
    assert all(value >= 0.0 for value in seconds.values())
    assert seconds["total"] >= seconds["start_up"] + seconds["compute"]
    assert 0.0 < seconds["start_up"] < 30.0
    assert sorted(p.name for p in folder.iterdir()) == ["f.npz", "m.json", "r.json"]


@needs_mpi
@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("noise", [(), ("--no-noise",)], ids=["noise", "no noise"])
def test_film_does_not_depend_on_the_number_of_ranks(folder, ranks, noise):
    """Grid 50 makes uneven slabs."""
    assert run(folder, *noise, grid=50, restart_out="one.npz").returncode == 0
    many = run(folder, *noise, grid=50, ranks=ranks, restart_out="many.npz", result="many.json")
    assert many.returncode == 0, many.stderr
    assert np.std(film(folder, "one.npz")) > 1e-3
    assert np.abs(film(folder, "many.npz") - film(folder, "one.npz")).max() < 1e-10
    one, other = (json.loads((folder / name).read_text()) for name in ("r.json", "many.json"))
    assert other["ranks"] == ranks
    assert other["q"] == pytest.approx(one["q"], abs=1e-9)


@needs_mpi
def test_more_ranks_than_columns_leave_some_without_work(folder):
    """17 columns on 18 ranks."""
    assert run(folder, steps=3, restart_out="one.npz").returncode == 0
    many = run(folder, steps=3, ranks=18)
    assert many.returncode == 0, many.stderr
    assert np.abs(film(folder) - film(folder, "one.npz")).max() < 1e-10


def test_restart_goes_on_as_one_long_run_would_have(folder):
    assert run(folder, "--no-noise", steps=120, restart_out="long.npz").returncode == 0
    assert run(folder, "--no-noise", steps=50, restart_out="half.npz").returncode == 0
    assert run(folder, "--no-noise", steps=70, restart_in="half.npz").returncode == 0
    assert np.abs(film(folder) - film(folder, "long.npz")).max() < 1e-12


def test_a_film_can_be_its_own_restart_file(folder):
    assert run(folder).returncode == 0
    before = film(folder)
    assert run(folder, restart_in="f.npz").returncode == 0
    assert np.abs(film(folder) - before).max() > 1e-3


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=needs_mpi)])
def test_the_result_is_what_the_restart_file_measures_in_a_deep_well(folder, ranks):
    """Where rounding errors that no field holds once grew until they were all that was measured: Q 1, and "good"."""
    material = Material(1.8, 1.5, 0.25, 2.4, 0.03, 0.05, 1.0)
    (folder / "m.json").write_text(json.dumps(material.to_json()))
    for steps, before in ((160, {}), (320, {"restart_in": "f.npz"})):
        assert run(folder, temperature=1.0, grid=64, steps=steps, ranks=ranks, **before).returncode == 0
        result = json.loads((folder / "r.json").read_text())
        c_hat = to_spectrum(film(folder))
        expected = measure(c_hat, material, generators(5)[1])
        for name, value in expected.items():
            assert result[name] == pytest.approx(value, abs=1e-9), name
        assert result["structure_factor"] == pytest.approx(structure_factor(c_hat), abs=1e-9)


def test_a_full_disk_leaves_the_old_restart_file_whole(folder):
    assert run(folder).returncode == 0
    before = (folder / "f.npz").read_bytes()
    done = run(folder, steps=5, restart_in="f.npz", largest_file=4000)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert (folder / "f.npz").read_bytes() == before
    assert sorted(p.name for p in folder.iterdir()) == ["f.npz", "m.json", "r.json"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"restart_in": "missing.npz"},
        {"restart_in": "garbage.npz"},
        {"restart_in": "half.npz"},
        {"restart_in": "pickle.npz"},
        {"restart_in": "m.json"},
        {"restart_in": "other.npz"},
        {"temperature": 2.5},
        {"temperature": "nan"},
        {"temperature": "warm"},
        {"grid": 33},
        {"grid": 1024},
        {"steps": 0},
        {"seed": -1},
        {"material": "missing.json"},
        {"material": "garbage.npz"},
        {"result": "nowhere/r.json"},
    ],
    ids=lambda wrong: "=".join(map(str, *wrong.items())),
)
def test_wrong_input_ends_with_code_2_and_one_line(folder, wrong):
    (folder / "garbage.npz").write_bytes(b"\x80\x04no archive")
    np.savez(folder / "other.npz", field=np.zeros((64, 64)))
    np.savez(folder / "pickle.npz", field=np.array([{"a": 1}], dtype=object))
    (folder / "half.npz").write_bytes((folder / "other.npz").read_bytes()[:2000])
    done = run(folder, **wrong)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("simulate: ")
    assert done.stderr.count("\n") == 1
    assert not (folder / "f.npz").exists()
    assert not (folder / "r.json").exists()


@needs_mpi
def test_wrong_input_ends_all_ranks(folder):
    done = run(folder, ranks=2, restart_in="missing.npz")
    assert done.returncode == 2
    assert done.stderr.count("simulate: ") == 1


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=needs_mpi)])
def test_a_solution_that_diverges_ends_with_code_3_and_leaves_no_file(folder, ranks):
    done = run(folder, fault="diverge", ranks=ranks)
    assert done.returncode == 3
    assert done.stderr.splitlines()[0].startswith("simulate: the solution diverged")
    assert not (folder / "f.npz").exists()
    assert not (folder / "r.json").exists()


def test_a_film_that_really_blows_up_is_noticed(folder):
    np.savez(folder / "wild.npz", field=1e4 * np.cos(np.arange(32.0 * 32.0)).reshape(32, 32))
    assert run(folder, restart_in="wild.npz").returncode == 3


def test_fault_die_is_a_death_by_signal(folder):
    assert run(folder, fault="die").returncode == -signal.SIGKILL


def test_fault_hang_never_ends(folder):
    with pytest.raises(subprocess.TimeoutExpired):
        run(folder, fault="hang", timeout=2)


def test_fault_garbage_looks_like_success_with_a_result_that_cannot_be_read(folder):
    assert run(folder, fault="garbage").returncode == 0
    with pytest.raises(json.JSONDecodeError):
        json.loads((folder / "r.json").read_text())


def test_one_process_starts_without_mpi_and_other_heavy_libraries(folder):
    arguments = "--material m.json --temperature 1.2 --steps 2 --grid 32 --seed 1 --restart-out f.npz --result r.json"
    command = [sys.executable, "-X", "importtime", "-m", "rlctl_envs.block_copolymer.simulate", *arguments.split()]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "numpy" in loaded
    assert not loaded & {"mpi4py", "scipy", "torch", "numba", "psutil", "gymnasium", "rlctl"}


def test_calibration_recovers_the_durations_that_it_is_given():
    timings = [
        calibrate.Timing(256, ranks, steps, start + step * steps, step * steps)
        for ranks, start, step in ((1, 0.1, 0.004), (2, 0.3, 0.002))
        for steps in (40, 80, 160)
    ]
    (model,) = calibrate.fit(timings)
    assert model.start_up_s == pytest.approx({1: 0.1, 2: 0.3})
    assert model.step_s == pytest.approx({1: 0.004, 2: 0.002})
    assert model.scatter == pytest.approx(0.0, abs=1e-9)
    assert "100 steps" in calibrate.table(timings, [model])


@needs_mpi
def test_calibration_times_the_real_program(tmp_path, capsys):
    file = tmp_path / "c.json"
    assert calibrate.main(["--grids", "32", "--steps", "5,20", "--repeats", "1", "--json", str(file)]) == 0
    (model,) = json.loads(file.read_text())
    assert set(model) == {"grid", "start_up_s", "step_s", "scatter"}
    assert set(model["start_up_s"]) == set(model["step_s"]) == {"1", "2"}
    assert 0.01 < model["start_up_s"]["1"] < 30.0
    assert "start_up_s" in capsys.readouterr().out
