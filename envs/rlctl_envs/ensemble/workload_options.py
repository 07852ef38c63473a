"""What a user can set about the tasks of an ensemble."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from rlctl.core.errors import ConfigError
from rlctl_envs.ensemble.workloads.history import read_history
from rlctl_envs.ensemble.workloads.logged import LoggedJob
from rlctl_envs.ensemble.workloads.swf import read_swf

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Seconds = Annotated[float, Field(ge=0.0, le=1e12)]


class OptionsSection(BaseModel):
    """A mapping of known keys.

    Attributes:
        LATER: keys that came after the first version. Dumps leave them out where they have their defaults: the hash of
            a game, which saved policies and tuned rules carry, stays what it was.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    LATER: ClassVar[tuple[str, ...]] = ()

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = type(self).model_fields
        unset = {key for key in self.LATER if getattr(self, key) == fields[key].default}
        return {key: value for key, value in dump(self).items() if key not in unset}


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


class WorkloadOptions(OptionsSection):
    """Which tasks there are.

    Attributes:
        source: ``generator``: drawn as below; ``lublin``: arrivals, sizes and run times after Lublin and Feitelson
            (2003); ``swf``: a log in the Standard Workload Format; ``journal``: what a campaign of one's own has run.
        file: of ``swf``; run folder of ``journal``. Of their jobs each instance takes as many as ``tasks`` says, one
            after the other, from a random one on; scaling, estimates that are not known, and all else are drawn.
        starts: of ``swf``: instance i takes the jobs from number ``starts[i]`` on, counted modulo their length; null:
            from a random one on.
        part: of ``swf``: first job, and the one after the last, that instances are taken from; null: all.
        processors: of the machine that ``lublin`` makes jobs for.
        typed: chance that ``lublin`` draws interactive and batch jobs for an instance, each by parameters of their own,
            in place of jobs of either type.
        faster: of ``lublin``: how many times faster jobs arrive than in the model, log-uniform.
        begins_s: of ``lublin``: when an instance begins, seconds since midnight of the first day of its log. The hour
            decides how fast jobs arrive, and rules such as F1 read the time since the log began.
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

    LATER: ClassVar[tuple[str, ...]] = ("starts", "part", "typed", "faster", "begins_s")
    source: Literal["generator", "lublin", "swf", "journal"] = "generator"
    file: Path | None = None
    starts: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(default=None, min_length=1)
    part: tuple[int, int] | None = None
    processors: int = Field(default=128, ge=2, le=1 << 20)
    typed: Share = 0.0
    faster: Positive = Range(1.0, 1.0)
    begins_s: NotNegative = Range(0.0, 0.0)
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

    def jobs(self, as_requested: bool = False) -> Sequence[LoggedJob]:
        """Those of ``file``, ``part`` of it; ConfigError if it cannot be read.

        Args:
            as_requested: see ``workloads.swf.read_swf``.
        """
        jobs = _read(self.source, str(self.file), as_requested)
        if self.part is not None:
            if not 0 <= self.part[0] < self.part[1] <= len(jobs):
                raise ConfigError(f"from {self.part[0]} to {self.part[1]}: there are {len(jobs)} jobs", ("part",))
            jobs = jobs[self.part[0] : self.part[1]]
        if self.starts is not None and max(self.starts) + self.tasks[1] > len(jobs):
            last = max(self.starts) + self.tasks[1]
            raise ConfigError(f"up to job {last} with {self.tasks[1]} tasks: there are {len(jobs)} jobs", ("starts",))
        return jobs

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
        if self.file is None and (self.starts or self.part):
            raise ConfigError("source has no file: leave out starts and part", ("workload",))
        if self.gpus.need + self.gpus.gain > 1.0:
            raise ConfigError("need and gain are shares of all tasks: more than 1 together", ("workload", "gpus"))
        return self


@lru_cache(maxsize=16)
def _read(source: str, file: str, as_requested: bool) -> Sequence[LoggedJob]:
    return read_swf(Path(file), as_requested) if source == "swf" else read_history(Path(file))
