"""Tunes the parameters of a rule by CMA-ES (Hansen, arXiv:1604.00772), so that comparisons see the rule at its best.

The search runs in the unit cube of the rule's ``SPACE``. Each generation runs all candidates on the same new training
instances, which removes most of the noise between candidates and prevents overfitting. The winners of the generations
are then compared on a larger set, since the winner of a noisy generation is partly lucky.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cmaes
import numpy as np
import yaml
from numpy.typing import NDArray

from rlctl.config.load import config_hash, game_hash, load_rule_file
from rlctl.config.provenance import provenance
from rlctl.config.validation import key_prefix
from rlctl.core.errors import ConfigError, StorageError, brief
from rlctl.evaluation.rollout import TUNING, VALIDATION, Rollout, RolloutPool, draw_instances
from rlctl.monitoring.progress import Progress, working
from rlctl.plugins.registry import configured_campaign, policy_factory
from rlctl.system.files import write_atomically

if TYPE_CHECKING:
    from rlctl.config.schema import Config

SCHEMA = 1
FINALISTS = 6

Parameters = dict[str, float]


@dataclass(frozen=True, slots=True)
class CandidateCost:
    """Cost of a candidate over some instances; see ``Rollout.cost``."""

    cost: float
    successes: int
    episodes: int
    decisions: int

    @property
    def objective(self) -> float:
        """Logarithm of the cost per success; half a success more keeps it finite without success."""
        return math.log(self.cost / (self.successes + 0.5))


Evaluate = Callable[[Sequence[Parameters], Sequence[int]], Sequence[CandidateCost]]
"""Runs every candidate on every instance."""


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """Size of the search.

    Attributes:
        population: candidates per generation; None: 4 + 3 ln(number of parameters).
        instances: training instances per generation.
        validation: training instances for the comparison of finalists.
        decisions: in place of ``generations``: as many as fit in so many decisions on the twin, with the comparison of
            finalists included, which takes a quarter of them at most; at least one generation.
        step: deviation of the first generation, in units of a parameter's whole range.
    """

    generations: int = 30
    population: int | None = None
    instances: int = 24
    validation: int = 192
    seed: int = 0
    decisions: int | None = None
    step: float = 0.25


@dataclass(frozen=True, slots=True)
class Tuned:
    """The best parameters, and the size of the search.

    Attributes:
        cost: node-seconds per success over the validation instances.
        start_cost: the same for the initial parameters.
    """

    parameters: Parameters
    cost: float
    start_cost: float
    population: int
    episodes: int
    decisions: int


class ParameterSpace:
    """Maps a rule's ``SPACE`` (low, high, and optionally "log" or "int") to the unit cube."""

    def __init__(self, space: Mapping[str, Sequence[Any]]) -> None:
        kinds = {name: str(entry[2]) if len(entry) > 2 else "linear" for name, entry in space.items()}
        unknown = set(kinds.values()) - {"linear", "log", "int"}
        if not space or unknown:
            raise ConfigError(f"the rule's SPACE is empty or has unknown kinds {sorted(unknown)}")
        self.axes = {
            name: (kind, self._in(space[name][0], kind), self._in(space[name][1], kind)) for name, kind in kinds.items()
        }

    def decode(self, point: NDArray[np.float64]) -> Parameters:
        """Parameters at a point of the cube."""
        values = {}
        for (name, (kind, low, high)), x in zip(self.axes.items(), point, strict=True):
            value = low + float(x) * (high - low)
            values[name] = round(value) if kind == "int" else math.exp(value) if kind == "log" else value
        return values

    def encode(self, parameters: Mapping[str, float]) -> NDArray[np.float64]:
        """The point of the cube nearest to the given parameters; 0.5 for missing ones."""
        point = [
            (self._in(parameters[name], kind) - low) / (high - low) if name in parameters else 0.5
            for name, (kind, low, high) in self.axes.items()
        ]
        return np.clip(np.array(point, dtype=np.float64), 0.0, 1.0)

    def require(self, parameters: Mapping[str, float]) -> None:
        """Raise ConfigError if a parameter lies outside the cube."""
        for name, (kind, low, high) in self.axes.items():
            value = parameters.get(name)
            inside = value is None or ((value > 0.0 or kind != "log") and low <= self._in(value, kind) <= high)
            if not inside:
                ends = [f"{math.exp(end) if kind == 'log' else end:g}" for end in (low, high)]
                raise ConfigError(f"{value:g} is outside the search range {ends[0]} to {ends[1]}", (name,))

    @staticmethod
    def _in(value: float, kind: str) -> float:
        return math.log(value) if kind == "log" else float(value)


