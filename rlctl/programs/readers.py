"""Reads numbers from what a program leaves: text, JSON, tables, NumPy, HDF5 and NetCDF files, its exit code.

A reader is a mapping as ``rlctl.programs.options`` has checked it; one of its keys says which kind it is. Files are
paths relative to the folder of the evaluation; those named ``stdout`` and ``stderr`` are what the program has printed.
With the key ``tail``, only about so many bytes at the end of a text are read.
"""

from __future__ import annotations

import csv
import importlib
import json
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlctl.core.errors import RlctlError, brief, described, one_line

STREAMS = {"stdout": "stdout.txt", "stderr": "stderr.txt"}
"""Files of what a program prints, in the folder of its evaluation."""

LARGEST_TEXT = 1 << 30
"""Bytes of a text file that is read; larger ones belong into a table that the program reduces itself."""

Reader = Mapping[str, Any]

_FORTRAN = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:[dD]|(?=[+-]))([+-]?\d+)")


class ReadError(RlctlError):
    """A result that is missing, unreadable or not a finite number; names the reader and what was there."""


def read(name: str, reader: Reader, folder: Path, exit_code: int = 0) -> float:
    """The number that a reader finds in the folder of an evaluation.

    Args:
        name: of the result, for messages.

    Raises:
        ReadError: there is none.
    """
    kind = next(kind for kind in _KINDS if reader.get(kind) is not None)
    source = "" if isinstance(reader[kind], int | bool) else f" {reader[kind]}"
    what = f"result {name} ({kind}{source})"
    try:
        found = float(exit_code) if kind == "exit_code" else _KINDS[kind](name, reader, folder)
        value = float(found)
    except ReadError as error:
        raise ReadError(f"{what}: {error}") from None
    except FileNotFoundError as error:
        missing = os.path.relpath(error.filename or ".", folder)
        there = ", ".join(sorted(path.name for path in folder.iterdir()))
        raise ReadError(f"{what}: there is no file {missing}; there: {one_line(there)}") from None
    except (Exception, SystemExit) as error:  # also what damaged files and users' functions raise
        raise ReadError(f"{what}: {one_line(described(error))}") from None
    if not math.isfinite(value):
        raise ReadError(f"{what}: {value} is not finite")
    return value


def take(values: Sequence[Any], which: str) -> float:
    """The ``first``, ``last``, ``min``, ``max`` or ``mean`` of numbers.

    >>> take([3.0, 1.0, 2.0], "min"), take(["3", "1", "2"], "last")
    (1.0, 2.0)

    Raises:
        ReadError: there are none, or what it takes is not a number.
    """
    if not len(values):
        raise ReadError("no number was found")
    if which in ("first", "last"):
        return _number(values[0 if which == "first" else -1])
    numbers = [_number(value) for value in values]
    return min(numbers) if which == "min" else max(numbers) if which == "max" else math.fsum(numbers) / len(numbers)


def _number(value: Any) -> float:
    """A number, also with an exponent of Fortran, ``1.5D-3`` or ``1.5-103``."""
    try:
        return float(value)
    except (TypeError, ValueError):
        pass
    match = _FORTRAN.fullmatch(str(value).strip())
    if match is None:
        raise ReadError(f"{brief(value)} is not a number")
    return float(f"{match[1]}e{match[2]}")


def text_of(name: str, folder: Path, tail: int | None = None) -> str:
    """The text of a file; with ``tail``, its first line and about so many bytes of its end, in whole lines."""
    path = folder / STREAMS.get(name, name)
    if path.exists() and not path.is_file():  # a pipe would hold up everything
        raise ReadError(f"{name} is not a file")
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if tail is not None:
            first = b""
            if size > 2 * tail:
                first = file.readline(tail)
                file.seek(size - tail)
                file.readline(tail)  # the rest of a line
            return (first + file.read().rpartition(b"\n")[0]).decode(errors="replace")  # the last is being written
        if size > LARGEST_TEXT:
            raise ReadError(f"{name} has {size / 1e9:.1f} GB, which is too large to be read as text")
        return file.read().decode(errors="replace")


def _json(name: str, reader: Reader, folder: Path) -> float:
    value = json.loads(text_of(reader["json"], folder))
    for key in str(reader["path"]).split(".") if reader.get("path") else [name]:
        if isinstance(value, list) and key.lstrip("-").isdigit() and -len(value) <= int(key) < len(value):
            value = value[int(key)]
        elif isinstance(value, dict) and key in value:
            value = value[key]
        else:
            raise ReadError(f"there is no {key!r} in {brief(value)}")
    if isinstance(value, list):
        return take(value, reader["take"])
    return _number(value)


def _labelled(name: str, reader: Reader, folder: Path) -> float:
    label = reader.get("label") or name
    pairs = [line.split() for line in text_of(reader["labelled"], folder, reader.get("tail")).splitlines()]
    found = [words[0] for words in pairs if len(words) == 2 and words[1] == label]
    if not found:
        labels = ", ".join(words[1] for words in pairs if len(words) == 2)
        raise ReadError(f"there is no line with a number and the label {label!r}; labels there: {labels or 'none'}")
    return take(found, reader["take"])


