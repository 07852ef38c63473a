"""Units start no processes: a test that does belongs in ``tests/integration``."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

STARTS = frozenset({"os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system", "subprocess.Popen"})
ALLOWED = frozenset({"uname", "git"})
"""PyTorch asks ``uname``, by way of ``platform.processor``; the provenance of runs asks ``git`` for the commit."""

_test: list[str] = []


def _refuse(event: str, arguments: tuple[object, ...]) -> None:
    if _test and event in STARTS and not (event == "subprocess.Popen" and arguments[0] in ALLOWED):
        raise AssertionError(f"{_test[-1]} starts a process ({event} {arguments[:2]}): move it to tests/integration")


sys.addaudithook(_refuse)


@pytest.fixture(autouse=True)
def no_processes(request: pytest.FixtureRequest) -> Iterator[None]:
    _test.append(request.node.nodeid)
    yield
    _test.clear()