def search(
    space: ParameterSpace, evaluate: Evaluate, settings: SearchSettings, start: Mapping[str, float], progress: Progress
) -> Tuned:
    """Minimise ``CandidateCost.objective``.

    Args:
        evaluate: runs candidates on instances, and advances the progress by each campaign.
        start: initial parameters, which are also among the finalists.
    """
    first = space.encode(start)
    # cmaes needs two dimensions: a rule with one parameter gets a second one without effect.
    width = max(len(first), 2)
    mean = np.concatenate([first, np.full(width - len(first), 0.5)])
    optimiser = cmaes.CMA(
        mean=mean,
        sigma=settings.step,
        bounds=np.tile([0.0, 1.0], (width, 1)),
        seed=settings.seed % 2**32,
        population_size=settings.population,
    )
    size, episodes, decisions = optimiser.population_size, 0, 0
    best: list[tuple[float, Parameters]] = []
    validation = settings.validation
    last = (2 + min(settings.generations, FINALISTS - 1)) * validation
    total = settings.generations * size * settings.instances + last
    with working(
        progress, "tuning", *((settings.decisions, "decisions") if settings.decisions else (total, "campaigns"))
    ):
        generation, more = 0, True
        while more:
            points = [optimiser.ask() for _ in range(size)]
            candidates = [space.decode(point[: len(first)]) for point in points]
            instances = draw_instances(settings.seed, TUNING, settings.instances, batch=generation)
            costs = evaluate(candidates, instances)
            optimiser.tell([(point, one.objective) for point, one in zip(points, costs, strict=True)])
            cost, winner = min((one.objective, i) for i, one in enumerate(costs))
            best.append((cost, candidates[winner]))
            episodes += sum(one.episodes for one in costs)
            decisions += sum(one.decisions for one in costs)
            progress.advance(0, f"generation {generation + 1}, {math.exp(cost):.4g} per success")
            generation += 1
            more = generation < settings.generations
            if settings.decisions is not None:
                most = settings.decisions * episodes / decisions  # campaigns in all
                validation = max(min(validation, int(most / 4 / (FINALISTS + 1))), settings.instances)
                more = episodes + size * settings.instances + (FINALISTS + 1) * validation <= most
        leaders = [parameters for _, parameters in sorted(best, key=lambda entry: entry[0])[: FINALISTS - 1]]
        centre = space.decode(np.clip(optimiser.mean, 0.0, 1.0)[: len(first)])
        finalists = [space.decode(first), centre, *leaders]
        progress.advance(0, "comparing the finalists")
        costs = evaluate(finalists, draw_instances(settings.seed, VALIDATION, validation))
    cost, winner = min((one.objective, i) for i, one in enumerate(costs))
    return Tuned(
        parameters=finalists[winner],
        cost=math.exp(cost),
        start_cost=math.exp(costs[0].objective),
        population=size,
        episodes=episodes + sum(one.episodes for one in costs),
        decisions=decisions + sum(one.decisions for one in costs),
    )


