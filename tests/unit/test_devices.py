"""Masks of GPUs: what they leave, and that a task sees its own device, of any maker."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlctl.core.errors import LaunchError
from rlctl.executors import Capacity
from rlctl.executors.local.site import ThisMachine, require_machine
from rlctl.executors.node_share import NodeShare
from rlctl.system.devices import (
    AMD,
    CUDA,
    HIDDEN,
    HIP,
    INTEL,
    MASKS,
    NVIDIA,
    ORDINAL,
    ROCR,
    SELECTOR,
    ZE,
    VendorCounts,
    mask_variables,
    parse_mask,
    present_vendors,
    visible_devices,
    without_masks,
)

EVERY = 16
UNKNOWN: VendorCounts = {}


def seen_by(maker: str, environment: Mapping[str, str]) -> list[int]:
    """What libraries of a maker show on a machine of 16 devices; written from their documentation and sources."""

    def of(name: str, there: list[int]) -> list[int]:
        found: list[int] = []
        for entry in environment[name].split(","):
            if not entry.isdecimal() or int(entry) >= len(there):
                break
            found.append(there[int(entry)])
        return list(dict.fromkeys(found))

    every = list(range(EVERY))
    if maker == NVIDIA:
        return of(CUDA, every) if CUDA in environment else every
    if maker == INTEL:
        return of(ZE, every) if environment.get(ZE) else every  # an empty one is none
    left = of(ROCR, every) if ROCR in environment else every
    above = environment.get(HIP) or environment.get(CUDA)  # an empty one is none
    return of(HIP if environment.get(HIP) else CUDA, left) if above else left


@pytest.mark.parametrize(
    ("masks", "left", "by"),
    [
        ({CUDA: "4,5"}, "4 5", CUDA),
        ({ROCR: "4,5"}, "4 5", ROCR),
        ({HIP: "4,5"}, "4 5", HIP),
        ({ORDINAL: "4,5"}, "4 5", ORDINAL),
        ({ZE: "4,5"}, "4 5", ZE),
        ({ZE: "0.0,0.1"}, "0.0 0.1", ZE),
        ({ZE: "0.1,0,1.1"}, "0 1.1", ZE),
        ({SELECTOR: "level_zero:4,5"}, "4 5", SELECTOR),
        ({SELECTOR: "level_zero:0,1", ZE: "4,5"}, "4 5", ZE),
        ({SELECTOR: "level_zero:gpu", ZE: "4,5"}, "4 5", ZE),
        ({CUDA: "GPU-8932f937,GPU-d2b1e0f1"}, "GPU-8932f937 GPU-d2b1e0f1", CUDA),
        ({CUDA: "MIG-GPU-8932f937/1/0,MIG-41b3"}, "MIG-GPU-8932f937/1/0 MIG-41b3", CUDA),
        ({ROCR: "GPU-DEADBEEF,GPU-BEEF", HIP: "1"}, "GPU-BEEF", ROCR),
        ({ROCR: "4,5,6,7", HIP: "2,3"}, "6 7", ROCR),
        ({ROCR: "4,5", CUDA: "0,1"}, "4 5", ROCR),
        ({ROCR: "4,5", HIP: "1", CUDA: "0"}, "5", ROCR),
        ({ROCR: "4,5", CUDA: ""}, "4 5", ROCR),
        ({ROCR: "-1", CUDA: "4,5"}, "4 5", CUDA),
        ({CUDA: "4,5", ROCR: "4,5"}, "4 5", CUDA),
        ({CUDA: "4,5", HIP: "4,5"}, "4 5", CUDA),
        ({CUDA: "4,5", ROCR: "4,5", ZE: "4,5", ORDINAL: "4,5"}, "4 5", f"{CUDA} {ZE}"),
        ({CUDA: "", ROCR: "", ZE: "4"}, "4", ZE),
        ({"SLURM_JOB_GPUS": "6,7", "SLURM_STEP_GPUS": "7"}, "7", f"{CUDA} {ZE}"),
        ({CUDA: "-1"}, "", CUDA),
        ({CUDA: "NoDevFiles"}, "", CUDA),
        ({CUDA: ""}, "", CUDA),
        ({CUDA: " "}, "", CUDA),
        ({HIP: "-1"}, "", HIP),
        ({HIP: ""}, "", HIP),
        ({ROCR: "4,5", HIP: "-1"}, "", ROCR),
        ({ZE: "-1"}, "", ZE),
        (HIDDEN, "", CUDA),
        ({CUDA: "0,0"}, "0", CUDA),
        ({CUDA: "0,00, 1"}, "0 1", CUDA),
        ({CUDA: "2,1,-1,0"}, "2 1", CUDA),
        ({CUDA: "0,,1"}, "0", CUDA),
        ({CUDA: "0,none,1"}, "0", CUDA),
    ],
)
def test_what_masks_leave_and_by_which_variable_a_task_is_told(masks: dict[str, str], left: str, by: str) -> None:
    found = visible_devices(masks, UNKNOWN)
    assert found.names == tuple(left.split())
    assert found.variables == tuple(by.split())


@pytest.mark.parametrize(
    ("makers", "left", "by"),
    [({NVIDIA: 2}, ("0", "1"), (CUDA,)), ({AMD: 3}, ("0", "1", "2"), (ROCR,)), ({INTEL: None}, None, (ZE,))],
)
def test_without_masks_the_driver_tells(
    makers: VendorCounts, left: tuple[str, ...] | None, by: tuple[str, ...]
) -> None:
    found = visible_devices({}, makers)
    assert (found.names, found.variables) == (left, by)


@pytest.mark.parametrize(("maker", "by"), [(NVIDIA, CUDA), (AMD, ROCR), (INTEL, ZE)])
def test_what_slurm_sets_for_all_makers_is_told_to_the_one_whose_devices_they_are(maker: str, by: str) -> None:
    found = visible_devices(dict.fromkeys(MASKS, "2,3"), {maker: None})
    assert (found.names, found.variables) == (("2", "3"), (by,))


lists = st.lists(st.integers(-1, 5).map(str), max_size=4).map(",".join)


def test_a_selector_of_sycl_is_kept_where_it_names_no_device() -> None:
    assert without_masks({SELECTOR: "level_zero:gpu", ZE: "4"}) == {SELECTOR: "level_zero:gpu"}
    assert without_masks({SELECTOR: "level_zero:1", "PATH": "/bin"}) == {"PATH": "/bin"}
    assert visible_devices({SELECTOR: "level_zero:4,5"}, UNKNOWN).variables_for([1]) == {SELECTOR: "level_zero:5"}


@given(
    masks=st.dictionaries(st.sampled_from([CUDA, ROCR, HIP, ZE]), lists), maker=st.sampled_from([NVIDIA, AMD, INTEL])
)
def test_each_task_sees_one_device_of_the_allocation_and_no_other_task_does(masks: dict[str, str], maker: str) -> None:
    found = visible_devices(masks, {maker: None})
    allowed = seen_by(maker, masks)
    own = {NVIDIA: (CUDA,), AMD: (ROCR, HIP, CUDA), INTEL: (ZE,)}[maker]
    if found.names is None or not any(name in masks for name in own):
        return
    each = [seen_by(maker, without_masks(masks) | found.variables_for([number])) for number in range(len(found.names))]
    assert all(len(devices) == 1 for devices in each)
    above = masks.get(HIP) or masks.get(CUDA)
    if maker != AMD or ROCR not in masks or not above or parse_mask(masks[ROCR]) != parse_mask(above):
        # The same list in both of AMD's layers is Slurm's way to say it, though not AMD's to read it.
        assert {device for devices in each for device in devices} <= set(allowed)
    assert len({device for devices in each for device in devices}) == len(each)
    assert seen_by(maker, without_masks(masks) | found.variables_for([])) == []


@pytest.mark.parametrize("maker", [NVIDIA, AMD, INTEL])
def test_where_nothing_tells_a_task_sees_its_device_whoever_made_it(maker: str) -> None:
    for number in range(4):
        assert seen_by(maker, visible_devices({}, UNKNOWN).variables_for([number])) == [number]
    assert seen_by(maker, mask_variables([])) == []


def test_gpus_are_found_by_their_drivers(tmp_path: Path) -> None:
    def file(name: str, text: str = "") -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    assert present_vendors(tmp_path) == {}
    file("sys/class/drm/renderD128/device/vendor", "0x8086\n")
    assert present_vendors(tmp_path) == {INTEL: None}
    for node, gpu in enumerate((0, 0, 4711, 4712)):  # processors come first
        file(f"sys/class/kfd/kfd/topology/nodes/{node}/gpu_id", f"{gpu}\n")
    assert present_vendors(tmp_path) == {INTEL: None}  # no driver
    file("dev/kfd")
    assert present_vendors(tmp_path) == {AMD: 2}
    for name in ("nvidia0", "nvidia3", "nvidiactl", "nvidia-uvm"):
        file(f"dev/{name}")
    assert present_vendors(tmp_path) == {NVIDIA: 2, AMD: 2}


@pytest.mark.parametrize("value", ["-1", "NoDevFiles", "", "0,0"])
@pytest.mark.parametrize("name", [CUDA, ROCR, HIP, ZE])
def test_more_gpus_than_a_mask_leaves_are_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    for mask in MASKS:
        monkeypatch.delenv(mask, raising=False)
    monkeypatch.setenv(name, value)
    with pytest.raises(LaunchError, match=rf"GPUs are asked for, {name}='{value}' allows [01]: lower machine.gpus"):
        require_machine(Capacity(cores=1, gpus=2))


def test_a_rehearsal_of_more_gpus_than_there_are_takes_none_of_other_jobs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def variables(*devices: int) -> Mapping[str, str]:
        machine = ThisMachine(Capacity(cores=1, gpus=4), tmp_path, oversubscribe=True)
        return machine.gpus((NodeShare(0, 1, 1, tuple((device, 1000) for device in devices)),))

    monkeypatch.setenv(CUDA, "4,5")
    assert variables(2, 3) == {CUDA: "4,5"}
    monkeypatch.setenv(CUDA, "-1")
    assert variables(2) == HIDDEN
