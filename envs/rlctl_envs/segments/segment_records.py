"""Reads recorded segments of several runs and files, and checks those that a campaign is to draw from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rlctl.core.errors import ConfigError
from rlctl.plugins.recorded_table import (
    DONE,
    RecordedTable,
    cores_and_gpus,
    ended_status,
    number_of,
    seconds_of,
)
from rlctl_envs.segments.options import SegmentsOptions
from rlctl_envs.segments.recorded_chains import Floats, RecordedSegments

FEWEST = 20
"""Segments that a twin is made of at least."""

_OF_MACHINE = ("signal", "timeout", "lost", "launch")


def read_segments(
    sources: Sequence[RecordedTable], options: SegmentsOptions, results: Sequence[str]
) -> RecordedSegments:
    """The segments that have ended by themselves, each with the results before it.

    Raises:
        ConfigError: a source lacks a column, or has a row that cannot be used; it names file and line.
    """
    length = [options.length_name] if options.length_name else []
    taken, failed = list[tuple[Any, ...]](), 0
    for source in sources:
        source.require(["evaluation", "from", "status", *options.controls, *length, *results])
        found = dict[float, tuple[int, Floats]]()
        for place, row in zip(source.places, source.rows, strict=True):
            try:
                status = ended_status(row)
                if status is not None and row.get("kind") in _OF_MACHINE:
                    failed += 1
                elif status is not None:
                    taken.append(_transition(row, status == DONE, found, len(taken), options, results))
            except ConfigError as error:
                raise ConfigError(f"{place}: {error.problem}") from None
    if not taken:
        raise ConfigError(f"{sources[0].path} has no segments that have ended")
    columns = [np.array(of) for of in zip(*taken, strict=True)]
    ranges = {name: (control.low, control.high) for name, control in options.controls.items()}
    share = failed / max(1, failed + len(taken))
    return RecordedSegments(ranges, options.length_name, list(results), share, *columns)


def require_same(records: RecordedSegments, options: SegmentsOptions, results: Sequence[str]) -> None:
    """Refuse records of another campaign.

    Raises:
        ConfigError: controls, length or results have other names.
    """
    known = ([*records.controls], [records.length] if records.length else [], [*records.results])
    asked = ([*options.controls], [options.length_name] if options.length_name else [], [*results])
    for what, theirs, ours in zip(("control", "length", "result"), known, asked, strict=True):
        for one in (*sorted(set(ours) - set(theirs)), *sorted(set(theirs) - set(ours))):
            problem = f"the twin knows no {what} {one!r}" if one in ours else f"the twin's {what} {one!r} is none here"
            raise ConfigError(f"{problem}: fit it with this configuration")


def _transition(
    row: Mapping[str, Any],
    done: bool,
    found: dict[float, tuple[int, Floats]],
    number: int,
    options: SegmentsOptions,
    results: Sequence[str],
) -> tuple[Any, ...]:
    """The columns of ``RecordedSegments`` of a row; notes its results, and where its simulation began, in ``found``."""
    parent = number_of(row, "from")
    if not math.isnan(parent) and parent not in found:
        raise ConfigError(f"it began with evaluation {parent:g}, which is no earlier row with results")
    first, before = (number, np.full(len(results), np.nan)) if math.isnan(parent) else found[parent]
    after = np.array([_given(row, name) if done else math.nan for name in results])
    if done:
        found[_given(row, "evaluation")] = first, after
    length = _given(row, options.length_name) if options.length_name else 1.0
    seconds = seconds_of(row)
    for name, value in ((options.length_name, length), ("its duration", seconds)):
        if value <= 0.0:
            raise ConfigError(f"{name} is {value:g}: it should be above 0")
    values = [_given(row, name) for name in options.controls]
    return before, values, length, after, seconds, cores_and_gpus(row)[0], first


def _given(row: Mapping[str, Any], name: str) -> float:
    value = number_of(row, name)
    if math.isnan(value):
        raise ConfigError(f"{name} is missing")
    return value
