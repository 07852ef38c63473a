"""How functions, arguments and results travel between controller and workers, on one machine.

A message is eight bytes of length and that many bytes. What is small is pickled into it. The buffers of large arrays
(pickle protocol 5, PEP 574) go into one file in shared memory, which the receiver maps and unlinks at once: nothing is
copied through the socket, and the memory is given back with the last array that uses it. A message to a worker that is
large all the same lies in a file too: what goes through the socket always has room in it, so that a worker that stands
still holds nobody up.
"""

from __future__ import annotations

import io
import json
import mmap
import os
import pickle
import struct
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

INLINE_BYTES = 65_536
"""Buffers of at least so many bytes together go through shared memory."""

SMALL_BYTES = 32_768
"""A message to a worker that is larger lies in a file. At most three wait in a socket at one time."""

QUICK_BYTES = 800
"""The same where the socket is ``srun``: what is longer than a packet waits for an acknowledgement, 40 ms each way."""

IN_FILE = b"@"
"""What stands before its path."""

RECEIVE_BYTES = 65_536
"""What is received at once; the memory for it is taken each time, which costs more than a second call would."""

_LENGTH = struct.Struct("<Q")
_ALIGN = 64


HEAD = _LENGTH.size
"""Bytes before a message."""


def whole(data: bytes) -> bool:
    """Whether this is exactly one message, with its head."""
    return len(data) >= HEAD and _LENGTH.unpack_from(data)[0] == len(data) - HEAD


def frame(data: bytes) -> bytes:
    """A message as it goes over a socket."""
    return _LENGTH.pack(len(data)) + data


def posted(data: bytes, scratch: Path | None, most: int = SMALL_BYTES) -> bytes:
    """The same for a message to a worker, which ``opened`` gives to it.

    Args:
        scratch: folder for what is large; None: it goes over the socket too.
        most: bytes that are not large.

    Raises:
        OSError: it is large, and the folder is full.
    """
    if scratch is None or len(data) <= most:
        return frame(data)
    return frame(IN_FILE + str(_kept([data], scratch)).encode())


def opened(message: bytes) -> bytes:
    """What was ``posted``; may be called once."""
    if message[:1] != IN_FILE:
        return message
    path = Path(message[1:].decode())
    data = path.read_bytes()
    path.unlink()
    return data


def frames(buffer: bytearray) -> Iterator[bytes]:
    """The whole messages at the beginning of a buffer; they are taken out of it."""
    while len(buffer) >= _LENGTH.size:
        (length,) = _LENGTH.unpack_from(buffer)
        end = _LENGTH.size + length
        if len(buffer) < end:
            return
        message = bytes(memoryview(buffer)[_LENGTH.size : end])
        del buffer[:end]
        yield message


def dump(value: Any, scratch: Path | None) -> bytes:
    """Pickle anything that cloudpickle can; what is defined in a script's ``__main__`` travels by value.

    Args:
        scratch: folder for large arrays; None: all goes into the message.

    Raises:
        Exception: of pickle, for what cannot be pickled.
    """
    if scratch is None:
        return b"P" + _pickled(value, None)
    buffers: list[pickle.PickleBuffer] = []
    data = _pickled(value, buffers.append)
    views = [buffer.raw() for buffer in buffers]
    if sum(view.nbytes for view in views) < INLINE_BYTES:
        return b"P" + (_pickled(value, None) if views else data)
    head = json.dumps({"path": str(_kept(views, scratch)), "sizes": [view.nbytes for view in views]}).encode()
    return b"B" + _LENGTH.pack(len(head)) + head + data


def load(data: bytes) -> Any:
    """The opposite of ``dump``; may be called once."""
    if data[:1] == b"P":
        return pickle.loads(memoryview(data)[1:])
    (length,) = _LENGTH.unpack_from(data, 1)
    start = 1 + _LENGTH.size
    head = json.loads(data[start : start + length])
    handle = os.open(head["path"], os.O_RDONLY)
    try:
        os.unlink(head["path"])
        whole = memoryview(mmap.mmap(handle, 0, access=mmap.ACCESS_COPY))
    finally:
        os.close(handle)
    buffers, at = [], 0
    for size in head["sizes"]:
        buffers.append(whole[at : at + size])
        at += size + -size % _ALIGN
    return pickle.loads(memoryview(data)[start + length :], buffers=buffers)


def _kept(views: Iterable[memoryview | bytes], scratch: Path) -> Path:
    """A file of our own in which these lie, each aligned."""
    path = scratch / f"array-{uuid.uuid4().hex}"
    scratch.mkdir(mode=0o700, exist_ok=True)  # the supervisor may not have come to it yet
    with open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        for view in views:
            file.write(b"\0" * (-file.tell() % _ALIGN))
            file.write(view)
    return path


def _pickled(value: Any, callback: Callable[[pickle.PickleBuffer], Any] | None) -> bytes:
    try:
        data = pickle.dumps(value, 5, buffer_callback=callback)
        if b"__main__" not in data:
            return data
    except (pickle.PicklingError, AttributeError, TypeError):
        pass
    import cloudpickle

    if callback is not None and hasattr(callback, "__self__"):
        callback.__self__.clear()
    file = io.BytesIO()
    cloudpickle.Pickler(file, 5, buffer_callback=callback).dump(value)
    return file.getvalue()
