"""The file by which a controller speaks to workers that are busy."""

from pathlib import Path

import pytest

from rlctl.executors.parsl import control_file
from rlctl.executors.parsl.control_file import ControlReader, ControlWriter


def test_orders_are_heard_once_and_in_order(tmp_path: Path) -> None:
    writer, reader = ControlWriter(tmp_path, "one"), ControlReader(tmp_path, "one", 60.0)
    writer.request("a.1", "signal", 19)
    writer.request("b.1", "stop", 0.0)
    reader.read()
    assert reader.requests("a.1", 0) == [["signal", 19]]
    writer.request("a.1", "stop", 5.0)
    assert reader.requests("a.1", 1) == []
    reader.read()
    assert reader.requests("a.1", 1) == [["stop", 5.0]]
    writer.forget("a.1")
    writer.beat(at_once=True)
    reader.read()
    assert reader.requests("a.1", 0) == []
    assert reader.over is None


def test_another_controllers_name_and_the_end_are_heard(tmp_path: Path) -> None:
    first = ControlWriter(tmp_path, "one")
    one, other = ControlReader(tmp_path, "one", 60.0), ControlReader(tmp_path, "two", 60.0)
    ControlWriter(tmp_path, "two").close()
    first.beat(at_once=True)
    first.request("a.1", "stop", 0.0)
    for reader in (one, other):
        reader.read()
    assert (one.over, other.over) == ("superseded", "closed"), "whatever the former one says"


@pytest.mark.parametrize("gone", [False, True])
def test_a_silent_controller_is_believed_dead_after_the_lease_and_alive_when_it_speaks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: bool
) -> None:
    now_s = 100.0
    monkeypatch.setattr(control_file.time, "monotonic", lambda: now_s)
    writer, reader = ControlWriter(tmp_path, "one"), ControlReader(tmp_path, "one", 10.0)
    if gone:
        (tmp_path / control_file.CONTROL).unlink()
    reader.read()
    now_s += 9.0
    reader.read()
    assert reader.over is None
    now_s += 2.0
    reader.read()
    assert reader.over == "lease"
    writer.beat()
    reader.read()
    assert reader.over is None


def test_what_a_full_disk_did_not_take_is_written_with_the_next_beat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, reader = ControlWriter(tmp_path, "one"), ControlReader(tmp_path, "one", 60.0)

    def full() -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(writer, "_write", full)
        writer.request("a.1", "stop", 0.0)
    writer.beat()
    reader.read()
    assert reader.requests("a.1", 0) == [["stop", 0.0]]
