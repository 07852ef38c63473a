"""Finds results of a run that its twin cannot reproduce, since policies exploit errors of programs.

The twin repeats the tasks of the run with their parameters, in the order in which they started, so that each one starts
from what the twin's earlier tasks left. It does so many times: with new random numbers where the factory has
``repetitions``, and otherwise as other instances, which vary more. Values far outside the range of the twin's results
are reported. Either the program or the twin may be wrong.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlctl.core.campaign_factory import CampaignFactory
from rlctl.core.errors import RlctlError
from rlctl.core.json_values import leaves
from rlctl.core.simulation import Launch, Simulated, TaskModel
from rlctl.core.task import Resources, TaskSpec, TaskState
from rlctl.evaluation.success_curves import spread_instances
from rlctl.monitoring.progress import Progress, working
from rlctl.monitoring.timeline import TaskAttempt
from rlctl.plugins.registry import configured_campaign
from rlctl.steering.run_folder import RunFolder

REPETITIONS = 32
"""Twin results of each task with new random numbers."""
INSTANCES = 12
"""Twin results of each task from other instances."""
FEWEST = 8
"""Fewest twin results of a quantity to judge it by."""
BEYOND = 1.5
"""Implausible distance from the range of the twin's results, in widths of that range."""
MOST_TASKS = 2000
"""Number of tasks that are checked, the first ones, since each may depend on those before it."""


@dataclass(frozen=True, slots=True)
class ImplausibleValue:
    """A number in the result of a task.

    Attributes:
        quantity: its name among the values; ``bands[2]`` is the third of a list.
        low, high: range of the twin's results.
    """

    uid: str
    quantity: str
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Plausibility:
    """Comparison of a run's results with those of its twin.

    Attributes:
        checked: tasks with enough results of the twin, of all ``results``.
        repeated: whether the twin used new random numbers rather than other instances.
        problem: why the twin could not run; empty if it did.
    """

    checked: int = 0
    results: int = 0
    repeated: bool = False
    implausible: Sequence[ImplausibleValue] = ()
    problem: str = ""

    @property
    def tasks(self) -> int:
        """Number of tasks with an implausible value."""
        return len({found.uid for found in self.implausible})


def plausibility(run: RunFolder, progress: Progress) -> Plausibility:
    """Compare the results of a run with those of its twin."""
    instance = int(run.header.get("instance", 0))
    try:
        factory = configured_campaign(run.config)
        if not factory.has_twin:
            return Plausibility(problem=f"campaign {factory.name} has none")
        models = factory.repetitions(instance, REPETITIONS)
        repeated = bool(models)
        if not repeated:
            models = [factory.task_model(i) for i in (instance, *spread_instances(run.config.seed, INSTANCES - 1))]
    except Exception as error:  # code of another package
        return Plausibility(problem=str(error) if isinstance(error, RlctlError) else repr(error))
    parameters = {attempt.uid: attempt.parameters for attempt in run.timeline.attempts if attempt.parameters}
    done = [attempt for attempt in run.timeline.attempts if attempt.state is TaskState.DONE]
    done.sort(key=lambda attempt: attempt.launched_s or 0.0)
    found: list[ImplausibleValue] = []
    checked = 0
    with working(progress, "comparing results with the twin", min(len(done), MOST_TASKS), "tasks"):
        for attempt in done[:MOST_TASKS]:
            results = twin_results(factory, models, attempt, parameters.get(attempt.uid, {}))
            checked += len(results) >= FEWEST
            found += implausible_values(attempt, results)
            progress.advance(1.0)
    return Plausibility(checked, len(done), repeated, found)


def implausible_values(attempt: TaskAttempt, twin: Sequence[Mapping[str, Any]]) -> list[ImplausibleValue]:
    """Numbers in the result of an attempt that lie far outside the range of the twin's results.

    Booleans are ignored, and so are quantities for which all results of the twin are equal.
    """
    samples: dict[str, list[float]] = {}
    for values in twin:
        for name, value in _numbers(values):
            if math.isfinite(value):
                samples.setdefault(name, []).append(value)
    found = []
    for name, value in _numbers(attempt.values):
        sample = samples.get(name, [])
        if len(sample) >= FEWEST:
            low, high = min(sample), max(sample)
            margin = BEYOND * (high - low)
            # In this form the condition holds for NaN too.
            if margin > 0.0 and not low - margin <= value <= high + margin:
                found.append(ImplausibleValue(attempt.uid, name, value, low, high))
    return found


def twin_results(
    factory: CampaignFactory, models: Sequence[TaskModel], attempt: TaskAttempt, parameters: Mapping[str, Any]
) -> list[Mapping[str, Any]]:
    """Values of the task of an attempt according to the task models that can run it and do not fail."""
    resources = Resources(ranks=max(len(attempt.cores), 1))
    spec = TaskSpec(attempt.uid, executable="-", parameters=parameters, resources=resources)
    launches = [(model, Launch(spec, attempt.attempt)) for model in models]
    outcomes = _outcomes(factory, launches)
    if outcomes is None:
        outcomes = [outcome for one in launches for outcome in _outcomes(factory, [one]) or []]
    return [outcome.values for outcome in outcomes if outcome.failure is None]


def _outcomes(factory: CampaignFactory, launches: Sequence[tuple[TaskModel, Launch]]) -> list[Simulated] | None:
    """None if a model cannot run the task, e.g. since another instance lacks it or the file that it starts from."""
    try:
        return factory.outcomes(launches)
    except Exception:  # code of another package
        return None


def _numbers(values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Numbers with their names, also those in lists and mappings."""
    for path, value in leaves(values):
        if isinstance(value, int | float) and not isinstance(value, bool):
            name = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).removeprefix(".")
            try:
                yield name, float(value)
            except OverflowError:  # an integer of more than 308 digits
                yield name, math.inf if value > 0 else -math.inf
