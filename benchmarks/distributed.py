"""How well ranks are used: actors that nobody waits for, against environments that step together.

All systems step the same environments, which sleep for times that were drawn beforehand; they take turns in every
round. A step's CPU is that of the learner's process. ``--quick`` leaves out 64 environments, and makes fewer and
shorter rounds.

``python benchmarks/distributed.py [--quick] [--json FILE] [--only WORD ...]``
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import yaml
from rows import Row, machine, parser, report, row

from rlctl.distributed.launch import launcher, stale_shm
from rlctl.executors.event_log import Journal

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[1]
PACKAGES = ("numpy", "torch", "stable-baselines3", "gymnasium", "mpi4py")
OURS, WINDOW, IN_STEP = "actors", "actors, weights in a window", "lock-step"
PEERS = ("SubprocVecEnv", "AsyncVectorEnv")
MEAN_S = 0.2
PARTS = ("lognormal", "constant", "transport", "window", "cartpole", "slots", "virtual")
Figures = dict[str, float]


def main() -> None:
    """Measure, interleaved, and print medians with the range."""
    options = parser(__doc__)
    options.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="WORD", help=", ".join(PARTS))
    chosen = options.parse_args()
    quick: bool = chosen.quick
    rows: list[Row] = []
    made = {
        "lognormal": lognormal,
        "constant": constant,
        "transport": transport,
        "window": window,
        "cartpole": cartpole,
        "slots": slots,
        "virtual": virtual,
    }
    for name in chosen.only:
        began_s = time.monotonic()
        rows += made[name](quick)
        print(f"{name}: {time.monotonic() - began_s:.0f} s, load {os.getloadavg()[0]:.2f}", file=sys.stderr, flush=True)
    if quick:
        print("left out by --quick: 64 environments, and rounds after the first")
    report(machine(PACKAGES), rows, chosen.json)


def lognormal(quick: bool) -> list[Row]:
    """Durations with sigma 1."""
    rows = []
    for count, ideal, factor in ((16, 0.95, 4.0),) if quick else ((16, 0.95, 4.0), (64, 0.90, 6.0)):
        found = stepped((OURS, *PEERS), count, "lognormal", MEAN_S, 15.0 if quick else 20.0, 1 if quick else 3)
        name = f"log-normal 0.2 s, {count} environments"
        for system, runs in found.items():
            busy = [one["busy"] for one in runs]
            rows.append(row(f"{name}: share of ideal", system, busy, "", ideal if system == OURS else None, least=True))
        for peer in PEERS:
            times = [a["busy"] / b["busy"] for a, b in zip(found[OURS], found[peer], strict=True)]
            rows.append(row(f"{name}: times", f"{OURS} / {peer}", times, "", factor, least=True))
        rows.append(row(f"{name}: lag, policies", OURS, [one["lag"] for one in found[OURS]], ""))
        for system, runs in found.items():
            rows.append(row(f"{name}: learner's CPU", system, [100 * one["core"] for one in runs], "% of a core"))
    return rows


def constant(quick: bool) -> list[Row]:
    """Durations that are all alike: nothing is to be gained, and nothing should be lost."""
    systems = (OURS, IN_STEP, *PEERS)
    found = stepped(systems, 16, "constant", MEAN_S, 10.0 if quick else 12.0, 1 if quick else 3)
    name = "constant 0.2 s, 16 environments"
    rows = [row(f"{name}: share of ideal", system, [one["busy"] for one in found[system]], "") for system in systems]
    for peer in systems[1:]:
        times = [a["busy"] / b["busy"] for a, b in zip(found[OURS], found[peer], strict=True)]
        rows.append(row(f"{name}: times", f"{OURS} / {peer}", times, "", 1.0, least=True))
    return rows


def transport(quick: bool) -> list[Row]:
    """What a transition costs the learner, updates apart."""
    rows = []
    for count, mean_s, what in ((8, 0.002, "2 ms, 8 actors"), (16, 0.02, "20 ms, 16 actors")):
        found = stepped((OURS,), count, "constant", mean_s, 5.0 if quick else 10.0, 1 if quick else 3)[OURS]
        rows.append(row("learner's transport CPU per transition", what, [one["cpu_us"] for one in found], "us", 50.0))
        rows.append(row("transitions per second", what, [one["rate"] for one in found], "1/s"))
    return rows


def window(quick: bool) -> list[Row]:
    """Weights with each acknowledgement, against weights that actors read from the learner's memory."""
    rows = []
    for count in (4, 16) if quick else (4, 16, 64):
        found = stepped((OURS, WINDOW), count, "lognormal", 0.05, 5.0 if quick else 8.0, 1 if quick else 3)
        name = f"weights, {count} actors"
        for system, runs in found.items():
            rows.append(row(f"{name}: lag, policies", system, [one["lag"] for one in runs], ""))
            cpu = [1e3 * one["core"] * one["published_s"] for one in runs]
            rows.append(row(f"{name}: learner's CPU per policy", system, cpu, "ms"))
            rows.append(row(f"{name}: share of ideal", system, [one["busy"] for one in runs], ""))
    return rows