def tune(
    config: Config,
    rule: str,
    out: Path,
    progress: Progress,
    settings: SearchSettings | None = None,
    workers: int = 1,
    start: Mapping[str, Any] | None = None,
) -> Tuned:
    """Tune a registered rule on the configured campaign and write the rule file ``out``.

    Args:
        settings: size of the search; None: the defaults with the configuration's seed.
        start: initial parameters; those outside the search space keep their values. None: the rule's defaults.

    Raises:
        ConfigError: the rule is unknown or has no parameters to tune.
    """
    settings = settings or SearchSettings(seed=config.seed)
    make = policy_factory(rule)
    if not make.SPACE:
        raise ConfigError(f"rule {rule!r} has no parameters to tune")
    space = ParameterSpace(make.SPACE)
    first = _defaults(make(start), space) | {k: v for k, v in (start or {}).items() if k in space.axes}
    fixed = {name: value for name, value in (start or {}).items() if name not in space.axes}
    factory, capacity, began_s = configured_campaign(config), config.machine.capacity(), _cpu_seconds()
    with RolloutPool(factory, capacity, workers) as pool:

        def evaluate(candidates: Sequence[Parameters], instances: Sequence[int]) -> list[CandidateCost]:
            entries = [(make(**fixed, **candidate), instance) for candidate in candidates for instance in instances]
            at_once = factory.play(capacity, entries)
            parts: Iterable[Mapping[int, Mapping[str, float]]] = [dict(enumerate(at_once or ()))]
            if at_once is None:
                parts = ({n: _figures(one) for n, one in part.items()} for part in pool.run(entries))
            played: dict[int, Mapping[str, float]] = {}
            for part in parts:
                played |= part
                decisions = int(sum(one["decisions"] for one in part.values()))
                progress.advance(len(part) if settings.decisions is None else decisions)
            count = len(instances)
            return [_total([played[i * count + j] for j in range(count)]) for i in range(len(candidates))]

        tuned = search(space, evaluate, settings, first, progress)
    record = _record(config, settings, tuned) | {"game_hash": game_hash(config, factory)}
    record["cpu_seconds"] = round(_cpu_seconds() - began_s, 1)
    write_rule(out, rule, fixed | tuned.parameters, record | ({} if start is None else {"start": dict(start)}))
    return tuned


def require_rule_file(out: Path) -> None:
    """Refuse to replace what is no rule file, such as a configuration."""
    if out.is_file() and out.stat().st_size:
        try:
            load_rule_file(out)
        except ConfigError as error:
            raise StorageError(f"{out} exists, and is no rule file: choose another file with --out") from error


def start_parameters(path: Path, rule: str) -> dict[str, Any]:
    """Parameters in a rule file of ``rule``."""
    file = load_rule_file(path)
    with file.source.located():
        if file.rule != rule:
            raise ConfigError(
                f"{brief(file.rule)} is not the tuned rule {brief(rule)}: give a file of that rule", ("rule",)
            )
        make = policy_factory(rule)
        make(file.parameters)
        if make.SPACE:
            with key_prefix(("parameters",)):
                ParameterSpace(make.SPACE).require(file.parameters)
    return file.parameters


def write_rule(path: Path, rule: str, parameters: Mapping[str, float], tuning: Mapping[str, Any]) -> None:
    """Write a rule file atomically."""
    data = {"schema": SCHEMA, "rule": rule, "parameters": dict(parameters), "tuning": dict(tuning)}
    write_atomically(path, yaml.safe_dump(data, sort_keys=False))


def _record(config: Config, settings: SearchSettings, tuned: Tuned) -> dict[str, Any]:
    found = asdict(tuned)
    del found["parameters"]
    return asdict(settings) | found | {"config_hash": config_hash(config)} | provenance()


def _cpu_seconds() -> float:
    """Processor time of this process, and of its children that have ended."""
    return sum(os.times()[:4])


def _figures(one: Rollout) -> Mapping[str, float]:
    """As ``CampaignFactory.play`` gives them."""
    return {"cost": one.cost, "successes": one.successes, "decisions": one.decisions}


def _total(campaigns: Sequence[Mapping[str, float]]) -> CandidateCost:
    return CandidateCost(
        cost=math.fsum(one["cost"] for one in campaigns),
        successes=int(sum(one["successes"] for one in campaigns)),
        episodes=len(campaigns),
        decisions=int(sum(one["decisions"] for one in campaigns)),
    )


def _defaults(rule: object, space: ParameterSpace) -> Parameters:
    """Defaults of the rule's parameters, as far as it has attributes of their names."""
    values = {name: getattr(rule, name, None) for name in space.axes}
    return {name: value for name, value in values.items() if isinstance(value, int | float)}
