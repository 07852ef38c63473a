"""Results of a run that its twin thinks impossible: a policy finds a program's faults sooner than people do.

The twin is asked for the run's own tasks, with the run's own parameters, in the order in which they started, so that
what one task leaves for the next is the twin's own too. It is asked many times: of a factory that is ``Repeatable``,
with chance drawn anew each time; of any other, as other instances, which differ by more. A number far beyond all
answers is named. Whether the program errs or the twin does is for people to find out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlctl.core.campaign_factory import CampaignFactory
from rlctl.core.errors import RlctlError
from rlctl.core.simulation import Launch, Simulated, TaskModel
from rlctl.core.task import Resources, TaskSpec, TaskState
from rlctl.environments.twin_rollouts import Batch
from rlctl.evaluation.success_curves import spread_instances
from rlctl.monitoring.progress import Progress
from rlctl.monitoring.timeline import Attempt
from rlctl.plugins.registry import campaign_factory
from rlctl.steering.run_folder import RunFolder

TWINS = 32
"""Answers to each task, with chance drawn anew."""
INSTANCES = 12
"""Answers to each task, as other instances."""
FEWEST = 8
"""With fewer answers that hold a quantity, nothing is said of it."""
BEYOND = 1.5
"""How far beyond the answers' range a number has to be, in widths of that range."""
MOST_TASKS = 2000
"""So many tasks are looked at, the first ones, since each may start from what those before it have left."""


@dataclass(frozen=True, slots=True)
class ImplausibleValue:
    """A number in a result.

    Attributes:
        quantity: its name among the values; ``bands[2]``: the third of several.
        low, high: of the twin's answers to the same task.
    """

    uid: str
    quantity: str
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Plausibility:
    """What the twin thinks of a run's results.

    Attributes:
        looked: tasks that enough twins have answered, of ``results``.
        repeated: whether chance was drawn anew, and not other instances asked.
        complaint: why none could be; empty: they were.
    """

    looked: int = 0
    results: int = 0
    repeated: bool = False
    impossible: Sequence[ImplausibleValue] = ()
    complaint: str = ""

    @property
    def tasks(self) -> int:
        """Tasks with a number that the twin thinks impossible."""
        return len({found.uid for found in self.impossible})


def plausibility(run: RunFolder, progress: Progress) -> Plausibility:
    """Ask the twin; a campaign that has none, or is gone, is complained about."""
    section = run.config.campaign
    try:
        factory = campaign_factory(section.name, section.options)
    except RlctlError as error:
        return Plausibility(complaint=str(error))
    if not factory.has_twin:
        return Plausibility(complaint=f"campaign {section.name} has none")
    instance = int(run.header.get("instance", 0))
    try:
        models = factory.repetitions(instance, TWINS)
        repeated = bool(models)
        if not repeated:
            models = [factory.task_model(i) for i in (instance, *spread_instances(run.config.seed, INSTANCES - 1))]
    except Exception as error:  # another package's code
        return Plausibility(complaint=repr(error))
    given = {attempt.uid: attempt.parameters for attempt in run.timeline.attempts if attempt.parameters}
    done = [attempt for attempt in run.timeline.attempts if attempt.state is TaskState.DONE]
    done.sort(key=lambda attempt: attempt.launched_s or 0.0)
    found: list[ImplausibleValue] = []
    looked = 0
    progress.start("asking the twin about the results", min(len(done), MOST_TASKS), "tasks")
    try:
        for attempt in done[:MOST_TASKS]:
            told = answers(factory, models, attempt, given.get(attempt.uid, {}))
            looked += len(told) >= FEWEST
            found += beyond(attempt, told)
            progress.advance(1.0)
    finally:
        progress.stop()
    return Plausibility(looked, len(done), repeated, found)


def beyond(attempt: Attempt, told: Sequence[Mapping[str, Any]]) -> list[ImplausibleValue]:
    """The numbers in a result that are further from all answers than ``BEYOND`` says.

    Truth values are no numbers, and nothing is said where all answers are equal.
    """
    samples: dict[str, list[float]] = {}
    for answer in told:
        for name, value in _numbers(answer):
            if math.isfinite(value):
                samples.setdefault(name, []).append(value)
    found = []
    for name, value in _numbers(attempt.values):
        sample = samples.get(name, [])
        if len(sample) >= FEWEST:
            low, high = min(sample), max(sample)
            margin = BEYOND * (high - low)
            # Written so that a NaN does not pass.
            if margin > 0.0 and not low - margin <= value <= high + margin:
                found.append(ImplausibleValue(attempt.uid, name, value, low, high))
    return found


def answers(
    factory: CampaignFactory, models: Sequence[TaskModel], attempt: Attempt, parameters: Mapping[str, Any]
) -> list[Mapping[str, Any]]:
    """What task models say to the task of an attempt: the values of those that can follow, and do not fail."""
    resources = Resources(ranks=max(len(attempt.cores), 1))
    spec = TaskSpec(attempt.uid, executable="-", parameters=parameters, resources=resources)
    wanted = [(model, Launch(spec, attempt.attempt)) for model in models]
    told = _told(factory.outcomes, wanted)
    if told is None:
        told = [simulated for one in wanted for simulated in _told(factory.outcomes, [one]) or []]
    return [simulated.values for simulated in told if simulated.failure is None]


def _told(batch: Batch, wanted: Sequence[tuple[TaskModel, Launch]]) -> list[Simulated] | None:
    """None: not all can follow. Another instance may lack the task, another chance the file that it starts from."""
    try:
        return batch(wanted)
    except Exception:  # of models of any package
        return None


def _numbers(values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Each number with its name, those in lists and mappings too."""
    for name, value in values.items():
        if isinstance(value, list | tuple):
            yield from _numbers({f"{name}[{i}]": one for i, one in enumerate(value)})
        elif isinstance(value, Mapping):
            yield from _numbers({f"{name}.{key}": one for key, one in value.items()})
        elif isinstance(value, int | float) and not isinstance(value, bool):
            try:
                yield name, float(value)
            except OverflowError:  # a whole number of more than 308 digits
                yield name, math.inf if value > 0 else -math.inf
