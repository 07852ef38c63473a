"""Writes TensorBoard event files on a background thread, so that disk errors neither delay nor stop the caller."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import socket
import threading
import time
from pathlib import Path
from typing import BinaryIO

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.summary.writer.record_writer import RecordWriter

log = logging.getLogger(__name__)

_FLUSH_S = 2.0
_AGAIN_S = 30.0
_MOST = 10_000  # events in the queue; further ones are dropped
_CLOSE_S = 10.0


class EventFile:
    """Writes events to files in a folder.

    If the disk is full or the folder cannot be written, it logs one warning, drops events and tries a new file every
    30 seconds. TensorBoard reads the files of a folder in the order of their names.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._file: BinaryIO | None = None
        self._writer: RecordWriter | None = None
        self._not_before_s = 0.0
        self._warned = False
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="event file", daemon=True)
        self._thread.start()

    def write(self, event: Event) -> None:
        """Queue an event."""
        if not self._closed and self._queue.qsize() < _MOST:
            self._queue.put(event.SerializeToString())

    def close(self) -> None:
        """Write queued events for at most 10 seconds; may be called twice."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
            self._thread.join(_CLOSE_S)

    def _work(self) -> None:
        dirty, flushed_s = False, time.monotonic()
        while True:
            data: bytes | None = b""
            with contextlib.suppress(queue.Empty):
                data = self._queue.get(timeout=_FLUSH_S if dirty else None)
            try:
                if data:
                    self._append(data)
                    dirty = True
                if self._writer is not None and (not data or time.monotonic() - flushed_s > _FLUSH_S):
                    self._writer.flush()
                    dirty, flushed_s = False, time.monotonic()
            except OSError as error:
                dirty = False
                self._fail(error)
            if data is None:
                break
        self._drop()

    def _append(self, data: bytes) -> None:
        if self._writer is None:
            if time.monotonic() < self._not_before_s:
                return
            self._folder.mkdir(parents=True, exist_ok=True)
            seconds, nanoseconds = divmod(time.time_ns(), 10**9)
            name = f"events.out.tfevents.{seconds:010d}.{nanoseconds:09d}.{socket.gethostname()}.{os.getpid()}"
            self._file = (self._folder / name).open("wb")
            self._writer = RecordWriter(self._file)
            self._writer.write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
        self._writer.write(data)

    def _fail(self, error: OSError) -> None:
        if not self._warned:
            self._warned = True
            log.warning("%s: curves cannot be written at present: %s", self._folder, error.strerror or error)
        self._not_before_s = time.monotonic() + _AGAIN_S
        self._drop()

    def _drop(self) -> None:
        file, self._file, self._writer = self._file, None, None
        if file is not None:
            try:
                file.close()
            except OSError as error:
                log.debug("%s: %s", self._folder, error)
