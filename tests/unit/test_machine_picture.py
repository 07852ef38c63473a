"""The picture of the machine: which cell has which colour."""

import io

import numpy as np
from PIL import Image

from rlctl.core.machine import Capacity
from rlctl.core.task import TaskId, TaskState
from rlctl.monitoring.ledger import Purpose
from rlctl.monitoring.occupancy import allocation, allocation_png
from rlctl.monitoring.palette import PURPOSE_COLOURS, rgb
from rlctl.monitoring.timeline import TaskAttempt, Timeline

PURPOSES = list(Purpose)


def timeline(capacity: Capacity) -> Timeline:
    last = capacity.total_cores - 1
    return Timeline(
        capacity,
        attempts=[
            TaskAttempt(TaskId("a"), 1, 10.0, 10.0, 15.0, 40.0, TaskState.DONE, cores=(0,)),
            TaskAttempt(TaskId("b"), 1, 10.0, 20.0, 20.0, 60.0, TaskState.FAILED, cores=(last,)),
        ],
        booting=[(0.0, 5.0)],
        working=[(5.0, 10.0)],
        end_s=100.0,
    )


def test_each_cell_shows_what_its_core_was_for() -> None:
    cells = allocation(timeline(Capacity(1, 2)), 100)
    names = np.array(PURPOSES)[cells % len(PURPOSES)]
    assert [names[0, at] for at in (2, 7, 12, 30, 50)] == ["boot", "controller", "boot", "useful run", "idle"]
    assert [names[1, at] for at in (2, 7, 12, 30, 70)] == ["boot", "controller", "queue", "wasted run", "idle"]


def test_of_many_cores_the_nodes_are_shown_and_of_many_nodes_groups() -> None:
    assert allocation(timeline(Capacity(32, 2)), 50).shape == (64, 50)
    assert allocation(timeline(Capacity(33, 2)), 50).shape == (33, 50)
    assert allocation(timeline(Capacity(2000, 4)), 50).shape[0] <= 256


def test_the_png_has_the_colours_of_the_cells() -> None:
    picture = Image.open(io.BytesIO(allocation_png(timeline(Capacity(1, 2))))).convert("RGB")
    seen = {colour for _, colour in picture.getcolors(100_000) or []}
    assert {rgb(PURPOSE_COLOURS[purpose]) for purpose in PURPOSES} <= seen
