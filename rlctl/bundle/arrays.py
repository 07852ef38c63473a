"""Arrays in an ``.npz`` file, read without trust: known names, known shapes, plain numbers, nothing compressed."""

from __future__ import annotations

import io
import math
import struct
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from rlctl.core.errors import PolicyError

HEADER = 4096
"""More bytes than the header of a plain array has."""

Declared = Mapping[str, tuple[tuple[int, ...], Any]]
"""By name: shape and type."""


def pack(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The content of an ``.npz`` file with these arrays; ``numpy.load`` reads it too."""
    buffer = io.BytesIO()
    named: dict[str, Any] = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    np.savez(buffer, **named)
    return buffer.getvalue()


def size_limit(declared: Declared) -> int:
    """No file with these arrays has more bytes."""
    return sum(_bytes(shape, dtype) + 2 * HEADER for shape, dtype in declared.values()) + HEADER


def unpack(data: bytes, declared: Declared) -> dict[str, NDArray[Any]]:
    """Exactly the declared arrays; the caller bounds the length of ``data`` by ``size_limit``.

    No member is decompressed (``numpy.savez`` stores), none is as large as to hold more than it declares, and no
    pickle is ever loaded, so reading cannot run code nor take more memory than the data twice.

    Raises:
        PolicyError: the file is anything else; the message lacks the file's name.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            if sorted(m.filename for m in members) != sorted(f"{name}.npy" for name in declared):
                raise PolicyError("it does not hold the arrays that the manifest declares, each once")
            return {m.filename[:-4]: _member(archive, m, *declared[m.filename[:-4]]) for m in members}
    except _BROKEN as error:
        raise PolicyError(f"no archive of plain arrays ({type(error).__name__})") from None


# What the standard library's zip reader and NumPy's header reader raise for bytes that make no sense.
_BROKEN = (
    zipfile.BadZipFile, zipfile.LargeZipFile, struct.error, NotImplementedError, RuntimeError, ValueError, OSError,
    EOFError, OverflowError, MemoryError, IndexError, KeyError, TypeError, SyntaxError,
)  # fmt: skip


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    name, expected = member.filename, _bytes(shape, dtype)
    if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
        raise PolicyError(f"{name} is compressed; arrays are stored as they are")
    if not expected < member.file_size <= expected + HEADER:
        raise PolicyError(f"{name} has {member.file_size:,} bytes, but its shape {shape} needs {expected:,}")
    with archive.open(member) as file:
        content = io.BytesIO(file.read(member.file_size + 1))
    if npy.read_magic(content) != (1, 0):
        raise PolicyError(f"{name} is of an unknown version of NumPy's format")
    said, fortran, kind = npy.read_array_header_1_0(content, max_header_size=HEADER)
    if kind.hasobject or kind != np.dtype(dtype) or said != shape or fortran:
        raise PolicyError(f"{name} is not the {np.dtype(dtype)} array of shape {shape} that the manifest declares")
    rest = content.read()
    if len(rest) != expected:
        raise PolicyError(f"{name} has {len(rest):,} bytes of numbers, not {expected:,}")
    return np.frombuffer(rest, kind).reshape(shape)


def _bytes(shape: tuple[int, ...], dtype: Any) -> int:
    return math.prod(shape) * int(np.dtype(dtype).itemsize)
