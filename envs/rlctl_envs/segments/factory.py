"""Makes campaigns of simulations in segments of the configuration's program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rlctl.config.validation import check_options
from rlctl.core.campaign_factory import CampaignFactory
from rlctl.core.errors import ConfigError, Key
from rlctl.core.machine import Capacity
from rlctl.core.task import Failure, TaskId, TaskSpec
from rlctl.executors.pool import NodePool
from rlctl.programs.configured import ConfiguredPrograms
from rlctl.programs.program import EvaluationRequest
from rlctl_envs.search.objective import SearchObjective
from rlctl_envs.search.options import usual_s
from rlctl_envs.segments.campaign import SegmentsCampaign
from rlctl_envs.segments.chains import Segment
from rlctl_envs.segments.options import PLACEHOLDERS, RESERVED, SegmentsOptions
from rlctl_envs.segments.recorded_chains import RecordedSegments, RecordedTwin
from rlctl_envs.segments.synthetic_chain import SEGMENTS, SyntheticChains
from rlctl_envs.segments.twin import SegmentsTwin

_KEY = ("campaign", "options")

_LIMITS = {Failure.TIMEOUT: "timeout", Failure.MEMORY: "memory"}


_TOGETHER = 256


@lru_cache(4096)
def _seeds(seed: int, block: int) -> list[int]:
    """Seeds of so many segments, from 0 to 2^31 - 1, for the placeholder ``seed``."""
    states: list[int] = (np.random.SeedSequence([seed, block]).generate_state(_TOGETHER) & 0x7FFFFFFF).tolist()
    return states


class Segments(CampaignFactory):
    """Simulations in segments, chained by restart files; see ``SegmentsOptions``."""

    name = "segments"
    version = 1
    runs_programs: ClassVar[bool] = True
    default_policy = "renewal_give_up"
    default_fallback = "schedule_constant"

    def __init__(self, options: Mapping[str, Any] | None, programs: ConfiguredPrograms) -> None:
        self.options: SegmentsOptions = check_options(SegmentsOptions, options, ".".join(_KEY))
        name, program = programs.options(None, programs.key("program"))
        self._names = {*self.options.controls, *self.options.lengths}
        self.program = programs.program(name, {*self._names, *PLACEHOLDERS})
        taken = next((n for n in program.results if n in self._names or n in RESERVED), None)
        if taken is not None:
            what = "a control or length" if taken in self._names else "rlctl"
            raise ConfigError(f"{what} has this name", (*self.program.key, "results", taken))
        self.results = list(program.results)
        self.objective = self._objective()
        self._recorded = self._records(programs.folder)

    def check(self, capacity: Capacity, real: bool) -> None:
        """Refuse a machine on which no segment can run."""
        pool = NodePool(capacity)
        if not any(pool.ever(need) for need in self.program.resources):
            raise ConfigError(
                f"no choice of resources fits on {capacity.nodes} nodes of {capacity.node()}: ask for less, or set "
                "machine",
                (*self.program.key, "resources"),
            )

    def campaign(self, seed: int) -> SegmentsCampaign:
        """The campaign of instance ``seed``."""

        def specify(segment: Segment) -> TaskSpec:
            return self.task(segment, seed)

        return SegmentsCampaign(
            self.options,
            self.objective,
            self.program.resources,
            self.results,
            specify,
            self._consequence,
            SEGMENTS * (self.options.needed + 1) * usual_s(self.program.options.walltime_s),
            seed,
        )

    def prepare(self, folder: Path, seed: int) -> None:
        """Write the description of the program."""
        self.program.prepare(folder)

    def sample_tasks(self, capacity: Capacity, seed: int) -> Sequence[tuple[Key, TaskSpec]]:
        """The first segment of a simulation, with the resources that are listed first, and with the most ranks."""
        pool, tasks = NodePool(capacity), list[tuple[Key, TaskSpec]]()
        possible = [need for need in self.program.resources if pool.ever(need)]
        values = {name: control.value(0.5) for name, control in self.options.controls.items()}
        for need in dict.fromkeys((possible[0], max(possible, key=lambda need: need.ranks))):
            uid = TaskId("0000")
            segment = Segment(0, 0, 0, None, (), values, self.options.length_choices[0], 0, need, uid, 1.0, 0.0, 0)
            tasks += self.program.samples(uid, self.request(segment, seed))
        return tasks

    def task(self, segment: Segment, seed: int) -> TaskSpec:
        """The task of a segment of instance ``seed``."""
        return self.program.task(segment.uid, self.request(segment, seed))

    def request(self, segment: Segment, seed: int) -> EvaluationRequest:
        """What a segment of instance ``seed`` asks of its program."""
        number = segment.number
        values: dict[str, Any] = {**segment.values, "simulation": segment.simulation, "segment": segment.index}
        if self.options.length_name:
            values[self.options.length_name] = segment.length
        return EvaluationRequest(
            number,
            values,
            segment.need,
            seed=_seeds(seed, number // _TOGETHER)[number % _TOGETHER],
            restart_from=segment.parent,
            parameters={
                "evaluation": number,
                "simulation": segment.simulation,
                "from": segment.parent,
                "controls": segment.values,
                "length": segment.length,
            },
            priority=float(segment.need.cores),  # else those on few ranks would keep one on many waiting for ever
        )

    # The twin.

    def chains(self, seed: int) -> SyntheticChains:
        """The synthetic simulations of instance ``seed``."""
        until, options = self.options.until, self.options
        node_seconds = until.node_seconds if until.node_hours is None else 3600.0 * until.node_hours
        budget = node_seconds if options.allocation_s is None else options.allocation_s
        return SyntheticChains(options, budget, usual_s(self.program.options.walltime_s), seed)

    def task_model(self, seed: int) -> SegmentsTwin | RecordedTwin:
        """What the segments of instance ``seed`` would do."""
        if self._recorded is not None:
            return RecordedTwin(self._recorded, self.options, self.results, seed)
        kinds = [kind.then for kind in self.program.options.failures.values()]
        lengths = self.options.length_choices
        return SegmentsTwin(
            self.chains(seed),
            self.options.controls,
            self.options.length_name,
            lengths[len(lengths) // 2],
            self.results,
            "infeasible" in kinds,
            seed,
        )

    def privileged(self, seed: int) -> NDArray[np.float32]:
        """Hidden quantities of the synthetic simulations, [12]; none of recorded ones, which are no secret."""
        if self._recorded is not None:
            return np.zeros(0, np.float32)
        return np.array(self.chains(seed).hidden(), np.float32)

    # Making it.

    def _records(self, folder: Path) -> RecordedSegments | None:
        if self.options.recorded is None:
            return None
        try:
            return RecordedSegments.read(folder / self.options.recorded, self.options, self.results)
        except ConfigError as error:
            raise ConfigError(error.problem, (*_KEY, "recorded")) from None

    def _objective(self) -> SearchObjective:
        try:
            objective = SearchObjective(self.options.objective, {*self.options.controls, *self.results})
        except ConfigError as error:
            raise ConfigError(error.problem, (*_KEY, *(error.key or ("objective",)))) from None
        until = self.options.until
        if until.value is not None and len(objective.names) != 1:
            raise ConfigError("is of an objective, and there is none", (*_KEY, "until", "value"))
        if until.found is not None and not objective.finds:
            raise ConfigError("counts simulations that fulfil objective.find: add it", (*_KEY, "until", "found"))
        if objective.finds and until.found is None:
            raise ConfigError("say how many simulations should fulfil objective.find", (*_KEY, "until", "found"))
        return objective

    def _consequence(self, failure: Failure) -> str:
        """What follows from a failure that the executor has found: fail, infeasible or stop."""
        kind = self.program.options.failures.get(_LIMITS.get(failure, ""))
        return "fail" if kind is None else kind.then
