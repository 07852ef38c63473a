"""What a user can set about an ensemble."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from rlctl.config.schema import RuleEntry
from rlctl.core.errors import ConfigError
from rlctl_envs.ensemble.workloads.history import read_history
from rlctl_envs.ensemble.workloads.logged import LoggedJob
from rlctl_envs.ensemble.workloads.swf import read_swf

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Seconds = Annotated[float, Field(ge=0.0, le=1e12)]


class OptionsSection(BaseModel):
    """A mapping of known keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Range(NamedTuple):
    """From ``low`` to ``high``."""

    low: float
    high: float


def _rising(value: Range) -> Range:
    if not value.low <= value.high:
        raise ValueError(f"from {value.low:g} to {value.high:g} is no range")
    return value


Interval = Annotated[Range, AfterValidator(_rising)]


def _within(low: float, high: float) -> AfterValidator:
    def check(value: Range) -> Range:
        if not low <= value.low <= value.high <= high:
            raise ValueError(f"from {value.low:g} to {value.high:g} is not within {low:g} to {high:g}")
        return value

    return AfterValidator(check)


def _or_none(value: Range) -> Range:
    if value.low <= 0.0 < value.high:
        raise ValueError(f"from {value.low:g}: give two numbers above 0, or 0 twice")
    return value


Positive = Annotated[Interval, _within(1e-9, 1e9)]
NotNegative = Annotated[Interval, _within(0.0, 1e9)]
Deviation = Annotated[Interval, _within(0.0, 5.0)]


class GpuOptions(OptionsSection):
    """Tasks and GPUs.

    Attributes:
        need: share of the tasks that cannot do without.
        gain: share of those that are faster with one GPU for each rank, but can do without.
        gains: how many times faster a rank with a GPU is than one without, of either; drawn for each kind.
        told: deviation of the logarithm of what users believe it to be.
    """

    need: Share = 0.0
    gain: Share = 0.0
    gains: Positive = Range(3.0, 12.0)
    told: float = Field(default=0.4, ge=0.0, le=3.0)


class TroubleOptions(OptionsSection):
    """What goes wrong.

    Attributes:
        failures_per_rank_s: rate at which attempts die.
        traps_per_work: expected number of times that a task is stuck in the course of its work; drawn for each
            instance.
        trap_work: mean length of being stuck, as a share of the time that the task would take otherwise.
        scatter: deviation of the logarithm of the time that an attempt takes.
    """

    failures_per_rank_s: float = Field(default=0.0, ge=0.0, le=1.0)
    traps_per_work: Annotated[Interval, _within(0.0, 1000.0)] = Range(0.0, 0.0)
    trap_work: NotNegative = Range(1.0, 1.0)
    scatter: float = Field(default=0.0, ge=0.0, le=3.0)


class NodeOptions(OptionsSection):
    """What happens to nodes, on the twin; real ones do as they like.

    Attributes:
        queue_s: seconds that the allocation waits before it begins; it is paid for from then on.
        losses_per_node_s: rate at which nodes are lost.
        repair_s: seconds until a lost node is back.
        change_s: mean seconds between changes of the allocation's size; 0: it keeps its size.
        changed: share of the nodes that leave the allocation, and come back with the change after.
    """

    queue_s: NotNegative = Range(0.0, 0.0)
    losses_per_node_s: float = Field(default=0.0, ge=0.0, le=1.0)
    repair_s: Seconds = 3600.0
    change_s: Seconds = 0.0
    changed: Share = 0.25