def _regex(name: str, reader: Reader, folder: Path) -> float:
    text = text_of(reader["file"], folder, reader.get("tail"))
    found = [match[1] if match.re.groups else match[0] for match in re.finditer(reader["regex"], text, re.MULTILINE)]
    if not found:
        lines = text.strip().splitlines() or ["nothing"]
        raise ReadError(f"nothing matches in {reader['file']}, which ends with: {one_line(lines[-1])}")
    if not re.compile(reader["regex"]).groups and not _is_number(found[-1]):
        raise ReadError(f"{brief(found[-1])} is not a number: put ( ) around the part of the regex that is one")
    return take(found, reader["take"])


def _table(name: str, reader: Reader, folder: Path) -> float:
    """A column of a table, by name or number; a row by its number, or all that ``take`` takes from."""
    text = text_of(reader["table"], folder, reader.get("tail"))
    lines = [line.strip().lstrip("#").strip() for line in text.splitlines()]
    lines = [line for line in lines if line]
    if not lines:
        raise ReadError("the table is empty")
    separator = next((sign for sign in ",;\t" if sign in lines[0]), None)
    rows = list(csv.reader(lines, delimiter=separator)) if separator else [line.split() for line in lines]
    header = rows[0] if not all(_is_number(word) for word in rows[0]) else None
    rows = [row for row in rows[1 if header else 0 :] if row != header]
    column = name if reader.get("column") is None else reader["column"]
    if isinstance(column, str):
        known = [word.strip() for word in header or ()]
        if column not in known:
            raise ReadError(f"there is no column {column!r}; columns: {', '.join(known) or 'without names'}")
        column = known.index(column)
    try:
        if reader.get("row") is not None:
            return _number(rows[reader["row"]][column])
        return take([row[column] for row in rows], reader["take"])
    except IndexError:
        raise ReadError(f"it has {len(rows)} rows, some with {min(map(len, rows), default=0)} columns") from None


def _is_number(word: str) -> bool:
    try:
        _number(word)
    except ReadError:
        return False
    return True


def _npz(name: str, reader: Reader, folder: Path) -> float:
    import numpy as np

    path = folder / reader["npz"]
    loaded = np.load(path, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return _of_array(loaded, reader)
    with loaded:
        return _of_array(_member(loaded, reader.get("variable") or name), reader)


def _hdf5(name: str, reader: Reader, folder: Path) -> float:
    h5py = _library("h5py")
    path = folder / reader["hdf5"]
    path.stat()  # the library does not say which file is missing
    with h5py.File(path, "r") as file:
        found = _member(file, reader.get("variable") or name)
        if isinstance(found, h5py.Group):
            raise ReadError(f"{found.name} is a group; there: {one_line(', '.join(found))}")
        return _of_array(found, reader)


def _netcdf(name: str, reader: Reader, folder: Path) -> float:
    netcdf = _library("netCDF4")
    path = folder / reader["netcdf"]
    path.stat()
    with netcdf.Dataset(path) as file:
        *groups, variable = (reader.get("variable") or name).strip("/").split("/")
        container = file
        for group in groups:
            container = _member(container.groups, group)
        return _of_array(_member(container.variables, variable), reader)


def _member(container: Any, variable: str) -> Any:
    if variable not in container:
        raise ReadError(f"there is no variable {variable!r}; there: {one_line(', '.join(container)) or 'none'}")
    return container[variable]


def _of_array(array: Any, reader: Reader) -> float:
    """A number of an array, which may lie in a file: one that is taken by its place is read alone."""
    import numpy as np

    shape, which, index = array.shape, reader["take"], reader.get("index")
    if index is None and 0 in shape:
        raise ReadError("the array is empty")
    if index is None and which in ("first", "last"):
        index = [0 if which == "first" else size - 1 for size in shape]
    try:
        found = array[...] if index is None else array[tuple(index) if isinstance(index, list) else index]
    except (IndexError, ValueError) as error:
        raise ReadError(f"{one_line(str(error))}; its shape is {shape}") from None
    values = np.ma.filled(np.ma.asarray(found).astype(np.float64), np.nan)  # what is masked is missing
    if index is not None and values.size != 1:
        raise ReadError(f"index {index} is not that of a number; its shape is {shape}")
    return float(values.reshape(-1)[0] if index is not None else getattr(values, which)())


def _function(name: str, reader: Reader, folder: Path) -> float:
    """A function of the user's, called with the folder of the evaluation."""
    module, _, attribute = reader["function"].partition(":")
    function = getattr(importlib.import_module(module), attribute)
    return _number(function(folder))


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ReadError(f"{name} is not installed: pip install 'rlctl[readers]'") from None


_KINDS: Mapping[str, Callable[[str, Reader, Path], float]] = {
    "json": _json,
    "labelled": _labelled,
    "regex": _regex,
    "table": _table,
    "npz": _npz,
    "hdf5": _hdf5,
    "netcdf": _netcdf,
    "exit_code": lambda name, reader, folder: 0.0,
    "function": _function,
}
