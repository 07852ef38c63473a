"""One task of a real ensemble.

    python -m rlctl_envs.ensemble.program --jobs jobs.json --task 7 --kind compute --result task7.json
    mpiexec -n 2 python -m rlctl_envs.ensemble.program ... --progress task7.jsonl --checkpoint task7.npz

An ordinary simulation: it knows nothing of rlctl. ``jobs.json`` describes the task: its work in seconds of one rank,
how it scales, where it is stuck, what its result is worth. ``--kind paced`` sleeps for as long as ``scaling_law`` says;
the others compute. SIGTERM makes it write its checkpoint and end; started again with the same checkpoint, on any
number of ranks, it continues from there. Exit codes: 0 done, 1 cannot write, 2 wrong input, 75 stopped.

For tests of executors, the variable RLCTL_ENSEMBLE_FAULT makes it misbehave when half of its work is done:
``hang``, ``die`` (by SIGKILL), ``exit`` (code 9), or ``garbage`` (a result that is no JSON).
"""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from rlctl_envs.simulation_program import ArgumentParser, InputError, run_program, write_whole

STOPPED = 75
FAULT = "RLCTL_ENSEMBLE_FAULT"
SLICE_S = 0.05
"""Between two looks at whether to stop."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    asked = _Asked()
    return run_program("program", _parse, lambda options, comm: EnsembleTask(options, comm, asked).run(), argv)


class _Asked:
    """Whether this rank has been asked to stop."""

    def __init__(self) -> None:
        self.stop = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.stop = True


class EnsembleTask:
    """The work, from where it stands to its end or to a request to stop."""

    def __init__(self, options: argparse.Namespace, comm: Any, asked: _Asked) -> None:
        from rlctl_envs.ensemble.program.hidden_parameters import HiddenParameters
        from rlctl_envs.ensemble.program.kernels import kernel

        self.options, self.comm, self.asked = options, comm, asked
        self.rank = int(comm.rank) if comm is not None else 0
        self.ranks = int(comm.size) if comm is not None else 1
        self.began_s = time.monotonic()
        jobs = _jobs(options.jobs)
        try:
            job = jobs["tasks"][options.task]
            self.truth = HiddenParameters.from_json(job)
            self.serial, self.kappa = float(job["serial"]), float(job["kappa"])
            self.gain = float(job["gain"]) if options.gpu else 1.0
            rate = 1.0 if options.kind == "paced" else float(jobs["units_per_second"][options.kind])
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise InputError(f"{options.jobs}: no task {options.task} of kind {options.kind} ({error!r})") from None
        self.noise, self.seed = float(jobs["noise"]), int(jobs["seed"])
        self.done, start = self._checkpoint()
        self.kernel = None
        if options.kind != "paced":
            memory_mb = float(job["memory_mb"])
            self.kernel = kernel(options.kind, self.serial, memory_mb, self.seed, comm, start)
        self.units = self.truth.work_s * rate
        rate = float(jobs["failures_per_rank_s"]) * self.ranks
        luck = self.truth.luck[options.attempt % len(self.truth.luck)]
        self.dies_s = luck / rate if rate > 0.0 else float("inf")

    def run(self) -> int:
        """Work to the end, or until asked to stop; returns the exit code."""
        fault = os.environ.get(FAULT, "")
        reported_s = saved_s = time.monotonic()
        while self.done < 1.0:
            self._some()
            if fault and self.done >= 0.5 and fault != "garbage":
                _misbehave(fault, self.rank)
            now_s = time.monotonic()
            if now_s - self.began_s > self.dies_s:
                os.kill(os.getpid(), signal.SIGSEGV)
            if self._anybody(self.asked.stop):
                self._save()
                return STOPPED
            due = self._agreed(now_s - saved_s >= self.options.checkpoint_s)
            if due:
                self._save()
                saved_s = now_s
            if self.rank == 0 and self.options.progress is not None and now_s - reported_s >= self.options.report_s:
                reported_s = now_s
                self._report()
        if self.rank == 0:
            write_whole(self.options.result, self._result(fault == "garbage").encode())
            if self.options.checkpoint is not None:
                self.options.checkpoint.unlink(missing_ok=True)
        return 0

    def _some(self) -> None:
        """Do a slice of the work; traps take time without work."""
        from rlctl_envs.ensemble.program.scaling_law import seconds

        whole_s = seconds(self.truth.work_s, self.ranks, self.serial, self.kappa, self.gain)
        whole_s *= self.truth.slowness[self.options.attempt % len(self.truth.slowness)]
        if self.kernel is None:
            passed_s = self._passed_s()
            self.done = max(self.done, self.truth.reached(self.start, passed_s / whole_s))
            left_s = self.truth.time_at(self.start, 1.0) * whole_s - passed_s
            time.sleep(min(SLICE_S, max(left_s, 0.0)))
            if left_s <= 1e-9:
                self.done = 1.0
            return
        share = min(SLICE_S / whole_s, 1.0 - self.done)
        stuck_s = whole_s * (self.truth.time_at(self.done, self.done + share) - share)
        self.kernel.run(self.units * share)
        if stuck_s > 0.0:
            end_s = time.monotonic() + stuck_s
            while time.monotonic() < end_s and not self.asked.stop:
                time.sleep(min(SLICE_S, max(end_s - time.monotonic(), 0.0)))
        self.done = 1.0 if self.done + share > 1.0 - 1e-9 else self.done + share

    def _passed_s(self) -> float:
        """Seconds since the work began, the same on all ranks."""
        passed_s = time.monotonic() - self.work_began_s
        return passed_s if self.comm is None else float(self.comm.bcast(passed_s))

    def _anybody(self, yes: bool) -> bool:
        if self.comm is None:
            return yes
        from mpi4py import MPI

        return bool(self.comm.allreduce(yes, op=MPI.LOR))

    def _agreed(self, yes: bool) -> bool:
        """The first rank's answer; no without checkpoints."""
        if self.options.checkpoint is None or self.comm is None:
            return yes and self.options.checkpoint is not None
        return bool(self.comm.bcast(yes))

    def _checkpoint(self) -> tuple[float, Any]:
        """The share that is done, and what the kernel needs to go on."""
        import numpy as np

        found: tuple[float, Any] = (0.0, None)
        path = self.options.checkpoint
        if self.rank == 0 and path is not None and path.exists():
            try:
                with np.load(path) as saved:
                    found = float(saved["done"]), saved.get("state")
            except Exception as error:  # a damaged file must not stop the work
                print(f"program: {path}: damaged ({error}); beginning anew", file=sys.stderr)
        if self.comm is not None:
            found = self.comm.bcast(found)
        self.start, self.work_began_s = found[0], time.monotonic()
        return found

    def _save(self) -> None:
        import numpy as np

        if self.options.checkpoint is None:
            return
        state = self.kernel.gather() if self.kernel is not None else None
        if self.rank == 0:
            data = io.BytesIO()
            saved: dict[str, Any] = {"done": self.done} | ({} if state is None else {"state": state})
            np.savez(data, **saved)
            write_whole(self.options.checkpoint, data.getvalue())

    def _report(self) -> None:
        from rlctl_envs.ensemble.program.hidden_parameters import quality_signal as value

        quality = value(self.seed, self.options.task, self.done, self.truth.quality, self.noise)
        line = {"fraction": self.done, "elapsed_s": time.monotonic() - self.began_s, "value": quality}
        with self.options.progress.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def _result(self, garbage: bool) -> str:
        if garbage:
            return '{"quality": \x00'
        result = {
            "children": list(self.truth.children),
            "quality": self.truth.quality,
            "ranks": self.ranks,
            "seconds": time.monotonic() - self.began_s,
        }
        return json.dumps(result)


