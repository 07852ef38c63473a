"""Formats actions, numbers and durations for people."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def format_action(action: Any) -> str:
    """An action as recorded in a journal.

    >>> format_action({"temperature": 1.23456, "give_up": False})
    'temperature 1.235, give_up no'
    >>> format_action([3, 0, 1])
    '3 0 1'
    >>> format_action({"at": [0.123456789, 2], "by": {"ranks": 4}})
    'at [0.1235, 2], by {ranks 4}'
    """
    if isinstance(action, Mapping):
        return ", ".join(f"{key} {format_value(value)}" for key, value in action.items())
    return " ".join(map(format_value, action if isinstance(action, list | tuple) else [action]))


def format_count(count: int, noun: str) -> str:
    """A number and its noun.

    >>> format_count(1, "success"), format_count(2, "success"), format_count(1, "decision")
    ('1 success', '2 successes', '1 decision')
    """
    return f"{count:,} {noun}" + ("" if count == 1 else "es" if noun.endswith("s") else "s")


def format_cores(cores: Sequence[int]) -> str:
    """Core numbers as ranges.

    >>> format_cores((0, 1, 2, 5))
    '0-2, 5'
    """
    return ", ".join(f"{first}-{last}" if last > first else f"{first}" for first, last in ranges(cores))


def ranges(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Ranges (first, last) of consecutive numbers."""
    found: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


def format_value(value: Any) -> str:
    """A value of a record, with four significant digits.

    >>> format_value(True), format_value(1234.5678), format_value(12345), format_value(1e-9), format_value(None)
    ('yes', '1,235', '12,345', '1e-09', '-')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "-"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if 1e3 <= abs(value) < 1e9 else f"{value:.4g}"
    if isinstance(value, Mapping):
        return f"{{{format_action(value)}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(format_value, value))}]"
    return str(value)


def format_duration(seconds: float) -> str:
    """Seconds in a readable unit.

    >>> format_duration(59), format_duration(192), format_duration(7500), format_duration(math.inf)
    ('59 s', '3:12 min', '2:05 h', 'no end')
    """
    if not math.isfinite(seconds):
        return "no end"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60}:{whole % 60:02} min" if whole < 3600 else f"{whole // 3600}:{whole % 3600 // 60:02} h"
