"""Makes ensembles and what belongs to them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rlctl.config.validation import check_options, key_prefix
from rlctl.core.campaign_factory import CampaignFactory
from rlctl.core.errors import ConfigError
from rlctl.core.machine import Capacity
from rlctl.core.policy import Policy
from rlctl.core.simulation import Outage
from rlctl.core.task import TaskId, TaskSpec
from rlctl.plugins.registry import make_placement
from rlctl.system.mpi import require_mpiexec
from rlctl_envs.ensemble.campaign import EnsembleCampaign
from rlctl_envs.ensemble.job_request import GpuUse, JobRequest, TaskShape
from rlctl_envs.ensemble.options import EnsembleOptions, Objective
from rlctl_envs.ensemble.program.kernels import units_per_second
from rlctl_envs.ensemble.state import EnsembleState
from rlctl_envs.ensemble.twin import EnsembleTwin
from rlctl_envs.ensemble.workload import Workload, bound_s, outages

MOST_CHANGES = 1_000_000
JOBS = "jobs.json"
"""What the programs of real tasks read."""


class Ensemble(CampaignFactory):
    """Unequal, uncertain and unreliable tasks that share an allocation; see the README and ``EnsembleOptions``."""

    name = "ensemble"
    version = 1
    measured: ClassVar[frozenset[str]] = frozenset({"spent"})

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        self.options = check_options(EnsembleOptions, options, "campaign.options")
        self.capacity = Capacity(nodes=32, cores=1)
        if self.options.workload.file is not None:
            with key_prefix(("campaign", "options", "workload")):
                try:
                    self.options.workload.jobs(self.options.rigid is not None)
                except ConfigError as error:
                    raise ConfigError(error.problem, error.key or ("file",)) from error
        place, key = self.options.placement, ("campaign", "options", "placement")
        self.scoring = None if place is None else make_placement(place, key)
        self._key = self.options.model_dump_json()
        self.opponents = _opponents(self.options)

    def check(self, capacity: Capacity, real: bool) -> None:
        """Refuse a machine that no task can run on, and real programs where they cannot be."""
        key = ("campaign", "options")
        if self.options.rigid is None and self.options.ranks[0] > capacity.total_cores:
            raise ConfigError(f"at least {self.options.ranks[0]} ranks, and no so many cores", (*key, "ranks"))
        w = self.options.workload
        if self.options.rigid is not None:
            most = w.processors if w.file is None else max(job.ranks for job in w.jobs(True))
            if most > capacity.total_cores:
                where = "processors" if w.file is None else "file"
                problem = f"jobs of up to {most} processors, and the machine has {capacity.total_cores} cores"
                raise ConfigError(problem, (*key, "workload", where))
        if w.gpus.need > 0.0 and not capacity.total_gpus:
            raise ConfigError("tasks need GPUs, and the machine has none", (*key, "workload", "gpus", "need"))
        largest = JobRequest(0, 0, 1.0, gpu=GpuUse.NEED if w.gpus.need > 0.0 else GpuUse.NO, memory_mb=w.memory_mb.high)
        if not EnsembleState(self.options, capacity).shapes(largest):
            raise ConfigError("the largest tasks fit on no number of ranks", (*key, "workload", "memory_mb"))
        n = self.options.nodes
        changes = n.losses_per_node_s + (n.changed / n.change_s if n.change_s > 0.0 else 0.0)
        if changes * self.options.allocation_s * capacity.nodes > MOST_CHANGES:
            raise ConfigError(f"more than {MOST_CHANGES:,} changes of nodes in an allocation", (*key, "nodes"))
        if not real:
            return
        if self.options.clairvoyant:
            raise ConfigError("only a twin is clairvoyant: leave it out", (*key, "clairvoyant"))
        most = max((ranks for ranks in self.options.ranks if ranks <= capacity.total_cores), default=1)
        if most > 1:
            require_mpiexec(most, (*key, "ranks"))

    def campaign(self, seed: int) -> EnsembleCampaign:
        """The campaign of instance ``seed``."""
        workload = self.workload(seed)

        def truth(number: int, shape: TaskShape) -> float:
            return workload.duration_s(number, shape.ranks, shape.gpu)

        runs_s = None
        if self.options.objective.slowdown_over == "run":
            runs_s = [workload.duration_s(job.number, job.requested_ranks) for job in workload.jobs]
        known = truth if self.options.clairvoyant else None
        return EnsembleCampaign(self.options, workload.jobs, self._spec, known, self.scoring, runs_s)

    def workload(self, seed: int) -> Workload:
        """All that is drawn for instance ``seed``, hidden parameters included."""
        return _drawn(self._key, seed)

    def task_model(self, seed: int) -> EnsembleTwin:
        """What the tasks of instance ``seed`` do."""
        return EnsembleTwin(self.workload(seed), self.options, seed)

    def play(self, capacity: Capacity, players: Sequence[tuple[Policy, int]]) -> list[dict[str, float]] | None:
        """Rigid jobs under a rule that weighs them are scheduled at once, if nothing can go wrong."""
        if self.options.rigid is None:
            return None
        from rlctl_envs.ensemble import fast_schedule  # with Numba

        if any(self.outages(instance, capacity) for instance in {instance for _, instance in players}):
            return None
        return fast_schedule.play(self.options, self.workload, capacity.total_cores, players)

    def outages(self, seed: int, capacity: Capacity) -> Sequence[Outage]:
        """When nodes are not there, in instance ``seed``."""
        return outages(self.options, seed, capacity)

    def privileged(self, seed: int) -> NDArray[np.float32]:
        """Scaling, spreads, total and longest work, troubles, [10], each number about within -1 to 1."""
        return self.workload(seed).as_array(self.options)

    def hidden(self, seed: int) -> list[float]:
        """How tasks really scale, what they are worth, and how long those take that cannot be the first to start.

        When one that started at 0 has ended, all can see how long it took.
        """
        workload, rigid = self.workload(seed), self.options.rigid is not None
        numbers = [] if rigid else [number for kind in workload.kinds for number in (kind.serial, kind.kappa)]
        for job, truth in zip(workload.jobs, workload.truths, strict=True):
            if self.options.workload.quality < 1.0:
                numbers.append(truth.quality)
            later = job.parent is not None or job.arrives > 0.0 or job.offered > 0.0
            if later and truth.work_s != job.estimate_s:
                numbers.append(truth.work_s)
        return numbers

    def least_cost(self, seed: int, capacity: Capacity) -> float | None:
        """Node-seconds that no schedule can go below, where all tasks have to end on equal nodes without GPUs."""
        o, w, n = self.options, self.options.workload, self.options.nodes
        plain = o.objective == Objective() and o.rigid is None and w.gpus.gain + w.gpus.need == 0.0
        if not plain or capacity.groups or not w.trouble.scatter == n.queue_s.high == n.change_s == 0.0:
            return None
        return bound_s(self.workload(seed), o.ranks, capacity.total_cores) * capacity.nodes

    def prepare(self, folder: Path, seed: int) -> None:
        """Write ``jobs.json``, which the programs read and the policy does not; what computes is measured first."""
        rates = units_per_second(tuple(sorted(set(self.options.program.kinds) - {"paced"})))
        data = self.workload(seed).to_json(self.options, seed, rates)
        (folder / JOBS).write_text(json.dumps(data) + "\n")

    def _spec(self, job: JobRequest, shape: TaskShape, uid: TaskId, attempt: int, report_s: float) -> TaskSpec:
        program = self.options.program
        name = f"task{job.number:05d}"
        arguments = [
            "-m",
            "rlctl_envs.ensemble.program",
            f"--jobs={JOBS}",
            f"--task={job.number}",
            f"--attempt={attempt}",
            f"--kind={program.kinds[job.kind % len(program.kinds)]}",
            f"--result={name}.json",
        ]
        if shape.gpu:
            arguments.append("--gpu")
        if report_s > 0.0:
            arguments += [f"--progress={uid}.jsonl", f"--report-s={report_s:.6g}"]
        if job.resizable:
            arguments += [f"--checkpoint={name}.npz", f"--checkpoint-s={self.options.workload.checkpoint_s:.6g}"]
        return TaskSpec(
            uid,
            executable="python",
            arguments=tuple(arguments),
            parameters={
                "task": job.number,
                "ranks": shape.ranks,
                "gpu": shape.gpu,
                "estimate_s": job.estimate_s,
                "report_s": report_s,
            },
            resources=job.need(shape),
            walltime_s=program.walltime_s,
            result_file=f"{name}.json",
            progress_file=f"{uid}.jsonl" if report_s > 0.0 else None,
        )


def _opponents(options: EnsembleOptions) -> tuple[str, ...]:
    """The strongest rules, by what is wanted."""
    if options.rigid is not None:
        return ("weighted", "f4", "saf")
    if options.stop and options.objective.goal is not None:
        return ("stopping_index", "renewal")
    if options.objective.slowdown > 0.0:
        return ("slowdown_density", "sjf")
    return ("dual_approximation", *(("malleable",) if options.resize else ()), "sjf")


@lru_cache(maxsize=128)
def _drawn(options: str, seed: int) -> Workload:
    return Workload.draw(EnsembleOptions.model_validate_json(options), seed)
