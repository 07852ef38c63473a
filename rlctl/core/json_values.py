"""Converts any value of users and programs to strict JSON (RFC 8259)."""

from __future__ import annotations

import hashlib
import json
import math
from collections import deque
from collections.abc import Iterator, Mapping, Set
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

MOST_DIGITS = 4000
"""Decimal digits of an integer; Python itself reads no more than 4,300."""

_DEEPEST = 100


def json_text(value: Any, *, indent: int | None = None, finite: bool = True) -> str:
    """The value as JSON text; see ``plain``.

    >>> json_text({"q": float("nan"), 1: (True, b"ok")})
    '{"q": null, "1": [true, "ok"]}'
    """
    return json.dumps(plain(value, finite=finite), indent=indent)


def digest(data: Any) -> str:
    """SHA-256 of values of JSON, independent of the order of keys."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def leaves(value: Any, path: tuple[Any, ...] = (), *, lists: bool = True) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """The values inside mappings (and lists, tuples and arrays, if ``lists``), each with its keys and indices.

    >>> dict(leaves({"a": {"b": 1}, "c": [2, "three"]}))
    {('a', 'b'): 1, ('c', 0): 2, ('c', 1): 'three'}
    """
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from leaves(item, (*path, str(key)), lists=lists)
        return
    listed = value.tolist() if hasattr(value, "tolist") else value
    if lists and isinstance(listed, list | tuple):
        for index, item in enumerate(listed):
            yield from leaves(item, (*path, index), lists=lists)
    else:
        yield path, listed


def differences(one: Any, other: Any) -> Iterator[tuple[str, Any, Any]]:
    """Where two nested mappings differ: the key, its parts joined by points, and both values.

    >>> list(differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}, "c": 2}))
    [('a.b', 1, 3)]
    """
    ones, others = dict(leaves(one, lists=False)), dict(leaves(other, lists=False))
    for path in dict.fromkeys([*ones, *others]):
        if ones.get(path) != others.get(path):
            yield ".".join(path), ones.get(path), others.get(path)


def plain(value: Any, *, finite: bool = True) -> Any:
    """The value from dictionaries with text as keys, lists, texts, numbers, booleans and None alone.

    Scalars and arrays of NumPy (and other objects with ``tolist``) become numbers and lists, members of enums their
    values, dataclasses dictionaries, sets lists, bytes text. Anything else becomes its text.

    Args:
        finite: NaN and the infinities, which JSON does not have, become None; else they stay.
    """
    return _plain(value, finite, ())


def _plain(value: Any, finite: bool, inside: tuple[int, ...]) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Enum):
        return _plain(value.value, finite, inside)
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, int):
        return int(value) if abs(value) < 10**MOST_DIGITS else hex(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) or not finite else None
    if id(value) in inside or len(inside) > _DEEPEST:
        return "..."
    within = (*inside, id(value))
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name), finite, within) for field in fields(value)}
    if isinstance(value, Mapping):
        return {_key(key): _plain(item, finite, within) for key, item in value.items()}
    if isinstance(value, list | tuple | Set | deque):
        return [_plain(item, finite, within) for item in value]
    if isinstance(value, bytes | bytearray):
        return value.decode("utf-8", "backslashreplace")
    if hasattr(value, "tolist"):
        listed = value.tolist()
        # A long double gives itself; as a float it loses digits, which JSON's readers would do anyway.
        return _plain(float(value) if type(listed) is type(value) else listed, finite, within)
    return _text(_told(value))


def _key(key: Any) -> str:
    found = plain(key)
    return found if isinstance(found, str) else json.dumps(found)


def _text(text: str) -> str:
    """Without the halves of characters by which Python keeps bytes that are no UTF-8, as in names of files."""
    return text.encode("utf-8", "backslashreplace").decode()


def _told(value: object) -> str:
    try:
        return str(value)
    except Exception:  # another package's code
        return f"<{type(value).__name__}>"
