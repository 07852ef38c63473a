"""What a ``TaskSpec`` and ``Resources`` may hold, found out where they are made.

A value of another type would do harm only later, in a thread that serves all tasks, or in the process that starts
programs. What can only mean one thing is converted (a ``Path``, a number of NumPy, a list for a tuple); the rest is
refused. A specification whose values are as they should be, nearly every one, is only looked at.
"""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable, Iterable, Mapping, Set
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

from rlctl.core.errors import RequestError, brief

if TYPE_CHECKING:
    from rlctl.core.task import Resources, TaskSpec

DEEPEST = 100
"""Levels of lists and mappings in a value of JSON."""

LARGEST = 10**300
"""Integers beyond it fit into no float."""

_T = TypeVar("_T")

Converter = Callable[[Any], Any]


_FLAT = frozenset({str, float, bool, type(None)})


class Unfit(ValueError):
    """Why a value cannot be used.

    Attributes:
        path: where in the field it stands; empty: it is the field's own.
        value: that stands there.
    """

    path: str = ""
    value: Any = None


def check_spec(spec: TaskSpec) -> None:
    """Convert the values of a task that is being made.

    Raises:
        RequestError: one line that names task, field and value.
    """
    _settle(spec, f"task {brief(spec.uid)}", _SPEC)
    if (spec.executable is None) == (spec.function is None):
        raise RequestError(f"task {spec.uid}: give either an executable or a function")


def check_resources(need: Resources) -> None:
    """The same for resources.

    Raises:
        RequestError: one line that names field and value.
    """
    _settle(need, "resources", _RESOURCES)


def plain_spec(spec: TaskSpec) -> bool:
    """Whether nothing needs a closer look; this is asked for every task of every simulated campaign."""
    if spec.uid is None:
        return False
    names = (spec.uid, spec.executable, spec.function, spec.result_file, spec.progress_file, spec.pool)
    for text in names:
        if text is not None and (type(text) is not str or not text or not text.isprintable()):
            return False
    kinds = type(spec.arguments), type(spec.parameters), type(spec.failure_codes), type(spec.environment)
    if kinds != (tuple, dict, tuple, dict):
        return False
    for text in spec.arguments:
        if type(text) is not str or not text.isprintable():
            return False
    for name, value in spec.parameters.items():
        if type(name) is not str or (type(value) not in _FLAT and not is_json(value)):
            return False
    for code in spec.failure_codes:
        if type(code) is not tuple or len(code) != 2 or type(code[0]) is not int or type(code[1]).__name__ != "Failure":
            return False
    seconds = spec.walltime_s
    return (
        (seconds is None or (type(seconds) is float and 0.0 < seconds < math.inf))
        and type(spec.priority) is float
        and spec.priority == spec.priority
        and type(spec.retries) is int
        and spec.retries >= 0
        and not spec.environment
        and spec.application is None
        and (spec.executable is None) != (spec.function is None)
        and (spec.function is None or ":" in spec.function)
        and type(spec.resources).__name__ == "Resources"
    )


def plain_resources(need: Resources) -> bool:
    """The same for resources."""
    return (
        type(need.ranks) is int
        and need.ranks > 0
        and type(need.cores_per_rank) is int
        and need.cores_per_rank > 0
        and type(need.gpus_per_rank) is float
        and 0.0 <= need.gpus_per_rank < math.inf
        and need.memory_per_rank_mb is None
        and need.nodes is None
    )


def is_json(value: Any, depth: int = 0) -> bool:
    """Whether a value is of the types that JSON has; infinite numbers and NaN pass, as in Python's JSON."""
    kind: type = type(value)
    if kind is str or kind is float or kind is bool or value is None:
        return True
    if kind is int:
        return bool(-LARGEST < value < LARGEST)
    if depth >= DEEPEST:
        return False
    if kind is list or kind is tuple:
        return all(is_json(item, depth + 1) for item in value)
    return kind is dict and all(type(name) is str and is_json(item, depth + 1) for name, item in value.items())


def as_json(value: Any, depth: int = 0) -> Any:
    """The same in the types that JSON has: arrays as lists, paths as texts.

    >>> from pathlib import Path
    >>> as_json({"file": Path("a/b"), "steps": (1, 2)})
    {'file': 'a/b', 'steps': [1, 2]}

    Raises:
        Unfit: it has no such form.
    """
    if depth > DEEPEST:
        raise Unfit(f"is nested more than {DEEPEST} levels deep")
    if isinstance(value, Enum):
        value = value.value
    if not isinstance(value, type) and hasattr(value, "dtype") and hasattr(value, "tolist"):
        value = value.tolist()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return _size(int(value))
    if isinstance(value, float):
        return float(value)
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    if isinstance(value, Mapping):
        return {_name(name): as_json(item, depth + 1) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item, depth + 1) for item in value]
    raise Unfit(f"({type(value).__name__}) is no value of JSON: give numbers, texts, lists, mappings")


