"""What a user can set about an ensemble."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from rlctl.config.schema import RuleEntry
from rlctl.core.errors import ConfigError
from rlctl_envs.ensemble.workload_options import NotNegative, OptionsSection, Range, Seconds, Share, WorkloadOptions


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


class Objective(OptionsSection):
    """What the campaign is to cost least of. The weights add up; alone, ``node_second`` means makespan.

    Attributes:
        node_second: of an allocated node-second, used or not.
        gpu_second: of a GPU-second that tasks use.
        slowdown: of one unit of a task's bounded slowdown: the time from its arrival to its end, over its estimated
            time on the ranks that it was submitted for, or ``bound_s`` if that is longer; at least 1 (Feitelson 2001).
        slowdown_over: ``estimate``: see there; ``run``: over the time that it really takes there, which policies do not
            learn before it has ended.
        bound_s: see there.
        goal: the campaign ends when so many tasks have succeeded; null: when all have ended.
        unreached: of each success that the goal lacks in the end, in times what one is thought to cost at best. It must
            be dearer to go without than to go on, or learning and tuning find policies that give up where tasks are
            much in trouble; PAR10 counts failed runs ten times too (Hutter, Hoos, Leyton-Brown and Stuetzle 2009,
            doi:10.1613/jair.2861).
        window_s: only what happens between these seconds counts, and the campaign ends with them: throughput of a
            machine that is full. null: all.
    """

    LATER: ClassVar[tuple[str, ...]] = ("slowdown_over",)
    node_second: float = Field(default=1.0, ge=0.0, le=1e6)
    gpu_second: float = Field(default=0.0, ge=0.0, le=1e6)
    slowdown: float = Field(default=0.0, ge=0.0, le=1e6)
    slowdown_over: Literal["estimate", "run"] = "estimate"
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
        if len(self.start_up_s) == 1:  # most often
            return next(iter(self.start_up_s.values()))
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
        rigid: each task runs on the ranks that it was submitted for, as long wherever it runs, and its estimate is that
            time as its user requested it; nothing spawns. For sources other than ``generator``. ``any``: a decision
            starts any waiting task that fits, or waits. ``next``: it says which task starts next, whether it fits or
            not, and nothing else starts before that one has. ``next_backfilled``: while that one waits for room,
            others start in order of submission if they fit and end, as requested, before it is expected to start; how
            RLScheduler decides (Zhang et al. 2020). null: tasks run on any of ``ranks``.
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
    LATER: ClassVar[tuple[str, ...]] = ("rigid",)
    ranks: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    rigid: Literal["any", "next", "next_backfilled"] | None = None
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
        if self.rigid is not None and self.workload.source == "generator":
            raise ConfigError("only jobs of lublin, swf or journal have ranks of their own", ("rigid",))
        if self.rigid is not None and (self.stop or self.resize or self.workload.gpus.need + self.workload.gpus.gain):
            raise ConfigError("leave out stop, resize and gpus", ("rigid",))
        begins_s = max(self.nodes.queue_s.high, self.objective.window_s[0] if self.objective.window_s else 0.0)
        if begins_s >= self.allocation_s:
            raise ConfigError(f"ends before anything counts, at {begins_s:g} s", ("allocation_s",))
        if self.control_slots > self.slots - 3:
            raise ConfigError(
                f"{self.control_slots} of {self.slots} slots leave too few for starts", ("control_slots",)
            )
        return self