class WorkloadOptions(OptionsSection):
    """Which tasks there are.

    Attributes:
        source: ``generator``: drawn as below; ``lublin``: arrivals, sizes and run times after Lublin and Feitelson
            (2003); ``swf``: a log in the Standard Workload Format; ``journal``: what a campaign of one's own has run.
        file: of ``swf``; run folder of ``journal``. Of their jobs each instance takes as many as ``tasks`` says, one
            after the other, from a random one on; scaling, estimates that are not known, and all else are drawn.
        processors: of the machine that ``lublin`` makes jobs for.
        tasks: least and greatest number of tasks.
        most_tasks: no more are brought forth once there are so many.
        kinds: least and greatest number of kinds of tasks; tasks of a kind scale alike.
        work_s: median work of a task, seconds on one rank.
        spread: of the logarithm of work within an instance; drawn for each instance.
        error: deviation of the logarithm of the estimates; drawn for each instance.
        serial: part of the work that does not scale, log-uniform, for each kind.
        kappa: cost of communication, for each kind; see ``program/scaling_law.py``.
        spawn_probability: chance that a task that ends brings forth another.
        depend_probability: chance that a task waits for an earlier one.
        load: offered work over what the machine could do, if tasks arrive one by one; 0: all are there at first.
        resizable: share of the kinds whose tasks write checkpoints and can go on with other ranks.
        checkpoint_s: how often these write one by themselves.
        memory_mb: memory of a task over all ranks, log-uniform; 0: not limited.
        priorities: tasks have whole priorities from 0 to this.
        deadline: a task is due so many times its expected time after it arrives, drawn; 0: never.
        quality: share of the tasks that are worth having; what a task is worth shows while it runs. 1: all.
        noise: of what running tasks say about their quality.
        reports: how often a task says how far it is while it runs; 0: never.
        gpus: tasks and GPUs.
        trouble: what goes wrong.
    """

    source: Literal["generator", "lublin", "swf", "journal"] = "generator"
    file: Path | None = None
    processors: int = Field(default=128, ge=2, le=1 << 20)
    tasks: tuple[int, int] = (16, 24)
    most_tasks: int = Field(default=48, ge=1, le=100_000)
    kinds: tuple[int, int] = (1, 3)
    work_s: float = Field(default=600.0, gt=1e-6, le=1e9)
    spread: Deviation = Range(0.7, 1.6)
    error: Deviation = Range(0.1, 0.7)
    serial: Interval = Range(0.002, 0.1)
    kappa: NotNegative = Range(0.0, 0.5)
    spawn_probability: Share = 0.35
    depend_probability: Share = 0.0
    load: float = Field(default=0.0, ge=0.0, le=10.0)
    resizable: Share = 0.0
    checkpoint_s: float = Field(default=300.0, gt=0.0, le=1e9)
    memory_mb: Annotated[NotNegative, AfterValidator(_or_none)] = Range(0.0, 0.0)
    priorities: int = Field(default=0, ge=0, le=100)
    deadline: NotNegative = Range(0.0, 0.0)
    quality: Share = 1.0
    noise: float = Field(default=0.3, ge=0.0, le=10.0)
    reports: int = Field(default=0, ge=0, le=1000)
    gpus: GpuOptions = GpuOptions()
    trouble: TroubleOptions = TroubleOptions()

    def jobs(self) -> Sequence[LoggedJob]:
        """Those of ``file``; ConfigError if it cannot be read."""
        return _read(self.source, str(self.file))

    @model_validator(mode="after")
    def _consistent(self) -> WorkloadOptions:
        for name in ("tasks", "kinds"):
            least, greatest = getattr(self, name)
            if not 1 <= least <= greatest <= 100_000:
                problem = f"from {least} to {greatest}: give 1 <= least <= greatest <= 100,000"
                raise ConfigError(problem, ("workload", name))
        if self.tasks[1] > self.most_tasks:
            raise ConfigError(f"up to {self.tasks[1]} at the beginning, most_tasks is {self.most_tasks}", ("workload",))
        if self.serial.low <= 0.0 or self.serial.high > 1.0:
            raise ConfigError("must be above 0 and at most 1", ("workload", "serial"))
        if (self.source in ("swf", "journal")) != (self.file is not None):
            raise ConfigError(
                f"source {self.source!r} {'wants' if self.file is None else 'has no'} file", ("workload",)
            )
        if self.gpus.need + self.gpus.gain > 1.0:
            raise ConfigError("need and gain are shares of all tasks: more than 1 together", ("workload", "gpus"))
        return self


@lru_cache(maxsize=16)
def _read(source: str, file: str) -> Sequence[LoggedJob]:
    return read_swf(Path(file)) if source == "swf" else read_history(Path(file))