def number(value: Any) -> float:
    """A real number that is not NaN.

    Raises:
        Unfit: it is something else.
    """
    value = _scalar(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise Unfit("should be a number")
    return float(_size(value))


def count(value: Any, least: int = 0) -> int:
    """A whole number from ``least`` on.

    Raises:
        Unfit: it is something else.
    """
    value = _scalar(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= least or value != value // 1:
        raise Unfit(f"should be a whole number from {least} on")
    return int(value)


def signal_number(value: Any) -> int:
    """The number of a signal that this system has.

    Raises:
        Unfit: it is something else.
    """
    valid = signal.valid_signals()
    if (number := count(value, 1)) not in valid:
        raise Unfit(f"is no signal of this system, which has 1 to {max(valid)}")
    return number


def seconds(value: Any) -> float:
    """A time from 0 on, infinite at most.

    Raises:
        Unfit: it is something else.
    """
    if (given := number(value)) < 0.0:
        raise Unfit("should be seconds from 0 on")
    return given


def asked(name: str, value: Any, convert: Callable[[Any], _T]) -> _T:
    """The value of an argument, converted.

    Raises:
        RequestError: one line that names argument and value.
    """
    try:
        return convert(value)
    except Unfit as error:
        raise RequestError(f"{name}: {brief(value)} {error}") from None


def _settle(holder: Any, what: str, fields: Mapping[str, Converter]) -> None:
    for name, convert in fields.items():
        value = getattr(holder, name)
        try:
            fit = convert(value)
        except Exception as error:  # also what a strange object raises when it is looked at
            if not isinstance(error, Unfit):
                raise RequestError(f"{what}: {name}: {brief(value)} cannot be used ({type(error).__name__})") from None
            found = error.value if error.path else value
            raise RequestError(f"{what}: {name}{error.path}: {brief(found)} {error}") from None
        if fit is not value:
            object.__setattr__(holder, name, fit)


def _scalar(value: Any) -> Any:
    """A Python number for one of NumPy, or an array without dimensions."""
    return value.item() if hasattr(value, "dtype") and getattr(value, "ndim", None) == 0 else value


def _size(value: Any) -> Any:
    if isinstance(value, int) and not -LARGEST < value < LARGEST:
        raise Unfit("is too large a number")
    return value


def _name(value: Any) -> str:
    if not isinstance(value, str):
        raise Unfit(f"has the key {brief(value)}, which should be a text")
    return str.__str__(value)


def _text(value: Any) -> str:
    """A text that can be told to the operating system; it may hold bytes of no encoding, as names of files do."""
    if isinstance(value, os.PathLike | bytes):
        value = os.fsdecode(value)
    if not isinstance(value, str):
        raise Unfit("should be a text")
    text: str = str.__str__(value)
    if "\0" in text:
        raise Unfit("holds a NUL character, which no program can be given")
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        raise Unfit("holds half of a surrogate pair, which is no character") from None
    return text


def _word(value: Any) -> str:
    """A text, or a number, of which a program is given the text."""
    number = _scalar(value)
    if isinstance(number, bool) or number is None:
        raise Unfit("could be written in several ways: give the text that the program is to read")
    if not isinstance(number, int | float) or isinstance(value, Enum):
        return _text(value)
    _size(number)
    return str(value)


def _filled(value: Any) -> str:
    if not (text := _text(value)):
        raise Unfit("is empty")
    return text


def _uid(value: Any) -> str:
    """Other than a file's, a task's name may be printed anywhere."""
    if not isinstance(value, str):
        raise Unfit("should be a text")
    text = _filled(value)
    text.encode()
    return text


def _function(value: Any) -> str:
    if not isinstance(value, str) or ":" not in value:
        raise Unfit('should be a text such as "package.module:name"')
    return _text(value)


def _sequence(value: Any) -> Iterable[Any]:
    if isinstance(value, str | bytes | Mapping | Set) or not isinstance(value, Iterable):
        raise Unfit("should be a tuple")
    return value


def _arguments(value: Any) -> tuple[str, ...]:
    return tuple(_item(place, word, _word) for place, word in enumerate(_sequence(value)))


def _item(place: object, value: Any, convert: Converter) -> Any:
    try:
        return convert(value)
    except Unfit as error:
        error.path, error.value = f"[{brief(place)}]", value
        raise


def _environment(value: Any) -> Mapping[str, str]:
    if not isinstance(value, Mapping):
        raise Unfit("should be a mapping")
    return {_variable(name): _item(name, word, _word) for name, word in value.items()}


def _variable(value: Any) -> str:
    name = _filled(value)
    if "=" in name:
        raise Unfit(f"has the key {brief(name)}, which is no name of a variable")
    return name


def _parameters(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise Unfit("should be a mapping")
    return {_name(name): _item(name, item, as_json) for name, item in value.items()}


def _failure_codes(value: Any) -> tuple[tuple[int, Any], ...]:
    from rlctl.core.task import Failure

    return tuple((count(code), Failure(failure)) for code, failure in _sequence(value))


def _resources(value: Any) -> Any:
    from rlctl.core.task import Resources

    if not isinstance(value, Resources):
        raise Unfit("should be Resources")
    return value


def _walltime(value: Any) -> float | None:
    seconds = number(value)
    if seconds <= 0.0:
        raise Unfit("should be more than 0 seconds; None: no limit")
    return seconds if seconds < math.inf else None


def _share(value: Any) -> float:
    if not 0.0 <= (share := number(value)) < math.inf:
        raise Unfit("should be a finite number from 0 on")
    return share


def _from_one(value: Any) -> int:
    return count(value, 1)


def _or_none(convert: Converter) -> Converter:
    return lambda value: None if value is None else convert(value)


_SPEC: Mapping[str, Converter] = {
    "uid": _uid,
    "executable": _or_none(_filled),
    "arguments": _arguments,
    "function": _or_none(_function),
    "parameters": _parameters,
    "resources": _resources,
    "walltime_s": _or_none(_walltime),
    "priority": number,
    "retries": count,
    "result_file": _or_none(_filled),
    "progress_file": _or_none(_filled),
    "failure_codes": _failure_codes,
    "environment": _environment,
    "application": _or_none(_filled),
    "pool": _or_none(_filled),
}

_RESOURCES: Mapping[str, Converter] = {
    "ranks": _from_one,
    "cores_per_rank": _from_one,
    "gpus_per_rank": _share,
    "memory_per_rank_mb": _or_none(lambda value: count(value) or None),
    "nodes": _or_none(_from_one),
}
