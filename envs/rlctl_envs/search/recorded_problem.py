"""Recorded evaluations as a problem: each evaluation of a point is one of those that were recorded there."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rlctl.core.errors import ConfigError
from rlctl.core.task import Resources
from rlctl.plugins.recorded_table import seconds_of
from rlctl_envs.search.evaluated_points import Space
from rlctl_envs.search.known_results import TABLE, recorded_lines, recorded_number, recorded_point, recorded_row
from rlctl_envs.search.objective import Assessment, SearchObjective
from rlctl_envs.search.options import SearchOptions
from rlctl_envs.search.parameters import Floats
from rlctl_envs.search.problem import SimulatedRun

Key = tuple[int, ...]


@dataclass
class _Recorded:
    """What was recorded of a point at a stage."""

    outputs: list[Mapping[str, float]] = field(default_factory=list)
    assessments: list[Assessment | None] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


class RecordedProblem:
    """The same problem for all instances, which differ by what is drawn for each evaluation.

    A point that was recorded as infeasible, once or more often, gives no result as often. Rows of other points are left
    out, and so are evaluations that failed or were stopped.

    Args:
        path: CSV file with columns for points, results and ``duration_s``; or a run folder.
        space: of the points.
        options: of the search.
        results: names of results.
        objective: what results are worth.

    Raises:
        ConfigError: the file cannot be used, or lacks a point; it names file and line.
    """

    def __init__(
        self, path: Path, space: Space, options: SearchOptions, results: Sequence[str], objective: SearchObjective
    ) -> None:
        file = path / TABLE if path.is_dir() else path
        self._space, self._stage, self._found = space, options.counting_stage, dict[Key, _Recorded]()
        self._goal = options.until.value is None and options.until.found is None and not options.noisy
        for line, cells in recorded_lines(file, space.names, results):
            where = f"{file}:{line}"
            try:
                point = recorded_point(space, options.parameters, cells)
            except ConfigError:  # candidates that a constraint leaves out
                continue
            row = recorded_row(where, cells, space, options, results, objective)
            if row is None:
                continue
            at = self._found.setdefault(self._key(point, row["stage"]), _Recorded())
            at.outputs.append(row["results"])
            values = {**row["parameters"], **row["results"]}
            at.assessments.append(None if row["infeasible"] else objective.assess(values))
            at.seconds.append(_seconds(where, cells))
        self._require_all(file, options)
        all_of = [one for point in space.all_points() for one in self.at(point)]
        losses = [one.losses[0] for one in all_of if one is not None and one.losses and one.feasible]
        self.unit = float(np.std(losses)) if len(losses) > 1 else 1.0
        self._least = min(losses, default=math.inf)

    def at(self, point: Floats) -> Sequence[Assessment | None]:
        """What was recorded of a point at the stage that counts; None: it had no result."""
        return tuple(self._found[self._key(point, self._stage)].assessments)

    def run(self, point: Floats, stage: int, need: Resources, rng: np.random.Generator) -> SimulatedRun:
        """One of the recorded evaluations; where there is no other goal, the best point is one."""
        at = self._found[self._key(point, stage)]
        i = int(rng.integers(len(at.seconds)))
        found = at.assessments[i]
        if found is None:
            return SimulatedRun(at.seconds[i], failed=True)
        best = self._goal and stage == self._stage and bool(found.losses) and found.losses[0] <= self._least
        return SimulatedRun(at.seconds[i], False, at.outputs[i], list(found.losses), list(found.margins), [best])

    def hidden(self) -> Sequence[float]:
        """See ``Problem``: what was recorded is no secret."""
        return (0.0,) * 9

    def shapes(self) -> Sequence[float]:
        """Likewise."""
        return ()

    def _key(self, point: Floats, stage: int) -> Key:
        return (stage, *self._space.identities(np.asarray(point)[None])[0])

    def _require_all(self, file: Path, options: SearchOptions) -> None:
        points = self._space.all_points()
        if not len(points):
            raise ConfigError("needs a search of few points: candidates, or choices")
        for stage, name in enumerate(options.stage_names):
            for point in points:
                if self._key(point, stage) not in self._found:
                    shown = ", ".join(f"{name} {value}" for name, value in self._space.values(point).items())
                    raise ConfigError(f"{file}: no evaluation of {shown}{f' at stage {name}' if name else ''}")


def _seconds(where: str, cells: Mapping[str, str]) -> float:
    """How long a recorded evaluation took."""
    names = ("duration_s",) if cells.get("duration_s") else ("started_s", "ended_s")
    try:
        numbers = {name: recorded_number(name, cells.get(name, "")) for name in names}
    except ConfigError as error:
        raise ConfigError(f"{where}: {error.problem}: give duration_s, or started_s and ended_s") from None
    try:
        return seconds_of(numbers)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error.problem}") from None