class Objective(OptionsSection):
    """What the campaign is to cost least of. The weights add up; alone, ``node_second`` means makespan.

    Attributes:
        node_second: of an allocated node-second, used or not.
        gpu_second: of a GPU-second that tasks use.
        slowdown: of one unit of a task's bounded slowdown: the time from its arrival to its end, over its estimated
            time on the ranks that it was submitted for, or ``bound_s`` if that is longer; at least 1 (Feitelson 2001).
        bound_s: see there.
        goal: the campaign ends when so many tasks have succeeded; null: when all have ended.
        unreached: of each success that the goal lacks in the end, in times what one is thought to cost at best. It must
            be dearer to go without than to go on, or learning and tuning find policies that give up where tasks are
            much in trouble; PAR10 counts failed runs ten times too (Hutter, Hoos, Leyton-Brown and Stuetzle 2009,
            doi:10.1613/jair.2861).
        window_s: only what happens between these seconds counts, and the campaign ends with them: throughput of a
            machine that is full. null: all.
    """

    node_second: float = Field(default=1.0, ge=0.0, le=1e6)
    gpu_second: float = Field(default=0.0, ge=0.0, le=1e6)
    slowdown: float = Field(default=0.0, ge=0.0, le=1e6)
    bound_s: float = Field(default=10.0, gt=0.0, le=1e9)
    goal: int | None = Field(default=None, ge=1)
    unreached: float = Field(default=10.0, gt=0.0, le=1e6)
    window_s: tuple[float, float] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Objective:
        if self.node_second == self.gpu_second == self.slowdown == 0.0:
            raise ConfigError("nothing has a price: set node_second, gpu_second or slowdown", ("objective",))
        if self.window_s is not None and not 0.0 <= self.window_s[0] < self.window_s[1]:
            raise ConfigError("give [from, to] with 0 <= from < to", ("objective", "window_s"))
        if self.window_s is not None and self.goal is not None:
            raise ConfigError("a campaign with a window ends with it: leave out the goal", ("objective", "goal"))
        return self


class TaskProgramOptions(OptionsSection):
    """The programs that real tasks run; see ``program/``.

    Attributes:
        kinds: what the kinds of tasks are, in turn.
        start_up_s: seconds before a task begins to work, by its ranks, as ``python -m
            rlctl_envs.ensemble.program.calibrate_start_up`` measures them; between the numbers of ranks given, in
            proportion to their logarithms.
        walltime_s: after which a task is stopped; null: never.
    """

    kinds: tuple[Literal["paced", "compute", "communication", "memory", "film"], ...] = ("paced",)
    start_up_s: dict[Annotated[int, Field(ge=1)], Seconds] = Field(default_factory=lambda: {1: 0.0}, min_length=1)
    walltime_s: float | None = Field(default=None, gt=0.0)

    def start_up(self, ranks: int) -> float:
        """Seconds, of so many ranks.

        >>> TaskProgramOptions(start_up_s={1: 0.1, 2: 0.3, 8: 0.7}).start_up(4)
        0.5
        """
        known = sorted(self.start_up_s)
        times = [self.start_up_s[number] for number in known]
        return float(np.interp(math.log2(ranks), [math.log2(number) for number in known], times))


class EnsembleOptions(OptionsSection):
    """``campaign.options`` of an ensemble.

    Attributes:
        workload: which tasks there are.
        nodes: what happens to nodes, on the twin.
        objective: what the campaign is to cost least of.
        program: what real tasks run.
        ranks: how many a task may have.
        stop: whether running tasks may be stopped; for good where some have to succeed or in a window, otherwise they
            wait again.
        resize: whether running tasks that can may get other ranks.
        retries: how often a task that failed is run again.
        allocation_s: end of the allocation, seconds.
        slots: choices that a decision offers: waiting, then stops and changes of size, then starts.
        control_slots: of these, at most so many are stops and changes of size.
        observed: running tasks that a policy sees.
        groups: groups of nodes that a policy sees.
        placement: which nodes tasks go to: ``rule``, registered under ``rlctl.placements``, and its ``parameters``.
            null: where the least is left for others.
        clairvoyant: whether decisions hold what only the twin knows, for rules that are there for comparison.
    """

    workload: WorkloadOptions = WorkloadOptions()
    nodes: NodeOptions = NodeOptions()
    objective: Objective = Objective()
    program: TaskProgramOptions = TaskProgramOptions()
    ranks: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    stop: bool = False
    resize: bool = False
    retries: int = Field(default=3, ge=0, le=1000)
    allocation_s: float = Field(200_000.0, gt=0.0, le=1e12)
    slots: int = Field(default=32, ge=4, le=512)
    control_slots: int = Field(default=6, ge=0, le=128)
    observed: int = Field(default=12, ge=1, le=256)
    groups: int = Field(default=4, ge=1, le=64)
    placement: RuleEntry | None = None
    clairvoyant: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> EnsembleOptions:
        if not self.ranks or list(self.ranks) != sorted(set(self.ranks)) or self.ranks[0] < 1:
            raise ConfigError("give rising whole numbers from 1", ("ranks",))
        begins_s = max(self.nodes.queue_s.high, self.objective.window_s[0] if self.objective.window_s else 0.0)
        if begins_s >= self.allocation_s:
            raise ConfigError(f"ends before anything counts, at {begins_s:g} s", ("allocation_s",))
        if self.control_slots > self.slots - 3:
            raise ConfigError(
                f"{self.control_slots} of {self.slots} slots leave too few for starts", ("control_slots",)
            )
        return self
