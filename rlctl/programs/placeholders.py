"""Placeholders in commands and templates: ``{x}``, ``{x:.6e}``, or between other delimiters."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeGuard

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
        value = values[name]
        try:
            return " ".join(format(item, match["format"] or "") for item in (value if _is_list(value) else [value]))
        except (ValueError, TypeError) as error:
            raise ConfigError(f"placeholder {match[0]} with the value {brief(values[name])}: {error}") from None

    return _pattern(delimiters).sub(replacement, text) if delimiters[0] in text else text


def words(command: Sequence[str], values: Mapping[str, Any]) -> list[str]:
    """The words of a command; one that is nothing but a placeholder becomes as many as its value, a list, has.

    >>> words(["xtb", "{method}", "-P{cores}"], {"method": ["--gfn", 2], "cores": 4})
    ['xtb', '--gfn', '2', '-P4']

    Raises:
        ConfigError: see ``render``.
    """
    found = list[str]()
    for word in command:
        if BRACES[0] not in word:
            found.append(word)
            continue
        match = _pattern(BRACES).fullmatch(word)
        name = (match["name"] or "") if match is not None else ""
        items = values.get(name)
        found += [render(word, {name: item}) for item in items] if _is_list(items) else [render(word, values)]
    return found


def _is_list(value: Any) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, list | tuple)


@lru_cache
def _pattern(delimiters: Delimiters) -> re.Pattern[str]:
    """Matches a placeholder or, with braces, one that is written twice."""
    begin, end = map(re.escape, delimiters)
    placeholder = rf"{begin}(?P<name>[A-Za-z_]\w*)(?::(?P<format>[^{{}}\n]*?))?{end}"
    return re.compile(rf"\{{\{{\w+(?::[^{{}}\n]*)?\}}\}}|{placeholder}" if delimiters == BRACES else placeholder)
