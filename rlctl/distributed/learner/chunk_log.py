"""A log of the chunks since the last checkpoint, written before they are acknowledged: no simulation is done twice.

A log is a folder of segments, each a sequence of [length, CRC-32, bytes]. A checkpoint begins a new segment with what
was received but not yet learned from; once it is complete, older segments are removed. Continuing from a checkpoint
reads its segment and those after it. A record that is cut off was never acknowledged.
"""

from __future__ import annotations

import os
import struct
import time
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from rlctl.distributed.comm.codec import Bytes

_RECORD = struct.Struct("<II")
_DURABLE_S = 1.0
"""Chunks survive the death of every process as soon as they are flushed, and that of the node after so many seconds."""


class ChunkLog:
    """Appends to the newest segment of ``folder``, which is made if need be."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        numbers = [number for number, _ in self._segments()]
        self.segment = max(numbers, default=-1) + 1
        self._file = self._open()
        self._synced_s = time.monotonic()

    def append(self, chunk: Bytes) -> None:
        """Write a chunk.

        Raises:
            OSError: it cannot be written.
        """
        data = chunk.data
        self._file.write(_RECORD.pack(len(data), zlib.crc32(data)))
        self._file.write(data)

    def flush(self) -> None:
        """Hand what was appended to the operating system; to be called before it is acknowledged."""
        self._file.flush()
        now_s = time.monotonic()
        if now_s - self._synced_s > _DURABLE_S:
            os.fdatasync(self._file.fileno())
            self._synced_s = now_s

    def begin_segment(self, unlearned: Iterable[Bytes]) -> int:
        """Begin a new segment with what was not learned from yet, for a checkpoint; its number."""
        old = self._file
        self.segment += 1
        self._file = self._open()
        for chunk in unlearned:
            self.append(chunk)
        self._file.flush()
        os.fdatasync(self._file.fileno())
        old.close()
        return self.segment

    def forget_before(self, segment: int) -> None:
        """Remove the segments before that of a complete checkpoint."""
        for number, path in self._segments():
            if number < segment:
                path.unlink()

    def read_from(self, segment: int) -> Iterator[Bytes]:
        """All complete chunks of a segment and those after it, in the order in which they were appended."""
        for number, path in sorted(self._segments()):
            if number >= segment:
                yield from _records(path)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _segments(self) -> list[tuple[int, Path]]:
        return [(int(path.stem), path) for path in self.folder.glob("*.chunks") if path.stem.isdigit()]

    def _open(self) -> BinaryIO:
        return (self.folder / f"{self.segment:08d}.chunks").open("ab", buffering=1 << 20)


def _records(path: Path) -> Iterator[Bytes]:
    data = path.read_bytes()
    at = 0
    while at + _RECORD.size <= len(data):
        length, checksum = _RECORD.unpack_from(data, at)
        chunk = data[at + _RECORD.size : at + _RECORD.size + length]
        if len(chunk) < length or zlib.crc32(chunk) != checksum:
            return
        yield np.frombuffer(chunk, np.uint8)
        at += _RECORD.size + length
