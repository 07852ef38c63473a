"""How functions, arguments and results travel between controller and workers, on one machine.

A message is eight bytes of length and that many bytes. What is small is pickled into it. The buffers of large arrays
(pickle protocol 5, PEP 574) go into one file in shared memory, or on disk where that is full. The receiver reads it
into memory of its own, from the end, and cuts off what it has read. So no array that is kept holds a file open, a part
of shared memory or the arrays beside it, and while it is read it is not there twice. A message to a worker that is
large all the same lies in a file too: what goes through the socket always has room in it, so that a worker that stands
still blocks no other.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import pickle
import struct
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rlctl.executors.naming import spare

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

READ_BYTES = 1 << 25
"""So much of a file is there twice while it is read."""

LARGE_BYTES = 1 << 22
"""Each array from here on has a mapping of its own, of which a process may have 65,530."""

_LENGTH = struct.Struct("<Q")

HEAD = _LENGTH.size
"""Bytes before a message."""


def whole(data: bytes) -> bool:
    """Whether this is exactly one message, with its head."""
    return len(data) >= HEAD and _LENGTH.unpack_from(data)[0] == len(data) - HEAD


def frame(data: bytes) -> bytes:
    """A message as it goes over a socket."""
    return _LENGTH.pack(len(data)) + data


def posted(data: bytes, scratch: Path | None, most: int = SMALL_BYTES) -> bytes:
    """Frame a message to a worker; one of more bytes than ``most`` goes into a file, if there is a folder."""
    if scratch is None or len(data) <= most:
        return frame(data)
    return frame(IN_FILE + str(_kept([data], scratch)).encode())


def opened(message: bytes) -> bytes:
    """What was ``posted``; may be called once."""
    if message[:1] != IN_FILE:
        return message
    path = Path(message[1:].decode())
    return bytes(_taken(path, [path.stat().st_size])[0])


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


def dump(value: Any, scratch: Path | None, *, back: bool = False) -> bytes:
    """Pickle anything that cloudpickle can, with what it needs of the script; see ``script_namespace``.

    Args:
        scratch: folder for large arrays; None: all goes into the message.
        back: from a worker to the controller.
    """
    names: set[str] = set()
    message = _framed(lambda callback: _pickled(value, callback, names, back), scratch)
    if not names or back:
        return message
    from rlctl.executors.functions import script_namespace

    try:
        marks = script_namespace.marks(names)
        values = _framed(lambda callback: script_namespace.values(marks, callback), scratch)
    except BaseException:
        _drop(message)
        raise
    return b"M" + frame(json.dumps(marks).encode()) + frame(values) + message


def load(data: bytes | memoryview) -> Any:
    """The opposite of ``dump``; may be called once."""
    data = memoryview(data)
    kind = bytes(data[:1])
    if kind == b"P":
        return pickle.loads(data[1:])
    head, rest = _first(data[1:])
    if kind == b"B":
        about = json.loads(bytes(head))
        return pickle.loads(rest, buffers=_taken(Path(about["path"]), about["sizes"]))
    from rlctl.executors.functions import script_namespace

    values, message = _first(rest)
    script_namespace.define(json.loads(bytes(head)), lambda: load(values), lambda: _drop(values))
    return load(message)


def _room(size: int) -> memoryview:
    """Writable memory, released with its last user."""
    if size < LARGE_BYTES:
        return memoryview(bytearray(size))
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # other than a bytearray, not filled
    with contextlib.suppress(AttributeError, OSError):
        memory.madvise(mmap.MADV_HUGEPAGE)  # which halves the time
    return memoryview(memory)


def _framed(write: Callable[[Callable[[pickle.PickleBuffer], Any] | None], bytes], scratch: Path | None) -> bytes:
    if scratch is None:
        return b"P" + write(None)
    buffers: list[pickle.PickleBuffer] = []
    data = write(buffers.append)
    views = [buffer.raw() for buffer in buffers]
    if sum(view.nbytes for view in views) < INLINE_BYTES:
        return b"P" + (write(None) if views else data)
    head = json.dumps({"path": str(_kept(views, scratch)), "sizes": [view.nbytes for view in views]}).encode()
    return b"B" + frame(head) + data


def _first(data: memoryview) -> tuple[memoryview, memoryview]:
    """A message with its head, and what follows it."""
    (length,) = _LENGTH.unpack_from(data)
    return data[HEAD : HEAD + length], data[HEAD + length :]


def _drop(message: bytes | memoryview) -> None:
    """Remove the file of a message that is not to be loaded."""
    if message[:1] == b"B":
        head, _ = _first(memoryview(message)[1:])
        Path(json.loads(bytes(head))["path"]).unlink(missing_ok=True)


def _kept(views: Sequence[memoryview | bytes], scratch: Path) -> Path:
    """Write these into a file, one after the other; on disk where shared memory is full."""
    try:
        return _written(views, scratch)
    except OSError:
        if (other := spare(scratch)) == scratch:
            raise
        return _written(views, other)


def _written(views: Iterable[memoryview | bytes], folder: Path) -> Path:
    path = folder / f"array-{uuid.uuid4().hex}"
    folder.mkdir(mode=0o700, exist_ok=True)  # the supervisor may not have come to it yet
    try:
        with open(path, "xb", buffering=0, opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            for view in views:
                left = memoryview(view)
                while left:
                    left = left[file.write(left) :]
    except BaseException:  # what is half there takes the room of what comes later
        path.unlink(missing_ok=True)
        raise
    return path


def _taken(path: Path, sizes: Sequence[int]) -> list[memoryview]:
    """Read the parts of a file, and remove it."""
    with open(path, "r+b", buffering=0) as file:
        path.unlink()
        found = [_room(size) for size in sizes]
        end = sum(sizes)
        for left in reversed(found):
            while left:
                part, left = left[-READ_BYTES:], left[:-READ_BYTES]
                end -= len(part)
                file.seek(end)
                if file.readinto(part) != len(part):
                    raise OSError(f"{path}: is too short")
                file.truncate(end)
    return found


def _pickled(value: Any, callback: Callable[[pickle.PickleBuffer], Any] | None, names: set[str], back: bool) -> bytes:
    try:
        data = pickle.dumps(value, 5, buffer_callback=callback)
        if b"__main__" not in data:
            return data
    except (pickle.PicklingError, AttributeError, TypeError):
        pass
    from rlctl.executors.functions import script_namespace

    if callback is not None and hasattr(callback, "__self__"):
        callback.__self__.clear()
    return script_namespace.dumps(value, callback, names, back=back)
