"""Makes campaigns of simulations in segments of the configuration's program."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rlctl.config.twin_section import SyntheticSection
from rlctl.config.validation import check_options
from rlctl.core.campaign_factory import CampaignFactory
from rlctl.core.errors import ConfigError, Key
from rlctl.core.machine import Capacity
from rlctl.core.task import Failure, TaskId, TaskSpec
from rlctl.executors.pool import NodePool
from rlctl.plugins.fittable import TwinFit
from rlctl.plugins.recorded_table import RecordedTable
from rlctl.programs.configured import ConfiguredPrograms
from rlctl.programs.program import EvaluationRequest
from rlctl.surrogates.fitted_folder import FittedFolder, read_fitted
from rlctl.surrogates.held_out import Agreement
from rlctl_envs.search.objective import SearchObjective
from rlctl_envs.search.options import CHANGEABLE, usual_s
from rlctl_envs.segments.campaign import SegmentsCampaign
from rlctl_envs.segments.chain_agreement import agreement_of_chains, fit_chains
from rlctl_envs.segments.chains import Segment
from rlctl_envs.segments.options import PLACEHOLDERS, RESERVED, SegmentsOptions
from rlctl_envs.segments.recorded_chains import RecordedSegments
from rlctl_envs.segments.recorded_twin import RecordedTwin
from rlctl_envs.segments.segment_records import FEWEST, read_segments, require_same
from rlctl_envs.segments.synthetic_chain import INVENTED, SEGMENTS, SyntheticChains
from rlctl_envs.segments.twin import SegmentsTwin

_KEY = ("campaign", "options")

_AMOUNTS = ("found", "evaluations", "no_improvement", "node_seconds", "node_hours")
"""Keys of ``until`` that may change: with another ``value``, all levels would be others."""

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
    scaling_rule: ClassVar[str] = "first_segments"
    changeable = (
        *(f"campaign.options.until.{key}" for key in _AMOUNTS),
        *(f"campaign.options.{key}" for key in ("allocation_s", "retries", "simulations")),
        *(*CHANGEABLE, "machine.nodes", "machine.cores"),
    )

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
        self._twin = programs.twin
        self._synthetic = self._ranges()

    def check(self, capacity: Capacity, real: bool) -> None:
        """Refuse a machine on which no segment can run, and a twin that is not there or of another campaign."""
        if self._is_fitted:
            _ = self._fitted
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

    def changed_input(self, folder: Path) -> str | None:
        """A template."""
        return self.program.changed_template(folder)

    def sample_tasks(self, capacity: Capacity, seed: int) -> Sequence[tuple[Key, TaskSpec]]:
        """The first segment of a simulation, with the resources that are listed first, and with the most ranks."""
        pool, tasks = NodePool(capacity), list[tuple[Key, TaskSpec]]()
        possible = [need for need in self.program.resources if pool.ever(need)]
        values = {name: control.value(0.5) for name, control in self.options.controls.items()}
        for need in dict.fromkeys((possible[0], max(possible, key=lambda need: need.ranks))):
            uid = TaskId("0000")
            segment = Segment(0, 0, 0, None, (), values, self.options.length_choices[0], need, uid, 1.0, 0.0, 0)
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
        options = self.options
        budget = None if math.isinf(options.until.budget) else options.until.budget
        if options.allocation_s is not None:
            budget = options.allocation_s
        return SyntheticChains(options, budget, usual_s(self.program.options.walltime_s), seed, self._synthetic)

    def fit_twin(self, sources: Sequence[RecordedTable], seed: int) -> TwinFit:
        """Keep recorded segments."""
        records = read_segments(sources, self.options, self.results)
        if len(records) < FEWEST:
            raise ConfigError(f"{len(records)} segments have ended: a twin needs {FEWEST} at least")
        timed = int(np.isfinite(records.seconds).sum())
        if timed < FEWEST:
            raise ConfigError(f"{timed} segments have known durations: a twin needs {FEWEST} at least")
        return fit_chains(records, seed)

    def twin_about(self) -> Mapping[str, Any]:
        """What is known about the fitted twin."""
        return self._fitted.about

    def compare_twin(self, source: RecordedTable) -> Agreement:
        """How well it predicts these segments."""
        others = read_segments([source], self.options, self.results)
        return agreement_of_chains(self._fitted.model, others)

    def scaling_options(self, points: int) -> dict[str, Any]:
        """Options with which so many simulations per choice of resources begin, one after the other.

        A result that reaches the goal must not end that.
        """
        ended = points * len(self.program.resources)
        until = {"evaluations": ended} | ({"found": ended + 1} if self.objective.finds else {})
        return {"until": until, "simulations": 1, "retries": 0, "allocation_s": None}

    @property
    def _is_fitted(self) -> bool:
        return self._twin is not None and self._twin.fitted is not None

    @cached_property
    def _fitted(self) -> FittedFolder[RecordedSegments]:
        """The twin's folder; read when the twin is first asked for, since real campaigns can do without."""
        assert self._twin is not None
        assert self._twin.fitted is not None
        try:
            folder = read_fitted(Path(self._twin.fitted), RecordedSegments.kind, RecordedSegments.restored)
            require_same(folder.model, self.options, self.results)
        except ConfigError as error:
            raise ConfigError(error.problem, ("twin",)) from None
        return folder

    def task_model(self, seed: int) -> SegmentsTwin | RecordedTwin:
        """What the segments of instance ``seed`` would do."""
        if self._is_fitted:
            return RecordedTwin(self._fitted.model, seed)
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
        if self._is_fitted:
            return np.zeros(0, np.float32)
        return np.array(self.chains(seed).hidden(), np.float32)

    # Making it.

    def _ranges(self) -> SyntheticSection | None:
        """Ranges of the invented simulations, as far as the configuration says."""
        synthetic = None if self._twin is None else self._twin.synthetic
        if self._twin is not None and self._twin.recorded is not None:
            raise ConfigError("is of searches: fit a twin by rlctl twin", ("twin", "recorded"))
        other = None if synthetic is None else min(synthetic.model_fields_set - INVENTED, default=None)
        if other is not None:
            problem = f"campaigns of segments do not use it, but {', '.join(sorted(INVENTED))}: leave it out"
            raise ConfigError(problem, ("twin", "synthetic", other))
        return synthetic

    def _objective(self) -> SearchObjective:
        try:
            objective = SearchObjective(self.options.objective, {*self.options.controls, *self.results})
        except ConfigError as error:
            raise ConfigError(error.problem, (*_KEY, *(error.key or ("objective",)))) from None
        until = self.options.until
        if until.trials is not None:
            raise ConfigError("is of searches: evaluations counts segments", (*_KEY, "until", "trials"))
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
