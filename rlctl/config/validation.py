"""Validates configuration values; errors name the key, the value and the remedy in one line."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from rlctl.core.errors import ConfigError, Key, RlctlError, brief, one_line

_Model = TypeVar("_Model", bound=BaseModel)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of an error message about an unknown name: the known names and the nearest one.

    >>> did_you_mean("fedback", ["constant", "feedback"])
    "known: constant, feedback; did you mean 'feedback'?"
    """
    names = sorted(known)
    alike = {name.lower(): name for name in names}
    close = difflib.get_close_matches(word[:100].lower(), alike, n=1)
    shown = one_line(", ".join(one_line(name, 60) for name in names), 1000)
    return f"known: {shown or 'none'}" + (f"; did you mean {brief(alike[close[0]])}?" if close else "")


@contextmanager
def key_prefix(where: Key | None) -> Iterator[None]:
    """Prefix the key of errors raised inside with the section ``where``; None removes the key."""
    try:
        yield
    except RlctlError as error:
        if error.key is None:
            raise
        raise type(error)(error.problem, None if where is None else (*where, *error.key)) from error


def check_options(model: type[_Model], options: Mapping[str, Any] | None, where: str) -> _Model:
    """Validate the options of a plug-in, in the section ``where``, e.g. ``"campaign.options"``; else ConfigError."""
    return validated(model, dict(options or {}), tuple(where.split(".")))


def validated(model: type[_Model], data: Any, where: Key = ()) -> _Model:
    """Validate ``data``, at the key ``where`` of its file, with a pydantic model; ConfigError for the first error."""
    try:
        with key_prefix(where):  # validators of the model may raise ConfigError with a key of the model
            return model.model_validate(data)
    except ValidationError as error:
        errors = error.errors(include_url=False)
    # An unknown key is most often a misspelt one, and explains why another key is missing.
    first = next((e for e in errors if e["type"] in ("extra_forbidden", "invalid_key")), errors[0])
    more = f" (and {len(errors) - 1} more {'problems' if len(errors) > 2 else 'problem'})" if len(errors) > 1 else ""
    key = _key(first["loc"], data, first["type"] == "missing")
    raise ConfigError(_problem(first, model, key) + more, (*where, *key) or None)


def _key(loc: Sequence[str | int], data: Any, missing: bool) -> Key:
    """The key of pydantic's location, without the members of unions, which pydantic lists like keys.

    Args:
        missing: whether the last part is a key that is not there.
    """
    key: list[str] = []
    for i, part in enumerate(loc):
        in_list = isinstance(data, list) and isinstance(part, int) and part < len(data)
        if in_list or (isinstance(data, Mapping) and part in data):
            data = data[part]
        elif not missing or i < len(loc) - 1 or not isinstance(data, Mapping):
            continue
        key.append(str(part))
    return tuple(key)


def _problem(error: ErrorDetails, model: type[BaseModel], key: Key) -> str:
    kind, message = error["type"], error["msg"]
    if kind in ("extra_forbidden", "invalid_key"):
        return f"unknown key; {did_you_mean(key[-1], sorted(_known(model, key[:-1])))}"
    if kind == "missing":
        return "is missing"
    if key and key[-1] == "schema":
        return f"schema {brief(error['input'])} is not known to this rlctl, which reads schema 1"
    if kind == "value_error":  # from a validator of the model
        return message.removeprefix("Value error, ")
    if kind in ("dict_type", "model_type", "mapping_type"):
        message = "should be a mapping of keys to values"
    return f"{message.replace('Input should', 'should')}, got {brief(error['input'])}"


def _known(annotation: Any, key: Key) -> set[str]:
    """Valid keys of the mapping at ``key`` in a value of this type."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _known(arguments[0], key)
    if origin in (Union, types.UnionType):
        return set().union(*(_known(option, key) for option in arguments))
    if origin in (dict, list, tuple) and key and arguments:
        return _known(arguments[1] if origin is dict else arguments[0], key[1:])
    if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return set()
    fields = {field.alias or name: field for name, field in annotation.model_fields.items()}
    if not key:
        return set(fields)
    return _known(fields[key[0]].annotation, key[1:]) if key[0] in fields else set()
