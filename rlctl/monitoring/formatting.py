"""How decisions and numbers are told to people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def action_text(action: Any) -> str:
    """An answer as it was recorded.

    >>> action_text({"temperature": 1.23456, "give_up": False})
    'temperature 1.235, give_up no'
    >>> action_text([3, 0, 1])
    '3 0 1'
    >>> action_text({"at": [0.123456789, 2], "by": {"ranks": 4}})
    'at [0.1235, 2], by {ranks 4}'
    """
    if isinstance(action, Mapping):
        return ", ".join(f"{key} {value_text(value)}" for key, value in action.items())
    return " ".join(value_text(value) for value in action) if isinstance(action, list | tuple) else value_text(action)


def count_text(count: int, noun: str) -> str:
    """A number of things.

    >>> count_text(1, "success"), count_text(2, "success"), count_text(1, "decision")
    ('1 success', '2 successes', '1 decision')
    """
    return f"{count:,} {noun}" + ("" if count == 1 else "es" if noun.endswith("s") else "s")


def span_of_cores(cores: Sequence[int]) -> str:
    """Numbers of cores.

    >>> span_of_cores((0, 1, 2, 5))
    '0-2, 5'
    """
    parts: list[list[int]] = []
    for core in sorted(cores):
        if parts and parts[-1][-1] == core - 1:
            parts[-1] = [parts[-1][0], core]
        else:
            parts.append([core])
    return ", ".join("-".join(map(str, part)) for part in parts)


def value_text(value: Any) -> str:
    """Whatever a record holds, with as many digits as people read.

    >>> value_text(True), value_text(1234.5678), value_text(12345), value_text(1e-9), value_text(None)
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
        return f"{{{', '.join(f'{key} {value_text(item)}' for key, item in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(value_text(item) for item in value)}]"
    return str(value)
