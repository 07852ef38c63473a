"""How fast executors are: rlctl's, and others', on the same functions with two workers each.

The systems take turns, each turn in a process of its own with fresh folders, in another order each time round.
Processor time is that of all processes of a system, without its start; memory is the sum of the largest resident
memory of each. A round trip is one call at a time. The journal is SQLite in WAL mode with synchronous=FULL, in the
current folder (``--disk``): choose a real device. Linux only. Peers that are not installed are left out:
``pip install -e '.[bench]'``. The targets are meant for a machine with two cores and nothing else to do.

``python benchmarks/executor.py [--quick] [--json FILE] [--only WORD ...] [--profile]``
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import tree
from peers import SYSTEMS, Colmena, Parsl, Pool, Rlctl, RlctlDurable, System
from rows import Row, machine, parser, report, row

HERE = Path(__file__).parent
PACKAGES = ("numpy", "cloudpickle", "parsl", "colmena", "distributed", "executorlib")
TARGETS: dict[tuple[str, str], tuple[float, bool]] = {
    (Rlctl.name, "cpu_ms"): (0.2, False),
    (RlctlDurable.name, "cpu_ms"): (0.35, False),
    (Rlctl.name, "p50_ms"): (0.5, False),
    (RlctlDurable.name, "p50_ms"): (30.0, False),
    (Rlctl.name, "busy"): (98.0, True),
}
MEASURES = (
    ("cpu_ms", "call: CPU per task", "ms"),
    ("rate", "call: tasks per second", "1/s"),
    ("p50_ms", "call: round trip, median", "ms"),
    ("p99_ms", "call: round trip, p99", "ms"),
    ("peak_mb", "call: peak memory", "MB"),
    ("busy", "sleeps of 50 ms: workers busy", "%"),
    ("program_ms", "function that runs /bin/true: CPU per task", "ms"),
    ("start_s", "start, until both workers have answered", "s"),
)
BEGAN, QUICK_S = time.monotonic(), 110.0
OWN = ("programs", "cancelling", "deaths", "many", "flat", "recovery", "simulated")


def in_turn(program: str, what: str, sizes: str, disk: Path, timeout_s: float) -> object:
    """Run a part in a process of its own, in fresh folders; None if it fails, and nothing of it stays."""
    if timeout_s <= 0.0:
        print(f"{what}: left out, the time of a quick run is over")
        return None
    with (
        tempfile.TemporaryDirectory(prefix="rlctl-bench-", ignore_cleanup_errors=True) as folder,
        tempfile.TemporaryDirectory(prefix=".bench-", dir=disk) as durable,
    ):
        paths = [str(HERE), os.environ.get("PYTHONPATH", "")]
        search = [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "PATH": os.pathsep.join(search),  # Parsl starts its programs by name
            "TMPDIR": folder,
        }
        out, said = Path(folder) / "found.json", Path(folder) / "said"
        command = [sys.executable, str(HERE / program), what, folder, durable, sizes, str(out)]
        with open(said, "w") as file:
            child = subprocess.Popen(
                command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT
            )
            try:
                child.wait(timeout_s)
            except subprocess.TimeoutExpired:
                print(f"{what}: not finished within {timeout_s:g} s", flush=True)
            finally:
                tree.end_all()
                child.wait()
        if what == "profile":
            print(said.read_text())
        if not out.exists():
            print(f"{what}: failed; its last words:", *said.read_text().splitlines()[-8:], sep="\n  ", flush=True)
            return None
        return json.loads(out.read_text())


def compare(systems: list[type[System]], quick: bool, disk: Path) -> list[Row]:
    """The systems by turns."""
    repeats = 1 if quick else 7
    sizes = "500,100,20,20" if quick else "5000,1000,200,200"
    turns: dict[str, list[dict[str, float]]] = {system.name: [] for system in systems}
    for repeat in range(repeats):
        for position in range(len(systems)):
            name = systems[(position + repeat) % len(systems)].name
            found = in_turn("contest.py", name, sizes, disk, _patience_s(quick))
            turns[name].append(found if isinstance(found, dict) else {})
    return [*figures(turns), *ratios(turns)]


def figures(turns: dict[str, list[dict[str, float]]]) -> Iterator[Row]:
    """A row for each measure and system."""
    for key, measure, unit in MEASURES:
        for name, found in turns.items():
            target, least = TARGETS.get((name, key), (None, False))
            if values := [one[key] for one in found if one]:
                yield row(measure, name, values, unit, target, least=least)


def ratios(turns: dict[str, list[dict[str, float]]]) -> Iterator[Row]:
    """Throughput of rlctl in terms of others', each round by itself."""
    for ours in (Rlctl.name, RlctlDurable.name):
        for theirs, target in ((Parsl.name, 4.0), (Colmena.name, 10.0), (Pool.name, None)):
            pairs = zip(turns.get(ours, ()), turns.get(theirs, ()), strict=False)
            if values := [a["rate"] / b["rate"] for a, b in pairs if a and b]:
                yield row(f"call: throughput of {ours}", f"times {theirs}", values, "", target, least=True)


def main() -> None:
    """Measure and print."""
    options = parser(__doc__)
    options.add_argument("--only", nargs="+", metavar="WORD", help=f"systems or measures: {', '.join(OWN)}")
    options.add_argument("--disk", type=Path, default=Path(), help="where journals lie while they are measured")
    options.add_argument("--profile", action="store_true", help="print where the time of a call goes, nothing else")
    arguments = options.parse_args()
    if not tree.PROC.is_dir():
        sys.exit("benchmarks/executor.py reads /proc, which this system does not have: run it on Linux")
    tree.adopt_orphans()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # what was started ends with us
    size, disk = "quick" if arguments.quick else "full", arguments.disk.absolute()
    if arguments.profile:
        in_turn("own.py", "profile", size, disk, 300.0)
        return
    before = machine(PACKAGES)
    print(before, flush=True)
    systems = []
    for system in SYSTEMS:
        if missing := system.missing():
            print(f"{system.name}: left out, it needs {', '.join(missing)}: pip install -e '.[bench]'")
        elif _wanted(system.name, arguments.only):
            systems.append(system)
    own: list[Row] = []
    for measure in OWN:
        if _wanted(measure, arguments.only):
            found = in_turn("own.py", measure, size, disk, _patience_s(arguments.quick))
            own += [Row(**one) for one in found] if isinstance(found, list) else []
    rows = compare(systems, arguments.quick, disk) + own
    report(f"executors, two workers; at the end: {machine()}", rows, arguments.json)
    if missed := [f"{one.measure} ({one.system})" for one in rows if one.met is False]:
        print(f"{len(missed)} below target: {'; '.join(missed)}. Where a call's time goes: --profile")


def _patience_s(quick: bool) -> float:
    """How long the next part may take: what is left of a quick run's two minutes, or half an hour."""
    return max(0.0, BEGAN + QUICK_S - time.monotonic()) if quick else 1800.0


def _wanted(name: str, only: list[str] | None) -> bool:
    return only is None or any(word.lower() in name.lower() for word in only)


if __name__ == "__main__":
    main()
