"""Converters for the values of a ``TaskSpec`` and ``Resources``, applied where one is made.

A value of the wrong type would do harm only later, in a thread that serves all tasks, or in the process that starts
programs. A converter changes what can only mean one thing (a ``Path``, a number of NumPy, a list for a tuple) and
refuses the rest by ``Unfit``. It returns a value that is right already, as nearly every one is, at once and unchanged.
"""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable, Iterable, Mapping, Set
from enum import Enum
from operator import attrgetter
from typing import Any, TypeVar

from rlctl.core.errors import RequestError, brief

DEEPEST = 100
"""Levels of lists and mappings in a value of JSON."""

LARGEST = 10**300
"""Integers beyond it fit into no float."""

_T = TypeVar("_T")
_FLAT = frozenset({str, float, bool, type(None)})

Converter = Callable[[Any], Any]


class Unfit(ValueError):
    """Why a value cannot be used.

    Attributes:
        path: where in the field it stands; empty: it is the field's own.
        value: that stands there.
    """

    path: str = ""
    value: Any = None


class Fields:
    """Converts the fields of a frozen dataclass that is being made.

    Args:
        defaults: default and converter of each field; a field that has its default is left as it is.
    """

    def __init__(self, defaults: Mapping[str, tuple[Any, Converter]]) -> None:
        self._values = attrgetter(*defaults)
        self._fields = [(name, default, convert) for name, (default, convert) in defaults.items()]

    def convert(self, holder: Any, what: Callable[[], str]) -> None:
        """Convert what needs it; else RequestError, one line that names object (``what()``), field and value."""
        for (name, default, convert), value in zip(self._fields, self._values(holder), strict=True):
            if value is default:
                continue
            try:
                fit = convert(value)
            except Exception as error:  # also what a strange object raises when it is read
                if not isinstance(error, Unfit):
                    reason = f"cannot be used ({type(error).__name__})"
                    raise RequestError(f"{what()}: {name}: {brief(value)} {reason}") from None
                found = error.value if error.path else value
                raise RequestError(f"{what()}: {name}{error.path}: {brief(found)} {error}") from None
            if fit is not value:
                object.__setattr__(holder, name, fit)


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
    """A real number that is not NaN."""
    if type(value) is float and value == value:
        return value
    value = _scalar(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise Unfit("should be a number")
    return float(_size(value))


def count(value: Any, least: int = 0) -> int:
    """A whole number from ``least`` on."""
    if type(value) is int and value >= least:
        return value
    value = _scalar(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= least or value != value // 1:
        raise Unfit(f"should be a whole number from {least} on")
    return int(value)


def signal_number(value: Any) -> int:
    """The number of a signal that this system has."""
    valid = signal.valid_signals()
    if (number := count(value, 1)) not in valid:
        raise Unfit(f"is no signal of this system, which has 1 to {max(valid)}")
    return number


def seconds(value: Any) -> float:
    """A time from 0 on, infinite at most."""
    if (given := number(value)) < 0.0:
        raise Unfit("should be seconds from 0 on")
    return given


def asked(name: str, value: Any, convert: Callable[[Any], _T]) -> _T:
    """The value of an argument, converted; else RequestError, one line that names both."""
    try:
        return convert(value)
    except Unfit as error:
        raise RequestError(f"{name}: {brief(value)} {error}") from None


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
    """A text that can be passed to the operating system; it may hold bytes of no encoding, as names of files do."""
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


def _item(place: object, value: Any, convert: Converter) -> Any:
    try:
        return convert(value)
    except Unfit as error:
        error.path, error.value = f"[{brief(place)}]", value
        raise


def filled_text(value: Any) -> str:
    """A text that is not empty, or a path."""
    if type(value) is str and value and value.isprintable():
        return value
    if not (text := _text(value)):
        raise Unfit("is empty")
    return text


def task_name(value: Any) -> str:
    """A text that may be printed anywhere, other than a file's name."""
    if not isinstance(value, str):
        raise Unfit("should be a text")
    text = filled_text(value)
    text.encode()
    return text


def function_name(value: Any) -> str:
    """``package.module:name``."""
    if not isinstance(value, str) or ":" not in value:
        raise Unfit('should be a text such as "package.module:name"')
    return _text(value)


def sequence(value: Any) -> Iterable[Any]:
    """What a tuple can be made of."""
    if isinstance(value, str | bytes | Mapping | Set) or not isinstance(value, Iterable):
        raise Unfit("should be a tuple")
    return value


def _plain_word(word: Any) -> bool:
    return type(word) is str and word.isprintable()


def arguments(value: Any) -> tuple[str, ...]:
    """Of a program."""
    if type(value) is tuple and all(map(_plain_word, value)):
        return value
    return tuple(_item(place, word, _word) for place, word in enumerate(sequence(value)))


def environment(value: Any) -> Mapping[str, str]:
    """Variables of a program."""
    if not isinstance(value, Mapping):
        raise Unfit("should be a mapping")
    return {_variable(name): _item(name, word, _word) for name, word in value.items()} if value else value


def _variable(value: Any) -> str:
    name = filled_text(value)
    if "=" in name:
        raise Unfit(f"has the key {brief(name)}, which is no name of a variable")
    return name


def parameters(value: Any) -> Mapping[str, Any]:
    """A mapping of names to values of JSON."""
    if type(value) is dict:
        for name, item in value.items():
            kind = type(item)
            flat = kind in _FLAT or (kind is int and -LARGEST < item < LARGEST)
            if type(name) is not str or not (flat or is_json(item)):
                break
        else:
            return value
    if not isinstance(value, Mapping):
        raise Unfit("should be a mapping")
    return {_name(name): _item(name, item, as_json) for name, item in value.items()}


def walltime(value: Any) -> float | None:
    """Seconds of more than 0; infinite: None."""
    seconds = number(value)
    if seconds <= 0.0:
        raise Unfit("should be more than 0 seconds; None: no limit")
    return seconds if seconds < math.inf else None


def finite(value: Any) -> float:
    """A finite number from 0 on."""
    if not 0.0 <= (share := number(value)) < math.inf:
        raise Unfit("should be a finite number from 0 on")
    return share


def count_from_one(value: Any) -> int:
    """A whole number from 1 on."""
    return count(value, 1)
