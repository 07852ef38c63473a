"""Draws an instance: its tasks as submitted, and their hidden parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlctl.core.machine import Capacity
from rlctl.core.simulation import Outage
from rlctl_envs.ensemble.job_request import GpuUse, JobRequest
from rlctl_envs.ensemble.options import EnsembleOptions
from rlctl_envs.ensemble.program.hidden_parameters import WORTH, HiddenParameters
from rlctl_envs.ensemble.program.scaling_law import loss, seconds
from rlctl_envs.ensemble.workload_options import Range
from rlctl_envs.ensemble.workloads.logged import LoggedJob, window
from rlctl_envs.ensemble.workloads.lublin import lublin

ATTEMPTS = 8
"""Attempts whose luck is drawn beforehand; later ones have that of the first ones again."""


@dataclass(frozen=True, slots=True)
class TaskKind:
    """How tasks of a kind scale; see ``program/scaling_law.py``."""

    serial: float
    kappa: float
    gain: float
    gpu: GpuUse
    resizable: bool


@dataclass(frozen=True, slots=True)
class Workload:
    """An instance: every task that there will be, as submitted and as it is."""

    jobs: tuple[JobRequest, ...]
    truths: tuple[HiddenParameters, ...]
    kinds: tuple[TaskKind, ...]
    spread: float
    error: float
    traps: float

    @classmethod
    def draw(cls, options: EnsembleOptions, seed: int) -> Workload:
        """The instance ``seed``; what a task brings forth does not depend on when or how it runs."""
        w = options.workload
        rng = np.random.default_rng(np.random.SeedSequence([seed, 0xE75E]))
        spread, error, traps = (_uniform(rng, r) for r in (w.spread, w.error, w.trouble.traps_per_work))
        trap_work = _uniform(rng, w.trouble.trap_work)
        kinds = _kinds(rng, options)
        initial = int(rng.integers(w.tasks[0], w.tasks[1] + 1))
        rigid = options.rigid is not None
        parents: list[int | None] = [None] * initial
        children: list[tuple[int, ...]] = []
        while len(children) < len(parents):
            spawns = rng.random() < w.spawn_probability and len(parents) < w.most_tasks and not rigid
            children.append((len(parents),) if spawns else ())
            parents += [len(children) - 1] * spawns
        count = len(parents)
        kind = rng.integers(len(kinds), size=count)
        works = w.work_s * np.exp(spread * rng.standard_normal(count))
        logged = _logged(rng, seed, options, count)
        sizes = [job.ranks if rigid else _nearest(options.ranks, job.ranks) for job in logged]
        arrives = np.zeros(count)
        for i, job in enumerate(logged):
            if job.application >= 0 or job.user >= 0:
                kind[i] = job.kind % len(kinds)
            k = kind[i]
            works[i] = job.run_s * sizes[i] / loss(sizes[i], kinds[k].serial, kinds[k].kappa)
            arrives[i] = job.submit_s - logged[0].submit_s if i < initial and w.load == 0.0 else 0.0
        estimates = works * np.exp(error * rng.standard_normal(count))
        for i, job in enumerate(logged):
            if job.estimate_s is not None:
                estimates[i] = job.estimate_s if rigid else works[i] * job.estimate_s / job.run_s
        belief = np.exp(w.gpus.told * rng.standard_normal(len(kinds)))
        requested = rng.choice(options.ranks, size=count)
        requested[: len(sizes)] = sizes
        memory = _log_uniform(rng, w.memory_mb, count) if w.memory_mb.high > 0.0 else np.zeros(count)
        priorities = rng.integers(w.priorities + 1, size=count)
        due = rng.uniform(w.deadline.low, w.deadline.high, count) if w.deadline.high > 0.0 else np.zeros(count)
        offered = np.zeros(count)
        if w.load > 0.0:
            offered[:initial] = np.cumsum(rng.exponential(size=initial)) * float(np.mean(works)) / w.load
        depends = rng.random(count) < w.depend_probability
        earlier = rng.random(count)
        worth = rng.random(count) < w.quality
        quality = np.where(worth, rng.uniform(WORTH, 1.0, count), rng.uniform(0.0, WORTH, count))
        slowness = np.exp(w.trouble.scatter * rng.standard_normal((count, ATTEMPTS)))
        luck = rng.exponential(size=(count, ATTEMPTS))
        stuck = rng.poisson(traps, count)
        jobs, truths = [], []
        for i in range(count):
            k = kinds[kind[i]]
            first = i < initial and i > 0 and bool(depends[i])
            jobs.append(
                JobRequest(
                    number=i,
                    kind=int(kind[i]),
                    estimate_s=float(estimates[i]),
                    requested_ranks=int(requested[i]),
                    gpu=k.gpu,
                    gain=max(1.0, k.gain * float(belief[kind[i]])) if k.gpu is not GpuUse.NO else 1.0,
                    memory_mb=float(memory[i]),
                    resizable=k.resizable,
                    priority=int(priorities[i]),
                    after=(int(earlier[i] * i),) if first else (),
                    parent=parents[i],
                    arrives=float(arrives[i]),
                    offered=float(offered[i]),
                    due=float(due[i]),
                    submit_s=logged[i].submit_s if rigid else 0.0,
                )
            )
            at = sorted(rng.random(stuck[i]).tolist()) if stuck[i] else []
            lengths = rng.exponential(trap_work, len(at)).tolist() if at else []
            truths.append(
                HiddenParameters(
                    float(works[i]),
                    children[i],
                    tuple(zip(at, lengths, strict=True)),
                    float(quality[i]),
                    tuple(slowness[i].tolist()),
                    tuple(luck[i].tolist()),
                )
            )
        return cls(tuple(jobs), tuple(truths), kinds, spread, error, traps)

    def duration_s(self, number: int, ranks: int, gpu: bool = False) -> float:
        """Seconds that a task takes on so many ranks, if nothing goes wrong."""
        kind = self.kinds[self.jobs[number].kind]
        gain = kind.gain if gpu else 1.0
        return seconds(self.truths[number].work_s, ranks, kind.serial, kind.kappa, gain)

    def to_json(self, options: EnsembleOptions, seed: int, units_per_second: Mapping[str, float]) -> dict[str, Any]:
        """What the programs of real tasks read."""
        tasks = []
        for job, truth in zip(self.jobs, self.truths, strict=True):
            kind = self.kinds[job.kind]
            scaling = {"serial": kind.serial, "kappa": kind.kappa, "gain": kind.gain, "memory_mb": job.memory_mb}
            tasks.append({**asdict(truth), **scaling})
        return {
            "seed": seed,
            "noise": options.workload.noise,
            "failures_per_rank_s": options.workload.trouble.failures_per_rank_s,
            "units_per_second": dict(units_per_second),
            "tasks": tasks,
        }

    def as_array(self, options: EnsembleOptions) -> NDArray[np.float32]:
        """Hidden quantities, [10], each number about within -1 to 1."""
        work = sum(truth.work_s for truth in self.truths)
        estimated = sum(job.estimate_s for job in self.jobs)
        stuck = sum(length for truth in self.truths for _, length in truth.traps)
        return np.array(
            [
                np.mean([math.log10(kind.serial) for kind in self.kinds]) + 2.0,
                4.0 * np.mean([kind.kappa for kind in self.kinds]) - 1.0,
                2.0 * self.spread - 2.3,
                3.0 * self.error - 1.2,
                math.log10(work / estimated),
                math.log10(work / (options.workload.work_s * sum(options.workload.tasks))),
                np.mean([math.log10(kind.gain) for kind in self.kinds]),
                math.log1p(stuck / len(self.truths)) - 0.5,
                math.log10(max(truth.work_s for truth in self.truths) / options.workload.work_s) - 1.0,
                math.log10(len(self.truths) / sum(options.workload.tasks)) + 0.2,
            ],
            np.float32,
        )


def bound_s(workload: Workload, ranks: Sequence[int], cores: int) -> float:
    """No schedule on ``cores`` equal cores without GPUs ends all tasks earlier.

    The largest of: the least rank-seconds of all tasks over the cores (area), and for each task the shortest time in
    which it and those before it can end (critical path). Ludwig and Tiwari (1994) call the two average work and length.
    """
    area, ends = 0.0, dict[int, float]()
    for job, truth in zip(workload.jobs, workload.truths, strict=True):  # parents and predecessors come first
        kind = workload.kinds[job.kind]
        possible = [n for n in ranks if n <= cores]
        area += min(truth.work_s * loss(n, kind.serial, kind.kappa) for n in possible)
        before = [*job.after, *(() if job.parent is None else (job.parent,))]
        shortest = min(workload.duration_s(job.number, n) for n in possible)
        ends[job.number] = max((ends[n] for n in before), default=0.0) + shortest
    return max(area / cores, max(ends.values()))


def outages(options: EnsembleOptions, seed: int, capacity: Capacity) -> list[Outage]:
    """When nodes are not there, in instance ``seed``."""
    n = options.nodes
    rng = np.random.default_rng(np.random.SeedSequence([seed, 0x0A7A]))
    found: list[Outage] = []
    begin_s = _uniform(rng, n.queue_s)
    if begin_s > 0.0:
        found += [Outage(node, 0.0, begin_s, paid=False) for node in range(capacity.nodes)]
    end_s = options.allocation_s
    if n.change_s > 0.0 and n.changed > 0.0:
        leaving = round(n.changed * capacity.nodes)
        time_s = begin_s + rng.exponential(n.change_s)
        while time_s < end_s and leaving:
            back_s = time_s + rng.exponential(n.change_s)
            found += [
                Outage(node, time_s, back_s, paid=False) for node in range(capacity.nodes - leaving, capacity.nodes)
            ]
            time_s = back_s + rng.exponential(n.change_s)
    if n.losses_per_node_s > 0.0:
        away = {o.node: o for o in found if o.from_s > 0.0}
        for node in range(capacity.nodes):
            time_s = begin_s + rng.exponential(1.0 / n.losses_per_node_s)
            while time_s < end_s and node not in away:
                found.append(Outage(node, time_s, time_s + n.repair_s))
                time_s += n.repair_s + rng.exponential(1.0 / n.losses_per_node_s)
    return found


def _logged(rng: np.random.Generator, seed: int, options: EnsembleOptions, count: int) -> list[LoggedJob]:
    """Jobs of a model or a log; none if tasks are drawn otherwise."""
    w, rigid = options.workload, options.rigid is not None
    if w.source == "generator":
        return []
    if w.source == "lublin":
        # Of their own, drawn only where they are not certain: workloads of former options stay what they were.
        own = np.random.default_rng(np.random.SeedSequence([seed, 0x1B11]))
        faster, typed = float(_log_uniform(own, w.faster, 1)[0]), bool(own.random() < w.typed)
        drawn = lublin(rng, count, w.processors, typed=typed, begin_s=_uniform(own, w.begins_s) * faster)
        return [_whole(job, faster) for job in drawn] if rigid else drawn
    jobs = w.jobs(rigid)
    return window(jobs, int(rng.integers(len(jobs))) if w.starts is None else w.starts[seed % len(w.starts)], count)


def _whole(job: LoggedJob, faster: float) -> LoggedJob:
    """The job in whole seconds, as logs have them, submitted so many times sooner."""
    return replace(job, submit_s=math.floor(job.submit_s / faster), run_s=max(1.0, math.floor(job.run_s)))


def _nearest(choices: Sequence[int], ranks: int) -> int:
    """The number of ranks that is off by the least factor."""
    return min(choices, key=lambda choice: abs(math.log(choice / ranks)))


def _kinds(rng: np.random.Generator, options: EnsembleOptions) -> tuple[TaskKind, ...]:
    w = options.workload
    count = int(rng.integers(w.kinds[0], w.kinds[1] + 1))
    serial, kappa = _log_uniform(rng, w.serial, count), rng.uniform(w.kappa.low, w.kappa.high, count)
    if options.rigid is not None:  # on any number of ranks for the same time
        serial, kappa = np.ones(count), np.zeros(count)
    gains, gpu, resizable = _log_uniform(rng, w.gpus.gains, count), rng.random(count), rng.random(count)

    def of(i: int) -> TaskKind:
        what = GpuUse.NEED if gpu[i] < w.gpus.need else GpuUse.GAIN if gpu[i] < w.gpus.need + w.gpus.gain else GpuUse.NO
        gain = float(gains[i]) if what is not GpuUse.NO else 1.0
        return TaskKind(float(serial[i]), float(kappa[i]), gain, what, bool(resizable[i] < w.resizable))

    return tuple(of(i) for i in range(count))


def _uniform(rng: np.random.Generator, bounds: Range) -> float:
    return float(rng.uniform(bounds.low, bounds.high))


def _log_uniform(rng: np.random.Generator, bounds: Range, count: int) -> NDArray[np.float64]:
    values: NDArray[np.float64] = np.exp(rng.uniform(math.log(bounds.low), math.log(bounds.high), count))
    return values
