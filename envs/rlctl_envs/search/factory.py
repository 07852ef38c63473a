"""Makes searches over the configuration's programs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rlctl.config.validation import check_options, did_you_mean
from rlctl.core.campaign_factory import CampaignFactory
from rlctl.core.errors import ConfigError, Key, brief
from rlctl.core.machine import Capacity
from rlctl.core.task import Failure, Resources, TaskId, TaskSpec
from rlctl.executors.pool import NodePool
from rlctl.plugins.fittable import TwinFit
from rlctl.plugins.recorded_table import RecordedTable
from rlctl.plugins.table_twin import fit_table, table_rows
from rlctl.programs.configured import ConfiguredPrograms
from rlctl.programs.program import BUILT_IN, EvaluationRequest, Program
from rlctl.surrogates.campaign_prior import PriorFolder
from rlctl.surrogates.held_out import Agreement, agreement
from rlctl.system.files import write_atomically
from rlctl_envs.search.campaign import SearchCampaign
from rlctl_envs.search.configured_space import configured_space
from rlctl_envs.search.earlier_campaigns import PRIOR_DIGEST, EarlierCampaigns, fitting_prior, prior_inputs
from rlctl_envs.search.known_results import read_known
from rlctl_envs.search.objective import SearchObjective
from rlctl_envs.search.options import CHANGEABLE, SearchOptions, StageOptions, usual_s
from rlctl_envs.search.problem import Problem
from rlctl_envs.search.search_state import SearchState
from rlctl_envs.search.trials import Trial
from rlctl_envs.search.twin import SearchTwin
from rlctl_envs.search.twin_problems import TwinProblems

_KEY = ("campaign", "options")
_LIMITS = {Failure.TIMEOUT: "timeout", Failure.MEMORY: "memory"}


class Stage(NamedTuple):
    """A stage with its program.

    Attributes:
        name: empty if it is the only one.
        program: that it runs.
        values: placeholders besides the parameters.
        resources: what an evaluation may occupy.
    """

    name: str
    program: Program
    values: Mapping[str, Any]
    resources: list[Resources]


class Search(CampaignFactory):
    """One-shot evaluations of a program, in search of its best parameters; see ``SearchOptions``."""

    name = "search"
    version = 1
    runs_programs: ClassVar[bool] = True
    default_policy = "target_per_second"
    default_fallback = "random_search"
    by_hand: ClassVar[bool] = True
    scaling_rule: ClassVar[str] = "scaling_design"
    changeable = (
        *(f"campaign.options.{key}" for key in ("until", "allocation_s", "start_late", "known")),
        *(*CHANGEABLE, "machine.nodes", "machine.cores"),
    )

    def __init__(self, options: Mapping[str, Any] | None, programs: ConfiguredPrograms) -> None:
        self.options: SearchOptions = check_options(SearchOptions, options, ".".join(_KEY))
        self.space = configured_space(self.options, programs.folder, _KEY)
        self.stages = [self._stage(i, programs) for i in range(max(1, len(self.options.stages)))]
        names = self.options.stage_names
        twice = next((i for i, name in enumerate(names) if name in names[:i]), None)
        if twice is not None:
            raise ConfigError(f"{names[twice]!r} names an earlier stage", (*_KEY, "stages", str(twice), "name"))
        if self.options.counts is not None and self.options.counts not in names:
            hint = did_you_mean(self.options.counts, names)
            raise ConfigError(f"there is no stage {brief(self.options.counts)}; {hint}", (*_KEY, "counts"))
        self.objective = self._objective()
        for i, start in enumerate(self.options.starts):
            try:
                self._check_start(start)
            except ConfigError as error:
                raise ConfigError(error.problem, (*_KEY, "starts", str(i), *(error.key or ()))) from None
        self.counts, self._folder = self.options.counting_stage, programs.folder
        given = (programs.twin, self.options, self.space, self.objective, self.results)
        self._twin = TwinProblems(*given, [stage.resources for stage in self.stages], self._usual_s)

    def check(self, capacity: Capacity, real: bool) -> None:
        """Refuse a machine on which a stage cannot run, and a twin that is not there or of another search."""
        self._twin.check()
        _ = self._prior
        pool = NodePool(capacity)
        for stage in self.stages:
            if not any(pool.ever(need) for need in stage.resources):
                raise ConfigError(
                    f"no choice of resources fits on {capacity.nodes} nodes of {capacity.node()}: ask for less, or set "
                    "machine",
                    (*stage.program.key, "resources"),
                )

    def campaign(self, seed: int) -> SearchCampaign:
        """The campaign of instance ``seed``."""

        def specify(trial: Trial) -> TaskSpec:
            return self.task(trial, seed)

        return SearchCampaign(
            self.options,
            self.space,
            self.objective,
            [stage.resources for stage in self.stages],
            specify,
            [stage.program.options.walltime_s for stage in self.stages],
            self._consequence,
            seed,
            self.results,
            None if self._prior is None else self._prior.prior.outputs,
        )

    def known(self) -> Sequence[Mapping[str, Any]]:
        """The rows of ``options.known``."""
        if self.options.known is None:
            return ()
        try:
            path = self._folder / self.options.known
            return read_known(path, self.space, self.options, self.results, self.objective)
        except ConfigError as error:
            raise ConfigError(error.problem, (*_KEY, "known")) from None

    @property
    def results(self) -> list[str]:
        """Names of what the programs' readers find."""
        return list(dict.fromkeys(name for stage in self.stages for name in stage.program.options.results))

    def prepare(self, folder: Path, seed: int) -> None:
        """Write the descriptions of the programs, and which prior is used."""
        for program in self._programs():
            program.prepare(folder)
        if self._prior is not None:
            write_atomically(folder / PRIOR_DIGEST, self._prior.digest + "\n")

    def changed_input(self, folder: Path) -> str | None:
        """A template, or the prior."""
        file = folder / PRIOR_DIGEST
        if self._prior is not None and file.exists() and file.read_text().strip() != self._prior.digest:
            return str(self.options.prior)
        return next(filter(None, (program.changed_template(folder) for program in self._programs())), None)

    def _programs(self) -> Collection[Program]:
        return {stage.program.name: stage.program for stage in self.stages}.values()

    def sample_tasks(self, capacity: Capacity, seed: int) -> Sequence[tuple[Key, TaskSpec]]:
        """An evaluation of each stage, as the configuration lists its resources first, and one with the most ranks."""
        pool, tasks = NodePool(capacity), list[tuple[Key, TaskSpec]]()
        if self.options.starts:
            point = self.space.point(self.options.starts[0])
        else:
            point = self.space.sample(np.random.default_rng(seed), 1)[0]
        for number, stage in enumerate(self.stages):
            possible = [need for need in stage.resources if pool.ever(need)]
            for need in dict.fromkeys((possible[0], max(possible, key=lambda need: need.ranks))):
                values = self.space.values(point)
                trial = Trial(0, point, (), values, number, need, TaskId("0000"), nodes=1.0, queued_s=0.0)
                tasks += stage.program.samples(trial.uid, self.request(trial, seed))
        return tasks

    def task(self, trial: Trial, seed: int) -> TaskSpec:
        """The task of a trial of instance ``seed``."""
        stage = self.stages[trial.stage]
        task = stage.program.task(trial.uid, self.request(trial, seed))
        return replace(
            task, parameters={"evaluation": trial.number, "stage": stage.name, "parameters": dict(trial.values)}
        )

    def fit_twin(self, sources: Sequence[RecordedTable], seed: int) -> TwinFit:
        """Fit models to recorded evaluations."""
        return fit_table(self._twin.columns, sources, seed)

    def twin_about(self) -> Mapping[str, Any]:
        """What is known about the fitted twin."""
        return self._twin.fitted.about

    def compare_twin(self, source: RecordedTable) -> Agreement:
        """How well it predicts these evaluations."""
        rows = table_rows(self._twin.columns, [source], fewest=1)
        if not len(rows):
            raise ConfigError(f"{source.path} has no evaluations that have ended")
        return agreement(self._twin.fitted.model, rows)

    def transfer(self, capacity: Capacity) -> EarlierCampaigns:
        """Earlier campaigns, and the twin's, as models read them."""
        resources = [stage.resources for stage in self.stages]
        state = SearchState(self.options, self.space, self.objective, resources, capacity)
        return EarlierCampaigns(state, self._twin.columns, self._twin.drawn)

    def prior_digest(self) -> str | None:
        """Of the prior that the options name."""
        return None if self._prior is None else self._prior.digest

    @cached_property
    def _prior(self) -> PriorFolder | None:
        """What earlier campaigns say; read when it is first asked for, since ``rlctl learn`` does without."""
        if self.options.prior is None:
            return None
        try:
            return fitting_prior(self._folder / self.options.prior, prior_inputs(self._twin.columns, self.objective))
        except ConfigError as error:
            raise ConfigError(error.problem, (*_KEY, "prior")) from None

    def scaling_options(self, points: int) -> dict[str, Any]:
        """Options with which points are evaluated on every choice of resources.

        The search ends with the first result of one more point, since it counts points, not evaluations.
        """
        return {"until": {"evaluations": points + 1}, "noisy": True, "repeats": 1, "starts": [], "allocation_s": None}

    def problem(self, seed: int) -> Problem:
        """What evaluations of instance ``seed`` give on the twin."""
        return self._twin.of(seed)

    @property
    def _usual_s(self) -> float:
        return usual_s(self.stages[self.counts].program.options.walltime_s)

    def task_model(self, seed: int) -> SearchTwin:
        """What the evaluations of instance ``seed`` would give."""
        progress = self.stages[self.counts].program.options.progress
        kinds = [kind.then for stage in self.stages for kind in stage.program.options.failures.values()]
        return SearchTwin(
            self.problem(seed),
            self.space,
            self.options.stage_names,
            self.objective.signs[0] if self.objective.signs else 1.0,
            "infeasible" in kinds,
            None if progress is None else max(progress.every_s, self._usual_s / 10.0),
            seed,
        )

    def privileged(self, seed: int) -> NDArray[np.float32]:
        """Hidden quantities of the problem, [9]."""
        return np.array(self.problem(seed).hidden(), np.float32)

    def hidden(self, seed: int) -> list[float]:
        """The same, and further numbers of the problem."""
        problem = self.problem(seed)
        return [*problem.hidden(), *problem.shapes()]

    def request(self, trial: Trial, seed: int) -> EvaluationRequest:
        """What a trial of instance ``seed`` asks of its program."""
        stage = self.stages[trial.stage]
        chance = int(np.random.SeedSequence([seed, trial.number]).generate_state(1)[0]) & 0x7FFFFFFF
        return EvaluationRequest(
            trial.number,
            {**stage.values, **trial.values},
            trial.resources,
            seed=chance,
            stage=stage.name,
            walltime_s=trial.walltime_s,
        )

    # Making it.

    def _stage(self, number: int, programs: ConfiguredPrograms) -> Stage:
        given = bool(self.options.stages)
        stage = self.options.stages[number] if given else StageOptions(name="")
        key: Key = (*_KEY, "stages", str(number))
        name, options = programs.options(stage.program, (*key, "program") if given else programs.key("program"))
        taken = next((n for n in stage.values if n in self.space.names or n in BUILT_IN), None)
        if taken is not None:
            raise ConfigError("is a parameter, or a placeholder of every program", (*key, "values", taken))
        program = programs.program(name, {*self.space.names, *stage.values})
        both = next((n for n in options.results if n in self.space.names), None)
        if both is not None:
            raise ConfigError("a parameter has this name", (*program.key, "results", both))
        return Stage(stage.name, program, stage.values, program.resources)

    def _objective(self) -> SearchObjective:
        for stage in self.stages:
            try:
                objective = SearchObjective(self.options.objective, {*self.space.names, *stage.program.options.results})
            except ConfigError as error:
                where = f"stage {stage.name}: " if len(self.stages) > 1 else ""
                raise ConfigError(f"{where}{error.problem}", (*_KEY, *(error.key or ("objective",)))) from None
        until = self.options.until
        if until.value is not None and len(objective.names) != 1:
            raise ConfigError("is of one objective, and there are others or none", (*_KEY, "until", "value"))
        if until.found is not None and not objective.finds:
            raise ConfigError("counts results that fulfil objective.find: add it", (*_KEY, "until", "found"))
        return objective

    def _check_start(self, start: Mapping[str, Any]) -> None:
        self.space.point(start)
        if not self.space.allowed(start):
            raise ConfigError("does not fulfil the constraints")

    def _consequence(self, stage: int, failure: Failure) -> str:
        """What follows from a failure that the executor has found: fail, infeasible or stop."""
        kind = self.stages[stage].program.options.failures.get(_LIMITS.get(failure, ""))
        return "fail" if kind is None else kind.then
