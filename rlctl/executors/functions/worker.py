"""A warm worker: a process that calls one function after another. It dies with its controller.

Started by ``rlctl.executors.functions.worker_client``. Little is imported here, so that it starts quickly.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import socket
import sys
import threading
import traceback
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rlctl.core.errors import described
from rlctl.executors.functions import large_results, serialization

PATH, INITIALIZE, CALL, NAMED = b"P", b"I", b"C", b"N"
VALUE, ERROR, JSON, FAILURE = b"V", b"E", b"J", b"F"


class Pipe:
    """The connection of a worker on another node: its own input and output. What it prints goes to standard error."""

    def __init__(self) -> None:
        self._out = os.dup(1)
        os.dup2(2, 1)

    def recv(self, most: int) -> bytes:
        """As of a socket."""
        return os.read(0, most)

    def sendall(self, data: bytes) -> None:
        """As of a socket."""
        view = memoryview(data)
        while view:
            view = view[os.write(self._out, view) :]


def serve(connection: socket.socket | Pipe, scratch: Path | None) -> None:
    """Answer calls until the controller closes its end."""
    buffer, own = bytearray(), os.getpid()
    while True:
        data = connection.recv(serialization.RECEIVE_BYTES)
        if not data:
            return
        messages: Iterable[bytes]
        if not buffer and serialization.whole(data):
            messages = (data[serialization.HEAD :],)
        else:
            buffer += data
            messages = serialization.frames(buffer)
        for message in map(serialization.opened, messages):
            answer = _answer(message[:1], message[1:], scratch)
            if os.getpid() != own:  # a function has forked, and this is the child, which nothing is asked of
                os._exit(0)
            if answer is not None and isinstance(connection, Pipe):
                connection.sendall(serialization.posted(answer, scratch, serialization.QUICK_BYTES))
            elif answer is not None:
                connection.sendall(serialization.frame(answer))


def _answer(kind: bytes, message: bytes, scratch: Path | None) -> bytes | None:
    if kind == NAMED:
        return _named(*json.loads(message))
    if kind == PATH:
        sys.path[:] = json.loads(message)  # functions are found where the controller finds them
        return None
    if kind == CALL and _broken:
        return ERROR + _broken[0]
    try:
        function, arguments, keywords = serialization.load(message)
        value = function(*arguments, **keywords)
    except BaseException as error:  # also SystemExit: the worker stays
        if kind == INITIALIZE:
            _break(error)
            return None
        return ERROR + _error(error)
    if kind == INITIALIZE:
        return None
    try:
        return VALUE + serialization.dump(value, scratch, back=True)
    except Exception as error:
        return ERROR + _error(error)


_own: list[types.ModuleType] = []  # this module, which would not outlive its entry otherwise

_broken: list[bytes] = []  # the answer to every call, once the initializer has failed


def _break(error: BaseException) -> None:
    from concurrent.futures import BrokenExecutor

    broken = BrokenExecutor(f"the initializer failed: {described(error)}")
    broken.__cause__ = error
    _broken.append(_error(broken))


def _error(error: BaseException) -> bytes:
    """The exception and its traceback; one that cannot be sent becomes one that says so."""
    text = "".join(traceback.format_exception(error))
    try:
        whole = serialization.dump((error, text), None, back=True)
        if isinstance(serialization.load(whole)[0], BaseException):
            return whole
    except BaseException:
        pass
    return serialization.dump((RuntimeError(described(error)), text), None, back=True)


def _named(
    name: str, parameters: Mapping[str, Any], cores: list[int], variables: Mapping[str, str], attempt: str
) -> bytes:
    """The function of a ``TaskSpec``: the answer is JSON, or a failure and its reason."""
    if cores and hasattr(os, "sched_setaffinity"):
        with contextlib.suppress(OSError):  # a batch system may know better
            os.sched_setaffinity(0, cores)
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        module, _, attribute = name.partition(":")
        try:
            function = getattr(importlib.import_module(module), attribute)
        except BaseException as error:  # whatever a module does when it is imported
            return _failure("launch", f"{name}: {described(error)}")
        try:
            values = function(**parameters)
        except BaseException as error:  # also SystemExit: the worker stays
            return _failure("exit", described(error))
        if not isinstance(values, Mapping):
            return _failure("garbage", f"{name} returned {type(values).__name__}, not a mapping")
        try:
            return JSON + json.dumps(large_results.by_reference(values, Path.cwd(), attempt), allow_nan=False).encode()
        except OSError as error:
            return _failure("garbage", f"{name}: its result cannot be kept: {error}")
        except Exception as error:
            return _failure("garbage", f"{name}: its result is not JSON: {error}")
    finally:
        os.environ.clear()
        os.environ.update(before)


def _failure(kind: str, message: str) -> bytes:
    return FAILURE + json.dumps([kind, message]).encode()


def _die_with(life: int) -> None:
    """Wait until the controller, which holds the other end of this pipe, is gone; then kill this process group."""
    os.read(life, 1)
    os.killpg(0, signal.SIGKILL)


def _end_with_input() -> None:
    """The same where the other end of the input is the one that closes."""
    poll = select.poll()
    poll.register(0, 0)  # says that it was closed, not that there is something to read
    poll.poll()
    os.killpg(0, signal.SIGKILL)


def main() -> None:
    """Run with numbers of the socket and of the pipe, or ``-`` for both; the scratch folder, or nothing."""
    connection, life, scratch = sys.argv[1:]
    _own.append(sys.modules["__main__"])
    sys.modules["__main__"] = types.ModuleType("__main__")  # the script's, see ``script_namespace``
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the controller's to act upon
    if connection == "-":
        threading.Thread(target=_end_with_input, daemon=True).start()
        serve(Pipe(), Path(scratch))
        return
    for number in (int(connection), int(life)):
        os.set_inheritable(number, False)
    threading.Thread(target=_die_with, args=(int(life),), daemon=True).start()
    serve(socket.socket(fileno=int(connection)), Path(scratch) if scratch else None)


if __name__ == "__main__":
    main()
