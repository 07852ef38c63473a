"""A supervisor's connection to its controller: one line of JSON for each message.

A later controller takes the place of an earlier one. Nothing but the standard library is imported here.
"""

from __future__ import annotations

import contextlib
import json
import selectors
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


class ControllerLink:
    """See the module.

    Attributes:
        incarnation: of the last controller; -1: there was none.

    Args:
        refusal: why a controller that says hello is not accepted; None: it is.
        welcome: is called with the hello of each controller that is.
        obey: does what the controller asks for.
        abandoned: is called when the controller has gone, with whether that was before its hello.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        token: str,
        refusal: Callable[[Mapping[str, Any]], str | None],
        welcome: Callable[[Mapping[str, Any]], None],
        obey: Callable[[str, dict[str, Any]], None],
        abandoned: Callable[[bool], None],
    ) -> None:
        self.incarnation = -1
        self._selector, self._token = selector, token
        self._refusal, self._welcome, self._do, self._abandoned = refusal, welcome, obey, abandoned
        self._controller: socket.socket | None = None
        self._input, self._output = bytearray(), bytearray()
        self._blocked = False  # whether some of the output waits to be sent

    @property
    def connected(self) -> bool:
        """Whether there is a controller."""
        return self._controller is not None

    def listen(self, path: Path) -> None:
        """Let later controllers connect to a socket."""
        path.unlink(missing_ok=True)  # of a predecessor that was killed
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen(4)
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ, lambda _: self._accept(listener))

    def connect(self, connection: socket.socket) -> None:
        """Take in a candidate; it becomes the controller with its first message."""
        connection.setblocking(False)
        pending = bytearray()

        def read(mask: int) -> None:
            if connection is self._controller:
                self._serve(mask)
                return
            data = _receive(connection)
            if data is None:
                return
            pending.extend(data)
            if not data:
                self._drop(connection)
                if self.incarnation < 0:  # the controller died before its first word
                    self._abandoned(True)
            elif b"\n" in pending:
                line, _, rest = bytes(pending).partition(b"\n")
                self._greet(connection, json.loads(line), rest)

        self._selector.register(connection, selectors.EVENT_READ, read)

    def say(self, **message: Any) -> None:
        """Send a message, if there is a controller."""
        if self._controller is not None:
            self._output += json.dumps(message).encode() + b"\n"
            self._send()

    def finish(self) -> None:
        """Send what is left, before the end."""
        with contextlib.suppress(OSError):
            if self._controller is not None and self._output:
                self._controller.sendall(self._output)

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            self.connect(listener.accept()[0])

    def _greet(self, connection: socket.socket, hello: Mapping[str, Any], rest: bytes) -> None:
        refused = self._refusal(hello) if hello.get("token") == self._token else "it has another token"
        if refused is None:
            before = self.incarnation, self.connected
            if hello["epoch"] < before[0] or (hello["epoch"] == before[0] and before[1]):
                refused = "another controller works here"
        if refused is not None:
            with contextlib.suppress(OSError):
                connection.sendall(json.dumps({"event": "refused", "why": refused}).encode() + b"\n")
            self._drop(connection)
            return
        if self._controller is not None:  # of an earlier incarnation: it is not to do anything any more
            self._drop(self._controller)
        self._controller, self._input, self._output = connection, bytearray(rest), bytearray()
        self._blocked = False
        self.incarnation = hello["epoch"]
        self._welcome(hello)
        self._obey()

    def _serve(self, mask: int) -> None:
        assert self._controller is not None
        if mask & selectors.EVENT_WRITE:
            self._send()
        if not mask & selectors.EVENT_READ:
            return
        data = _receive(self._controller)
        if data:
            self._input.extend(data)
            self._obey()
        elif data is not None:
            self._drop(self._controller)
            self._controller = None
            self._output.clear()
            self._abandoned(False)

    def _drop(self, connection: socket.socket) -> None:
        self._selector.unregister(connection)
        connection.close()

    def _obey(self) -> None:
        while (end := self._input.find(b"\n")) >= 0:
            message = json.loads(self._input[:end])
            del self._input[: end + 1]
            self._do(message.pop("do"), message)

    def _send(self) -> None:
        assert self._controller is not None
        with contextlib.suppress(BlockingIOError):
            try:
                while self._output:
                    del self._output[: self._controller.send(self._output)]
            except OSError as error:
                if isinstance(error, BlockingIOError):
                    raise
                self._output.clear()  # it has gone, as reading will show
        if bool(self._output) != self._blocked:  # wake up when the rest can be sent, or no more
            self._blocked = bool(self._output)
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._blocked else 0)
            self._selector.modify(self._controller, events, self._selector.get_key(self._controller).data)


def _receive(connection: socket.socket) -> bytes | None:
    """Receive what has come; empty at the end of the connection, None if there is nothing."""
    try:
        return connection.recv(65536)
    except BlockingIOError:
        return None
    except OSError:
        return b""
