"""What is hidden from the campaign: how much work there is, how it scales, what it brings forth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from rlctl.core.errors import ConfigError
from rlctl.core.simulation import Launch, Simulated


class Options(BaseModel):
    """What a user can set about the queue.

    Attributes:
        tasks: least and greatest number of tasks that are there at the beginning.
        most_tasks: no more are brought forth once there are so many.
        spawn_probability: chance that a task that ends brings forth another.
        work_s: median work of a task, seconds on one node.
        allocation_s: end of the allocation, seconds.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    tasks: tuple[int, int] = (16, 24)
    most_tasks: int = Field(48, ge=1, le=1000)
    spawn_probability: float = Field(0.35, ge=0.0, le=1.0)
    work_s: float = Field(600.0, gt=1e-6, le=1e9)
    allocation_s: float = Field(200_000.0, gt=0.0, le=1e12)

    @model_validator(mode="after")
    def _consistent(self) -> Options:
        least, greatest = self.tasks
        if not 1 <= least <= greatest <= self.most_tasks:
            problem = f"must rise within 1 to most_tasks, which is {self.most_tasks}, got {list(self.tasks)}"
            raise ConfigError(problem, ("tasks",))
        return self


@dataclass(frozen=True, slots=True)
class Job:
    """One task: its true work and what people believe of it, seconds on one node, and what it brings forth."""

    work_s: float
    estimate_s: float
    children: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Workload:
    """An instance: every task that there will be; the first ``initial`` ones are there at the beginning.

    A task on n nodes takes ``work (s + (1 - s) / n (1 + kappa log2 n))`` seconds: Amdahl's law with a logarithmic cost
    of communication. ``s`` is ``serial`` here, and both are the same for all tasks of an instance.
    """

    jobs: tuple[Job, ...]
    initial: int
    serial: float
    kappa: float
    work_spread: float
    estimate_spread: float

    @classmethod
    def draw(cls, options: Options, seed: int) -> Workload:
        """The instance ``seed``; what a task brings forth does not depend on when or how it runs."""
        rng = np.random.default_rng([seed, 0x9E3E])
        serial = math.exp(rng.uniform(math.log(0.002), math.log(0.1)))
        kappa = rng.uniform(0.0, 0.5)
        work_spread = rng.uniform(0.7, 1.6)
        estimate_spread = rng.uniform(0.1, 0.7)
        initial = int(rng.integers(options.tasks[0], options.tasks[1] + 1))
        children: list[tuple[int, ...]] = []
        count = initial
        while len(children) < count:
            spawns = rng.random() < options.spawn_probability and count < options.most_tasks
            children.append((count,) if spawns else ())
            count += spawns
        works = options.work_s * np.exp(work_spread * rng.standard_normal(count))
        estimates = works * np.exp(estimate_spread * rng.standard_normal(count))
        jobs = tuple(Job(float(w), float(e), c) for w, e, c in zip(works, estimates, children, strict=True))
        return cls(jobs, initial, serial, kappa, work_spread, estimate_spread)

    def duration_s(self, job: int, nodes: int) -> float:
        """Seconds that a task takes on so many nodes."""
        share = (1.0 - self.serial) / nodes * (1.0 + self.kappa * math.log2(nodes))
        return self.jobs[job].work_s * (self.serial + share)

    def as_array(self) -> NDArray[np.float32]:
        """The hidden quantities, [5], each number about within -1 to 1."""
        total = sum(job.work_s for job in self.jobs)
        return np.array(
            [
                math.log10(self.serial) + 2.0,
                4.0 * self.kappa - 1.0,
                2.0 * self.work_spread - 2.3,
                3.0 * self.estimate_spread - 1.2,
                math.log10(total / sum(job.estimate_s for job in self.jobs)),
            ],
            np.float32,
        )


class QueueModel:
    """The task model of a workload; see ``rlctl.core.simulation.TaskModel``."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload

    def outcomes(self, launches: Sequence[Launch]) -> list[Simulated]:
        """Durations, and in ``values`` the new tasks: their numbers and estimates."""
        return [self._outcome(launch) for launch in launches]

    def _outcome(self, launch: Launch) -> Simulated:
        number = int(launch.spec.parameters["task"])
        children = self.workload.jobs[number].children
        values = {"children": list(children), "estimates_s": [self.workload.jobs[c].estimate_s for c in children]}
        return Simulated(self.workload.duration_s(number, launch.spec.resources.ranks), values)
