"""Placeholders in commands and templates: ``{x}``, ``{x:.6e}``, or between other delimiters."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from rlctl.core.errors import ConfigError, brief

Delimiters = tuple[str, str]
BRACES: Delimiters = ("{", "}")


def names(text: str, delimiters: Delimiters = BRACES) -> Iterator[str]:
    """Names of the placeholders in a text, in order.

    >>> list(names('run --x {x:.3f} --json {"a": {"b": 1}} --literally {{y}}'))
    ['x']
    """
    for match in _pattern(delimiters).finditer(text):
        if match["name"]:
            yield match["name"]


def render(text: str, values: Mapping[str, Any], delimiters: Delimiters = BRACES) -> str:
    """Replace each placeholder by its value; ``{{x}}`` becomes ``{x}``, and other braces stay.

    >>> render('T={T:.1f} {"a": {"b": 1}} {{x}}', {"T": 300})
    'T=300.0 {"a": {"b": 1}} {x}'

    Raises:
        ConfigError: a placeholder has no value, or its format does not fit its value.
    """

    def replacement(match: re.Match[str]) -> str:
        name = match["name"]
        if not name:  # written twice, to be taken literally
            return match[0][1:-1]
        if name not in values:
            raise ConfigError(f"placeholder {match[0]} is not defined; known: {', '.join(sorted(values))}")
        try:
            return format(values[name], match["format"] or "")
        except (ValueError, TypeError) as error:
            raise ConfigError(f"placeholder {match[0]} with the value {brief(values[name])}: {error}") from None

    return _pattern(delimiters).sub(replacement, text)


@lru_cache
def _pattern(delimiters: Delimiters) -> re.Pattern[str]:
    """Matches a placeholder or, with braces, one that is written twice."""
    begin, end = map(re.escape, delimiters)
    placeholder = rf"{begin}(?P<name>[A-Za-z_]\w*)(?::(?P<format>[^{{}}\n]*?))?{end}"
    return re.compile(rf"\{{\{{\w+(?::[^{{}}\n]*)?\}}\}}|{placeholder}" if delimiters == BRACES else placeholder)