def cartpole(quick: bool) -> list[Row]:
    """PPO on CartPole with eight environments: from the first step to the last update, with starts, and the score."""
    config = yaml.safe_load((ROOT / "configs" / "cartpole.yaml").read_text())["train"]["options"]
    own, ours = "Stable-Baselines3, 8 environments", "rlctl, 8 actors"
    found: dict[str, list[Figures]] = {own: [], ours: []}
    for seed in range(1, 2 if quick else 4):
        arguments = ["100000", str(seed), json.dumps(config)]
        found[own].append(timed([sys.executable, str(HERE / "cartpole.py"), *arguments]))
        found[ours].append(trained(seed))
    rows = []
    for key, what in (("wall_s", "training"), ("process_s", "whole command")):
        for system, runs in found.items():
            rows.append(row(f"CartPole 100k, {what}: wall", system, [one[key] for one in runs], "s"))
        ratio = [a[key] / b[key] for a, b in zip(found[ours], found[own], strict=True)]
        rows.append(row(f"CartPole 100k, {what}: wall / Stable-Baselines3", ours, ratio, "", 1.2))
    for system, runs in found.items():
        rows.append(row("CartPole 100k: score", system, [one["score"] for one in runs], "", 475.0, least=True))
    return rows


def trained(seed: int) -> Figures:
    """``rlctl train`` on CartPole."""
    with tempfile.TemporaryDirectory(prefix="rlctl-bench-") as folder:
        config, out = str(ROOT / "configs" / "cartpole.yaml"), f"{folder}/run"
        rlctl = [sys.executable, "-m", "rlctl"]
        sets = [f"--set=seed={seed}", "--set=train.decisions=100000", "--set=train.validation_instances=0"]
        began_s = time.monotonic()
        said = output([*rlctl, "train", config, f"--out={out}", "--ranks=9", *sets], both=True)
        process_s = time.monotonic() - began_s
        done = re.findall(r"([\d,]+) of [\d,]+ decisions, ([\d,]+)/s, took", said)[-1]
        decisions, rate = (float(number.replace(",", "")) for number in done)
        play = [*rlctl, "evaluate", config, f"--policy={out}/policy", "--against=random", "--instances=20", "--json"]
        score = json.loads(output(play))["rows"][0]["mean"]
    return {"wall_s": decisions / rate, "process_s": process_s, "score": score}


def slots(quick: bool) -> list[Row]:
    """Block-copolymer campaigns of real processes on two actors with a core each: when did simulations run?"""
    busy = []
    for seed in range(1, 2 if quick else 4):
        with tempfile.TemporaryDirectory(prefix="rlctl-bench-") as name:
            folder = Path(name)
            config = folder / "config.yaml"
            config.write_text(SLOTS.format(seed=seed, allocation_s=30 if quick else 60, decisions=16 if quick else 64))
            timed([sys.executable, "-m", "rlctl", "train", str(config), f"--out={folder}/run", "--ranks=3", "--json"])
            busy.append(100.0 * slot_time(folder / "run" / "simulations"))
    return [row("slot time with a simulation in it, 2 slots", "block-copolymer", busy, "%", 95.0, least=True)]


SLOTS = """
schema: 1
seed: {seed}
campaign:
  name: block_copolymer
  options:
    films: 64
    chains: 1
    allocation_s: {allocation_s}
    steps: [1600, 3200]
    ranks: [1]
    program: {{grid: 256, start_up_s: {{1: 0.25}}, step_s: {{1: 0.001}}, walltime_s: 60.0}}
machine: {{nodes: 1, cores: 1}}
train:
  decisions: {decisions}
  validation_instances: 0
  distributed: {{simulations: executor, keep_simulations: true, chunk_steps: 8, chunk_s: 5.0}}
  options: {{n_steps: 8, batch_size: 16, net_arch: [32]}}
"""


def slot_time(folder: Path) -> float:
    """Share of the time from an actor's first simulation to the end of its last one in which one of them ran."""
    ran_s = there_s = 0.0
    for actor in sorted(folder.iterdir()):
        spans = [span for path in actor.glob("*/*/journal.db") for span in simulations(path)]
        ran_s += sum(ended_s - began_s for began_s, ended_s in spans)
        there_s += max(ended_s for _, ended_s in spans) - min(began_s for began_s, _ in spans)
    return ran_s / there_s


