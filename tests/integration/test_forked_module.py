"""A module runs in a copy of a process as in an interpreter of its own."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from rlctl.executors.local.forked_module import fork_module, is_module

pytestmark = pytest.mark.quick

MODULE = """
import json, os, signal, sys

def main(arguments):
    if arguments[0] == "raise":
        raise ValueError("no such thing")
    if arguments[0] == "exit":
        sys.exit(7)
    print(json.dumps({
        "arguments": arguments, "environment": dict(os.environ), "session": os.getsid(0), "pid": os.getpid(),
        "files": len(os.listdir("/proc/self/fd")), "cores": sorted(os.sched_getaffinity(0)),
        "interrupt": signal.getsignal(signal.SIGINT) is signal.SIG_DFL,
    }))
    return 3
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "a_wrapper.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "a_wrapper", raising=False)
    return tmp_path


def ended(here: Path, *arguments: str) -> tuple[int, int, str, str]:
    outputs = [str(here / "out"), str(here / "err")]
    command = [sys.executable, "-P", "-m", "a_wrapper", *arguments]
    assert is_module(command)
    core = min(os.sched_getaffinity(0))
    pid = fork_module(command, {"ONLY": "this"}, outputs, [core])
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return pid, code, *(Path(path).read_text() for path in outputs)


def test_it_has_a_session_an_environment_cores_and_outputs_of_its_own(here: Path) -> None:
    with open(here / "left_open", "w"):
        pid, code, out, err = ended(here, "say", "more")
    assert (code, err) == (3, "")
    assert json.loads(out) == {
        "arguments": ["say", "more"], "environment": {"ONLY": "this"}, "session": pid, "pid": pid,
        "files": 4, "cores": [min(os.sched_getaffinity(0))], "interrupt": True,
    }  # fmt: skip
    assert "ONLY" not in os.environ
    assert signal.getsignal(signal.SIGINT) is not signal.SIG_DFL


def test_it_ends_with_the_code_of_an_exit_or_the_traceback_of_an_error(here: Path) -> None:
    assert ended(here, "exit")[1:] == (7, "", "")
    _, code, out, err = ended(here, "raise")
    assert (code, out) == (1, "")
    assert "ValueError: no such thing" in err


def test_what_cannot_be_started_says_so_and_leaves_no_process(here: Path) -> None:
    with pytest.raises(OSError, match="No such file or directory: '/no/where'"):
        fork_module([sys.executable, "-P", "-m", "a_wrapper", "say"], {}, ["/no/where", str(here / "err")], None)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
