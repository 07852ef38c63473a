"""Event files: continued after a resume, given up on a full disk, never in anybody's way."""

import logging
import resource
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

from rlctl.evaluation.success_curves import Curve, replacing_writer, summary_scalars, write_rules
from rlctl.monitoring.summary_writer import SummaryWriter


def points(folder: Path, tag: str) -> list[tuple[int, float]]:
    curves = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    curves.Reload()
    return [(event.step, float(event.tensor_proto.float_val[0])) for event in curves.Tensors(tag)]


def test_a_resumed_run_replaces_what_is_done_again(tmp_path: Path) -> None:
    with SummaryWriter(tmp_path) as board:
        for step in range(5):
            board.scalars({"learning/loss": 1.0}, step)
    with SummaryWriter(tmp_path, since=3) as board:
        for step in (3, 4, 5):
            board.scalars({"learning/loss": 2.0}, step)
    assert points(tmp_path, "learning/loss") == [(0, 1.0), (1, 1.0), (2, 1.0), (3, 2.0), (4, 2.0), (5, 2.0)]


def test_what_is_written_anew_replaces_all(tmp_path: Path) -> None:
    for value in (1.0, 2.0):
        with replacing_writer(tmp_path) as board:
            board.scalars({"learning/loss": value}, 7)
    assert len(list(tmp_path.iterdir())) == 1
    assert points(tmp_path, "learning/loss") == [(7, 2.0)]


def test_a_full_disk_costs_curves_and_nothing_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with caplog.at_level(logging.WARNING), SummaryWriter(tmp_path) as board:
        board.scalars({"learning/loss": 1.0}, 0)
        # The system refuses to let a file grow further, as it does when the disk is full.
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
        try:
            for step in range(1, 2000):
                board.scalars({"learning/loss": 1.0}, step)
            board.close()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        board.scalars({"learning/loss": 1.0}, 2000)
    assert len([record for record in caplog.records if "curves cannot be written at present" in record.message]) == 1
    assert points(tmp_path, "learning/loss")[0] == (0, 1.0)


def test_a_folder_that_cannot_be_made_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    with caplog.at_level(logging.WARNING), SummaryWriter(tmp_path / "file" / "tensorboard") as board:
        for step in range(10):
            board.scalars({"learning/loss": 1.0}, step)
    assert len(caplog.records) == 1


def test_what_is_no_finite_number_is_left_out(tmp_path: Path) -> None:
    with SummaryWriter(tmp_path) as board:
        board.scalars({"learning/loss": float("nan"), "campaign/label": "text"}, 0)
        board.scalars({"learning/loss": 1.0}, 1)
    assert points(tmp_path, "learning/loss") == [(1, 1.0)]


def test_rules_reach_on_the_board_what_their_curves_say(tmp_path: Path) -> None:
    curves = [Curve("r", 0, (10.0, 30.0), 40.0, reached=True), Curve("r", 1, (), 60.4)]
    write_rules(tmp_path, {"r": curves}, (0, 100))
    folder = tmp_path / "rules" / "r"
    against = dict(points(folder, "winning/successes"))
    assert (against[0], against[9], against[20], against[35], against[60]) == (0.0, 0.0, 0.5, 1.0, 1.0)
    figures = summary_scalars(curves)
    assert figures == {
        "winning/success_rate": 0.5,
        "winning/goal_rate": 0.5,
        "winning/node_seconds_per_success": pytest.approx(50.2),
    }
    assert points(folder, "winning/goal_rate") == [(0, 0.5), (100, 0.5)]
