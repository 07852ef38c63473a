"""The journal of a controller that is killed, and of two controllers at once."""

import subprocess
import sys
from pathlib import Path

import pytest

from rlctl.core.errors import JournalError
from rlctl.executors.event_log import Journal


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "journal.db"


def test_record_is_there_after_its_writer_was_killed_right_after_append(path: Path) -> None:
    program = (
        "import os, signal, sys, pathlib\n"
        "from rlctl.executors.event_log import Journal\n"
        "journal = Journal.create(pathlib.Path(sys.argv[1]), {'seed': 1})\n"
        "for i in range(50): journal.append('event', i, {'number': i})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", program, str(path)]).returncode == -9
    with Journal.open(path) as journal:  # its lock died with it
        assert [record.data["number"] for record in journal.records()] == list(range(50))


def test_second_controller_is_refused_and_readers_are_not(path: Path) -> None:
    program = (
        "import sys, pathlib\nfrom rlctl.executors.event_log import Journal\n"
        "journal = Journal.create(pathlib.Path(sys.argv[1]), {})\njournal.append('time', 1.0, {})\n"
        "print('ready', flush=True)\nsys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "ready\n"
        with pytest.raises(JournalError, match=f"another controller.*process {first.pid}"):
            Journal.open(path)
        with Journal.open(path, read_only=True) as reader:
            assert [record.kind for record in reader.records()] == ["time"]
            with pytest.raises(JournalError, match="cannot be written"):
                reader.append("time", 2.0, {})
    Journal.open(path).close()