def _misbehave(fault: str, rank: int) -> None:
    if fault == "hang":
        signal.pause()
    if fault == "die" and rank == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "exit":
        os._exit(9)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(prog="program", description="One task of an ensemble.")
    parser.add_argument("--jobs", type=Path, required=True, help="what the tasks are, JSON")
    parser.add_argument("--task", type=int, required=True, help="number of the task")
    parser.add_argument("--attempt", type=int, default=0, help="which of its attempts")
    kinds = ("paced", "compute", "communication", "memory", "film")
    parser.add_argument("--kind", choices=kinds, required=True)
    parser.add_argument("--gpu", action="store_true", help="run as fast as with a GPU for each rank")
    parser.add_argument("--result", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--progress", type=Path, help="file to append reports to")
    parser.add_argument("--report-s", type=float, default=1.0, help="seconds between reports")
    parser.add_argument("--checkpoint", type=Path, help="file to go on from, and to write")
    parser.add_argument("--checkpoint-s", type=float, default=60.0, help="seconds between checkpoints")
    options = parser.parse_args(argv)
    if options.task < 0 or options.attempt < 0 or options.report_s <= 0.0 or options.checkpoint_s <= 0.0:
        raise InputError("--task, --attempt from 0; --report-s and --checkpoint-s above 0; see --help")
    if not options.result.absolute().parent.is_dir():
        raise InputError(f"no folder {options.result.absolute().parent} to write {options.result.name} into")
    return options


def _jobs(path: Path) -> dict[str, Any]:
    try:
        jobs = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    if not isinstance(jobs, dict):
        raise InputError(f"{path}: no table of tasks")
    return jobs


if __name__ == "__main__":
    sys.exit(main())
