"""The file by which a controller speaks to workers that are busy."""

from pathlib import Path

import pytest

from rlctl.executors.parsl import control_file
from rlctl.executors.parsl.control_file import Hearing, Orders


def test_orders_are_heard_once_and_in_order(tmp_path: Path) -> None:
    said, heard = Orders(tmp_path, "one"), Hearing(tmp_path, "one", 60.0)
    said.give("a.1", "signal", 19)
    said.give("b.1", "stop", 0.0)
    heard.look()
    assert heard.orders("a.1", 0) == [["signal", 19]]
    said.give("a.1", "stop", 5.0)
    assert heard.orders("a.1", 1) == []
    heard.look()
    assert heard.orders("a.1", 1) == [["stop", 5.0]]
    said.forget("a.1")
    said.beat(at_once=True)
    heard.look()
    assert heard.orders("a.1", 0) == []
    assert heard.over is None


def test_another_controllers_name_and_the_end_are_heard(tmp_path: Path) -> None:
    first = Orders(tmp_path, "one")
    one, other = Hearing(tmp_path, "one", 60.0), Hearing(tmp_path, "two", 60.0)
    Orders(tmp_path, "two").close()
    first.beat(at_once=True)
    first.give("a.1", "stop", 0.0)
    for heard in (one, other):
        heard.look()
    assert (one.over, other.over) == ("superseded", "closed"), "whatever the former one says"


@pytest.mark.parametrize("gone", [False, True])
def test_a_silent_controller_is_believed_dead_after_the_lease_and_alive_when_it_speaks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: bool
) -> None:
    now_s = 100.0
    monkeypatch.setattr(control_file.time, "monotonic", lambda: now_s)
    said, heard = Orders(tmp_path, "one"), Hearing(tmp_path, "one", 10.0)
    if gone:
        (tmp_path / control_file.ORDERS).unlink()
    heard.look()
    now_s += 9.0
    heard.look()
    assert heard.over is None
    now_s += 2.0
    heard.look()
    assert heard.over == "lease"
    said.beat()
    heard.look()
    assert heard.over is None


def test_what_a_full_disk_did_not_take_is_written_with_the_next_beat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said, heard = Orders(tmp_path, "one"), Hearing(tmp_path, "one", 60.0)

    def full() -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(said, "_write", full)
        said.give("a.1", "stop", 0.0)
    said.beat()
    heard.look()
    assert heard.orders("a.1", 0) == [["stop", 0.0]]
