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
    """
    if isinstance(action, Mapping):
        return ", ".join(f"{key} {_value(value)}" for key, value in action.items())
    return " ".join(_value(value) for value in action) if isinstance(action, list | tuple) else _value(action)


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


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
