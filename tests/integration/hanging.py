"""A rule, a campaign and a task model that never answer, or cannot read what they need, where a test wants it so."""

import contextlib
import ctypes
import errno
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tiny_campaign

from rlctl.core.campaign import Action, Command, Decision
from rlctl.core.simulation import Launch, Simulated
from rlctl.core.task import Event, TaskState


def loop() -> None:
    while True:
        pass


def stubborn() -> None:
    while True:
        with contextlib.suppress(Exception):
            time.sleep(0.01)


def more_stubborn() -> None:
    """No exception ends it."""
    while True:
        with contextlib.suppress(BaseException):
            stubborn()


def sleep() -> None:
    while True:
        time.sleep(1e6)


def lock() -> None:
    mutex = threading.Lock()
    mutex.acquire()
    mutex.acquire()


def network() -> None:
    ours, theirs = socket.socketpair()
    ours.recv(1)
    theirs.close()


def library() -> None:
    """In C, where no signal ends it."""
    mutex = ctypes.create_string_buffer(64)
    for _ in range(2):
        ctypes.CDLL(None).pthread_mutex_lock(mutex)


def lock_of_python() -> None:
    """In C, with Python's interpreter lock, so that no handler and no other thread runs."""
    mutex = ctypes.create_string_buffer(64)
    for _ in range(2):
        ctypes.PyDLL(None).pthread_mutex_lock(mutex)


HANGS: dict[str, Callable[[], None]] = {
    function.__name__: function for function in (loop, stubborn, more_stubborn, sleep, lock, network, library)
}


def missing() -> None:
    open("/no/such/mesh.h5").close()


def folder() -> None:
    open("/proc").close()


def forbidden() -> None:
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/data/mesh.h5")


def full() -> None:
    with open("/dev/full", "w") as file:
        file.write("a result")


def refused() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    socket.create_connection(("127.0.0.1", port)).close()


def pipe() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    os.write(writer, b"a question")


FAILS: dict[str, Callable[[], None]] = {
    function.__name__: function for function in (missing, folder, forbidden, full, refused, pipe)
}


def here(place: str) -> None:
    """Hang or fail, if this is where the test wants it; once the file ``cured`` is there, it works."""
    if os.environ["HANG_IN"] == place and not os.path.exists(os.environ.get("CURED", "")):
        if mark := os.environ.get("HANG_MARK"):
            open(mark, "w").close()
        (HANGS | FAILS | {"lock_of_python": lock_of_python})[os.environ["HANG"]]()


class Hanging:
    """A rule."""

    SPACE: ClassVar = {"pace": (0.0, 1.0)}

    def __init__(self, pace: float = 0.5) -> None:
        self.name = "hanging"

    def act(self, decision: Decision) -> Action:
        if decision.number >= 2:
            here("act")
        return np.array([0])

    def reset(self, seed: int) -> None:
        pass

    def state(self) -> Mapping[str, Any]:
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        pass


class Parts(tiny_campaign.Parts):
    def apply(self, action: Action) -> list[Command]:
        if self.started >= 2:
            here("apply")
        return super().apply(action)

    def on_event(self, event: Event) -> None:
        here("on_event")
        if event.result is not None and event.uid in self.running:  # `check --play` tells of strangers too
            self.running.remove(event.uid)
            self.idle += 1
            self.good += event.state is TaskState.DONE


class Model:
    def outcomes(self, launches: Sequence[Launch]) -> list[Simulated]:
        here("outcomes")
        return [Simulated(1.0, {"size": 1}) for _ in launches]


class Factory(tiny_campaign.Factory):
    def campaign(self, seed: int) -> Parts:
        here("campaign")
        return Parts(self.options)

    def prepare(self, folder: Path, seed: int) -> None:
        here("prepare")
        super().prepare(folder, seed)

    def task_model(self, seed: int) -> Model:
        return Model()

    def privileged(self, seed: int) -> np.ndarray:
        return np.zeros(0, np.float32)
