"""GPUs of a worker of Parsl: its own, or those of its node."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from rlctl.core.errors import LaunchError
from rlctl.executors.parsl.task_runners import gpu_variables
from rlctl.system.devices import HIDDEN, MASKS

CUDA, ROCR, ZE = "CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK"


@pytest.mark.parametrize(
    ("masks", "numbers", "shown"),
    [
        ({ROCR: "4,5"}, [1], {ROCR: "5"}),
        ({ROCR: "5"}, [1], {ROCR: "5"}),  # the worker's own, the second of the node
        (dict.fromkeys((CUDA, ROCR, ZE), "7"), [0], {CUDA: "7", ZE: "7"}),  # as Parsl sets accelerators
        ({ZE: "0.0,0.1"}, [0, 1], {ZE: "0.0,0.1"}),
        ({ROCR: "4,5"}, [], HIDDEN),
        ({}, [1], {CUDA: "1", ZE: "1"}),
    ],
)
def test_a_program_is_shown_devices_of_its_worker(
    monkeypatch: pytest.MonkeyPatch, masks: dict[str, str], numbers: Sequence[int], shown: dict[str, str]
) -> None:
    for name in MASKS:
        monkeypatch.delenv(name, raising=False)
    for name, value in masks.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("rlctl.system.devices.present_vendors", dict)
    assert gpu_variables(numbers) == shown


@pytest.mark.parametrize("value", ["", "-1", "NoDevFiles", "3", "3,3"])
def test_a_worker_with_fewer_says_so(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("HIP_VISIBLE_DEVICES", value)
    with pytest.raises(LaunchError, match=r"2 GPUs are asked for, HIP_VISIBLE_DEVICES='.*' allows this worker"):
        gpu_variables([0, 1])