def simulations(path: Path) -> list[tuple[float, float]]:
    """When the simulations of an episode with one slot began and ended, as the wall clock has it.

    One without a result (it diverged, or was stopped when the allocation ended) ended when the next one was submitted.
    """
    with contextlib.closing(Journal.open(path, read_only=True)) as journal:
        records = journal.records(kinds=["submitted", "event"])
    began = {record.data["uid"]: record.time_s for record in records if record.data.get("state") == "running"}
    results = {uid: path.parent / "work" / f"{uid}.json" for uid in began}
    told = {uid: (file.stat().st_mtime, json.loads(file.read_text())) for uid, file in results.items() if file.exists()}
    origin_s = statistics.median(end - found["seconds"]["total"] - began[uid] for uid, (end, found) in told.items())
    submitted = sorted(origin_s + record.time_s for record in records if record.kind == "submitted")
    spans = []
    for uid, time_s in began.items():
        later = [at for at in submitted if at > origin_s + time_s]
        ended_s = told[uid][0] if uid in told else min(later, default=path.stat().st_mtime)
        spans.append((origin_s + time_s, ended_s))
    return spans


def virtual(quick: bool) -> list[Row]:
    """1,024 actors that are not there."""
    rows = []
    for mean_s in (10.0, 0.3, 0.05, 0.02):
        runs = []
        for _ in range(1 if quick else 3):
            text = output(
                [sys.executable, str(HERE / "virtual.py"), "1024", str(mean_s), "30000" if quick else "100000"]
            )
            runs.append(json.loads(text))
        what = f"steps of {mean_s:g} s"
        rows.append(row("1,024 virtual actors: rate / ideal", what, [one["rate"] / one["ideal"] for one in runs], ""))
        rows.append(row("1,024 virtual actors: learner idle", what, [100 * one["idle"] for one in runs], "%"))
        cost = [one["update_us"] + one["other_us"] for one in runs]
        rows.append(row("1,024 virtual actors: learner's time per transition", what, cost, "us"))
    rows.sort(key=lambda one: one.measure)
    full = [one["rate"] for one in runs]
    rows.append(row("transitions per second at saturation, so n <= E[T] times", "virtual actors", full, "1/s"))
    return rows


def stepped(
    systems: tuple[str, ...], count: int, kind: str, mean_s: float, seconds: float, rounds: int
) -> Mapping[str, list[Figures]]:
    """The figures of each system and round, taken in turns."""
    found: dict[str, list[Figures]] = {system: [] for system in systems}
    for number in range(rounds):
        for system in systems[number % len(systems) :] + systems[: number % len(systems)]:
            command = [sys.executable, str(HERE / "stepping.py"), system, str(count), kind, str(mean_s), str(seconds)]
            on_ranks = count + 1 if system in (OURS, WINDOW, IN_STEP) else 0
            one = json.loads(output(command, on_ranks))
            one["published_s"] = seconds / one.get("published", 1.0)
            found[system].append(one)
    return found


def timed(command: list[str]) -> Figures:
    """What it prints, if that is figures, and ``process_s``, its wall time."""
    began_s = time.monotonic()
    text = output(command)
    wall_s = time.monotonic() - began_s
    try:
        found = {key: float(value) for key, value in json.loads(text).items()}
    except (ValueError, TypeError):
        found = {}
    return {**found, "process_s": wall_s}


def output(command: list[str], ranks: int = 0, both: bool = False) -> str:
    """What a program prints, on so many MPI ranks if any; it ends with this one, and nothing of it stays.

    Args:
        both: what it says to standard error, too.
    """
    with started(command, ranks, both) as process:
        text, _ = process.communicate(timeout=900)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}")
    return text


@contextlib.contextmanager
def started(command: list[str], ranks: int, both: bool) -> Iterator[subprocess.Popen[str]]:
    """A process in a session of its own, which is ended with it."""
    before = stale_shm.present()
    with tempfile.TemporaryDirectory(prefix="rlctl-") as scratch:
        environment = {
            **os.environ,
            "SB3_LOGDIR": scratch,
            "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]),
        }
        if ranks:
            start = launcher.prepare(ranks, launcher.LauncherName.MPIEXEC, Path(scratch))
            command, environment = [*start.command, *command], {**environment, **start.environment}
        errors = subprocess.STDOUT if both else None
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            command, env=environment, stdout=pipe, stderr=errors, text=True, start_new_session=True
        )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM if process.poll() is None else 0)
            process.wait(30)
            stale_shm.remove_since(before)


if __name__ == "__main__":
    main()
