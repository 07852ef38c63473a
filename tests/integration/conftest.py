"""Processes that several files of tests start."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hanging_machine import Machine
from steering_process import Steering, await_


@pytest.fixture
def steering(tmp_path: Path) -> Iterator[Steering]:
    steering = Steering(tmp_path)
    yield steering
    steering.close()
    await_(lambda: not steering.alive())


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path)
    yield machine
    machine.close()
