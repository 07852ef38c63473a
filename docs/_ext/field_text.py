"""Says in words what type, bounds and default a key of a configuration has, and finds what its docstring says."""

from __future__ import annotations

import inspect
import json
import re
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

SIMPLE = {bool: "true or false", int: "whole number", float: "number", str: "text", Any: "any value"}


def type_text(annotation: Any) -> str:
    """The type in words.

    >>> type_text(dict[int, float]), type_text(tuple[int, ...]), type_text(float | None)
    ('mapping of whole number to number', 'list of whole numbers', 'number or null')
    """
    origin, inner = get_origin(annotation), get_args(annotation)
    if annotation in SIMPLE:
        return SIMPLE[annotation]
    if annotation is type(None):
        return "null"
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return "section"
    if inspect.isclass(annotation) and issubclass(annotation, Path):
        return "path"
    if inspect.isclass(annotation) and issubclass(annotation, tuple):  # with names
        return f"list of {len(annotation._fields)} numbers, {' and '.join(annotation._fields)}"
    if origin is Annotated:
        return type_text(inner[0])
    if origin is Literal:
        return " or ".join(json.dumps(value) for value in inner)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(type_text, inner)))
    if origin is dict:
        return "mapping" if inner[1] is Any else f"mapping of {type_text(inner[0])} to {type_text(inner[1])}"
    if origin is tuple and inner[-1] is not Ellipsis:
        return f"list of {len(inner)} {type_text(inner[0])}s"
    if origin in (list, tuple):
        return f"list of {type_text(inner[0])}s"
    raise TypeError(f"{annotation} has no words yet; add them here")


def bounds(metadata: Sequence[Any]) -> Iterator[str]:
    """What else is asked of a value."""
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below", "multiple_of": "a multiple of"}
    for item in metadata:
        for name, text in words.items():
            if (value := getattr(item, name, None)) is not None:
                yield f"{text} {value:,}"
        if (least := getattr(item, "min_length", None)) is not None:
            yield f"not shorter than {least}"
        if (pattern := getattr(item, "pattern", None)) is not None:
            yield f"of the form {pattern}".replace("*", r"\*").replace("|", r"\|")


def default_text(field: FieldInfo) -> str:
    """The default, as JSON, which is YAML too."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is PydanticUndefined or isinstance(value, BaseModel):
        return "default: that of each key"
    return "default " + json.dumps(value).replace("*", r"\*").replace("_", r"\_")


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models that a type is made of."""
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from models_in(inner)


def meanings(thing: Any, heading: str) -> dict[str, str]:
    """What the docstring's ``Attributes:`` or ``Args:`` say, by name; ``a, b: text`` says it of both.

    >>> class Example:
    ...     '''Says something.
    ...
    ...     Args:
    ...         a, b: two things,
    ...             together.
    ...     '''
    >>> meanings(Example, "Args")
    {'a': 'two things, together', 'b': 'two things, together'}
    """
    doc = inspect.cleandoc(vars(thing).get("__doc__") or "")
    block = re.search(rf"^{heading}:\n((?:[ ]+.*\n?|\n)+)", doc, re.MULTILINE)
    if block is None:
        return {}
    said: dict[str, str] = {}
    for item in re.split(r"\n(?=    \S)", block[1].rstrip()):
        names, _, text = item.strip().partition(": ")
        said |= {name.strip(): " ".join(text.split()).rstrip(".") for name in names.split(",")}
    return said
