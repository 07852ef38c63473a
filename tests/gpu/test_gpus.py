"""Tasks on real GPUs: each sees its own, and PyTorch trains on it. Skipped where PyTorch finds no GPU."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from rlctl.core.machine import Capacity
from rlctl.core.task import Resources, TaskId, TaskSpec
from rlctl.executors import LocalExecutor, TaskFuture

torch = pytest.importorskip("torch")
GPUS = torch.cuda.device_count() if torch.cuda.is_available() else 0
pytestmark = pytest.mark.skipif(GPUS == 0, reason="PyTorch finds no GPU here")
PATIENCE_S = 300.0
LOOK = """
import json, os, sys, time
import torch

began = time.time()
devices = [str(torch.cuda.get_device_properties(number).uuid) for number in range(torch.cuda.device_count())]
for number in range(len(devices)):
    assert torch.ones(8, device=f"cuda:{number}").sum().item() == 8
time.sleep(1)
seen = {"mask": os.environ["CUDA_VISIBLE_DEVICES"], "devices": devices, "began": began, "ended": time.time()}
json.dump(seen, open(sys.argv[1], "w"))
"""
TRAIN = """
import json, sys
import torch

torch.manual_seed(1)
x = torch.randn(256, 4, device="cuda")
y = x @ torch.tensor([1.0, -2.0, 3.0, 0.5], device="cuda") + 1.0
network = torch.nn.Linear(4, 1).to("cuda")
optimizer = torch.optim.Adam(network.parameters(), lr=0.05)
losses = []
for _ in range(300):
    loss = torch.nn.functional.mse_loss(network(x)[:, 0], y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
json.dump({"first": losses[0], "last": losses[-1], "device": network.weight.device.type}, open(sys.argv[1], "w"))
"""


@pytest.fixture
def executor(tmp_path: Path) -> Iterator[LocalExecutor]:
    capacity = Capacity(cores=min(2, len(os.sched_getaffinity(0))), gpus=min(2, GPUS))
    with LocalExecutor(capacity, tmp_path / "work", eager=True) as opened:
        yield opened


def start(executor: LocalExecutor, name: str, code: str, gpus: float = 1.0) -> TaskFuture:
    result = f"{name}.json"
    return executor.submit_task(
        TaskSpec(
            TaskId(name),
            executable=sys.executable,
            arguments=("-c", code, result),
            result_file=result,
            resources=Resources(gpus_per_rank=gpus),
        )
    )


def values(future: TaskFuture) -> Mapping[str, Any]:
    return future.result(PATIENCE_S)


def test_two_tasks_of_one_gpu_each_see_a_gpu_of_their_own(executor: LocalExecutor) -> None:
    """On a machine with one GPU, the second task waits until the first has ended."""
    futures = [start(executor, name, LOOK) for name in ("a", "b")]
    first, second = sorted(map(values, futures), key=lambda seen: seen["began"])
    for seen in (first, second):
        assert len(seen["mask"].split(",")) == len(seen["devices"]) == 1, seen
    assert (first["mask"] != second["mask"]) == (first["devices"] != second["devices"]) == (GPUS > 1)
    if GPUS == 1:
        assert second["began"] >= first["ended"]


def test_a_task_without_gpus_sees_none(executor: LocalExecutor) -> None:
    assert values(start(executor, "a", LOOK, gpus=0.0))["devices"] == []


def test_a_task_trains_with_pytorch_on_its_gpu(executor: LocalExecutor) -> None:
    trained = values(start(executor, "a", TRAIN))
    assert trained["device"] == "cuda"
    assert trained["last"] < 0.05 * trained["first"]
