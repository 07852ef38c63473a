"""Results from elsewhere with which a search begins: reads them from a CSV file, or the folder of an earlier run."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlctl.config.validation import did_you_mean
from rlctl.core.errors import ConfigError, brief
from rlctl.core.task import TaskId
from rlctl_envs.search.evaluated_points import Space
from rlctl_envs.search.objective import SearchObjective
from rlctl_envs.search.options import SearchOptions
from rlctl_envs.search.parameters import ChoiceParameter, Floats, Parameter, RangeParameter
from rlctl_envs.search.search_state import SearchState
from rlctl_envs.search.trials import Trial, TrialStatus

TABLE = "evaluations.csv"
"""Of a run folder."""

_RESULT = ("", "done", "known")
"""Values of a column ``status`` that mean a result; ``infeasible`` is one too, and other rows are left out."""

_SKIPPED = ("queued", "running", "failed", "stopped")


def read_known(
    path: Path, space: Space, options: SearchOptions, results: Collection[str], objective: SearchObjective
) -> list[dict[str, Any]]:
    """The rows of a file, ready for JSON.

    Args:
        path: the file, or a run folder.
        space: of the points; its names are columns.
        options: of the search; if it has several stages, a column ``stage`` says which, else it is the one that counts.
        results: names of results, which are columns as far as the objective needs them.
        objective: what results are worth.

    Raises:
        ConfigError: the file cannot be read, or a row cannot be meant; it names file and line.
    """
    file = path / TABLE if path.is_dir() else path
    return [
        row
        for line, cells in recorded_lines(file, space.names, results)
        if (row := recorded_row(f"{file}:{line}", cells, space, options, results, objective)) is not None
    ]


def learn_known(state: SearchState, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add such rows to the trials, but for points of which a result is known already."""
    for row in rows:
        point, stage = state.space.point(row["parameters"]), int(row["stage"])
        if not state.options.noisy and state.tried(point, stage) is not None:
            continue
        number, need, infeasible = len(state.trials), state.resources[stage][0], bool(row["infeasible"])
        values = state.space.values(point)
        trial = Trial(
            number,
            point,
            state.key(point, stage),
            values,
            stage,
            need,
            TaskId(f"evaluation{number:05d}"),
            state.nodes(need),
            state.now_s,
            ended_s=state.now_s,
            status=TrialStatus.INFEASIBLE if infeasible else TrialStatus.KNOWN,
            results=row["results"],
            assessment=None if infeasible else state.objective.assess({**values, **row["results"]}),
            known=True,
        )
        state.know(trial)
    if not state.started and not state.options.noisy:
        state.starts = [point for point in state.starts if state.tried(point, state.counts) is None]


def recorded_lines(
    file: Path, names: Collection[str], results: Collection[str]
) -> Iterator[tuple[int, dict[str, str]]]:
    """Line and cells of each row, by the names in the first line.

    Args:
        file: CSV.
        names: of parameters or columns of candidates.
        results: names of results.

    Raises:
        ConfigError: the file cannot be read, or has no such columns; it names file and line.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as text:
            reader = csv.reader(text)
            columns = [name.strip() for name in next(reader, [])]
            if not set(columns) & set(names):
                hint = did_you_mean(columns[0] if columns else "", names)
                raise ConfigError(f"{file}:1: no column is named after a parameter; {hint}")
            twice = next((name for i, name in enumerate(columns) if name in columns[:i]), None)
            if twice is not None:
                raise ConfigError(f"{file}:1: two columns are named {twice!r}")
            if not set(columns) & set(results):
                raise ConfigError(f"{file}:1: no column is named after a result; known: {', '.join(results)}")
            for cells in reader:
                if len(cells) != len(columns) and cells:
                    raise ConfigError(f"{file}:{reader.line_num}: {len(cells)} cells, the first line {len(columns)}")
                if cells:
                    yield reader.line_num, dict(zip(columns, map(str.strip, cells), strict=True))
    except (OSError, ValueError, csv.Error) as error:
        why = "there is no such file" if isinstance(error, FileNotFoundError) else str(error).splitlines()[0]
        raise ConfigError(f"{file}: {why}") from None


def recorded_row(
    where: str,
    cells: Mapping[str, str],
    space: Space,
    options: SearchOptions,
    results: Collection[str],
    objective: SearchObjective,
) -> dict[str, Any] | None:
    """A row, ready for JSON; None: it says nothing of its point. ``where``: file and line, for messages."""
    stages, parameters = options.stage_names, options.parameters
    status, stage = cells.get("status", ""), options.counting_stage
    if status in _SKIPPED:
        return None
    if status not in (*_RESULT, "infeasible"):
        known = did_you_mean(status, ("done", "infeasible", *_SKIPPED))
        raise ConfigError(f"{where}: status {brief(status)} is not known; {known}")
    if len(stages) > 1 and cells.get("stage"):
        if cells["stage"] not in stages:
            raise ConfigError(f"{where}: there is no stage {cells['stage']!r}; {did_you_mean(cells['stage'], stages)}")
        stage = stages.index(cells["stage"])
    try:
        values = space.values(recorded_point(space, parameters, cells))
        found = {name: recorded_number(name, cells[name]) for name in results if cells.get(name)}
        if status != "infeasible":
            objective.assess({**values, **found})
    except ConfigError as error:
        raise ConfigError(f"{where}: {error.problem}") from None
    return {"parameters": values, "results": found, "stage": stage, "infeasible": status == "infeasible"}


def recorded_point(space: Space, parameters: Mapping[str, Parameter], cells: Mapping[str, str]) -> Floats:
    """The point that the cells of a row mean.

    Raises:
        ConfigError: they mean none of the space.
    """
    cells = {name: cells[name] for name in space.names if name in cells}
    if parameters:
        return space.point({name: _choice(parameters[name], text) for name, text in cells.items()})
    try:
        return space.point({name: _value(text) for name, text in cells.items()})
    except ConfigError:  # texts that look like numbers, in a column that has others too
        return space.point(cells)


def _choice(parameter: Parameter, text: str) -> Any:
    """A cell; of a parameter with choices, the one that it means."""
    value = _value(text)
    if isinstance(parameter, RangeParameter):
        return value
    choices = parameter.choices if isinstance(parameter, ChoiceParameter) else parameter.ordered
    return text if text in choices and value not in choices else value


def _value(text: str) -> Any:
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def recorded_number(name: str, text: str) -> float:
    """The number in a cell."""
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{name}: {brief(text)} is not a number") from None
