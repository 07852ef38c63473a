"""GPU masks: which devices this process may use, and which variables restrict a program to its own.

Each vendor has its own masks. NVIDIA's library reads ``CUDA_VISIBLE_DEVICES``. AMD's lowest layer reads
``ROCR_VISIBLE_DEVICES``; above it HIP numbers the remaining devices anew and reads ``HIP_VISIBLE_DEVICES`` or, if that
is unset, ``CUDA_VISIBLE_DEVICES``; OpenCL reads ``GPU_DEVICE_ORDINAL`` there. Intel's Level Zero reads
``ZE_AFFINITY_MASK``, and SYCL numbers the remaining devices anew for ``ONEAPI_DEVICE_SELECTOR``. The same list in two
masks of one vendor therefore means two things: a program gets its devices through exactly one of them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

CUDA, ROCR, HIP = "CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"
ORDINAL, ZE, SELECTOR = "GPU_DEVICE_ORDINAL", "ZE_AFFINITY_MASK", "ONEAPI_DEVICE_SELECTOR"
MASKS = (CUDA, ROCR, HIP, ORDINAL, ZE)
"""Variables that hide devices; ``ONEAPI_DEVICE_SELECTOR`` may do so too, or only choose a library."""

ANY_VENDOR = (CUDA, ZE)
"""Masks for an unknown vendor: NVIDIA reads the first, AMD too where it has none of its own, Intel the second."""

HIDDEN = {CUDA: "", ROCR: "", ZE: "-1"}
"""Hides every device. An empty ``ZE_AFFINITY_MASK`` would show all of them, an impossible device shows none."""

NVIDIA, AMD, INTEL = "NVIDIA", "AMD", "Intel"
VendorCounts = Mapping[str, int | None]
"""Number of devices per vendor present; None: at least one."""

_OWN: Mapping[str, tuple[str, ...]] = {NVIDIA: (CUDA,), AMD: (ROCR,), INTEL: (ZE,)}
_BATCH = ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS")  # for sites whose Slurm sets no mask
_NAME = re.compile(r"\d+(\.\d+)*|(GPU|MIG)-[\w/.:-]+", re.ASCII)
_SELECTED = re.compile(r"[\d.,* ]*\d[\d.,* ]*")


@dataclass(frozen=True, slots=True)
class Devices:
    """GPUs that a process or a task may use.

    Attributes:
        names: as the masks spell them; None: neither a mask nor a driver names them, so they are numbered from 0.
        variables: masks to pass on to programs, one for each vendor that the devices may belong to.
        source: origin of the names, for messages.
    """

    names: tuple[str, ...] | None = None
    variables: tuple[str, ...] = ANY_VENDOR
    source: str = ""

    def variables_for(self, numbers: Iterable[int]) -> dict[str, str]:
        """Variables that show a program the devices of these numbers only, modulo the number of devices."""
        if self.names is None:
            return mask_variables([str(number) for number in numbers], self.variables)
        chosen = dict.fromkeys(self.names[number % len(self.names)] for number in numbers if self.names)
        return mask_variables(list(chosen), self.variables)


def mask_variables(names: Sequence[str], variables: Sequence[str] = ANY_VENDOR) -> dict[str, str]:
    """Variables that show a program these devices only, in an environment ``without_masks``.

    >>> mask_variables(["4"], [ROCR])
    {'ROCR_VISIBLE_DEVICES': '4'}
    >>> mask_variables([])
    {'CUDA_VISIBLE_DEVICES': '', 'ROCR_VISIBLE_DEVICES': '', 'ZE_AFFINITY_MASK': '-1'}
    """
    if not names:
        return dict(HIDDEN)
    listed = ",".join(names)
    return {name: f"level_zero:{listed}" if name == SELECTOR else listed for name in variables}


def without_masks(environment: Mapping[str, str]) -> dict[str, str]:
    """A copy that hides no device, since an inherited mask would narrow a program's own."""
    kept = {name: value for name, value in environment.items() if name not in MASKS}
    if _selected(environment):
        del kept[SELECTOR]
    return kept


def visible_devices(environment: Mapping[str, str], vendors: VendorCounts | None = None) -> Devices:
    """The GPUs that a process with this environment may use.

    Args:
        environment: its variables.
        vendors: devices present; None: look on this machine.

    >>> visible_devices({"ROCR_VISIBLE_DEVICES": "4,5"}, {}).names
    ('4', '5')
    >>> visible_devices({"ROCR_VISIBLE_DEVICES": "4,5", "HIP_VISIBLE_DEVICES": "1"}, {}).names
    ('5',)
    >>> visible_devices({"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, {}).names
    ()
    """
    vendors = present_vendors() if vendors is None else vendors
    found = _masked(environment, vendors) or _of_unknown_vendor(environment)
    usable = [devices for devices in found if devices.names]
    if usable:  # Slurm may have set the same list for each vendor
        same = [devices.variables for devices in usable if devices.names == usable[0].names]
        return replace(usable[0], variables=tuple(dict.fromkeys(name for variables in same for name in variables)))
    if found:
        return found[0]
    vendor = next((vendor for vendor in _OWN if vendor in vendors), "")
    variables, count = _OWN.get(vendor, ANY_VENDOR), vendors.get(vendor)
    for name in _BATCH:
        if name in environment:
            return Devices(parse_mask(environment[name]), variables, f"{name}={environment[name]!r}")
    if count is None:
        return Devices(None, variables)
    return Devices(tuple(map(str, range(count))), variables, f"the driver of {vendor}")


def parse_mask(listed: str) -> tuple[str, ...]:
    """Devices of a mask, each once, up to the first invalid entry, as CUDA reads it; parts of a listed device drop out.

    >>> parse_mask("0, 0,GPU-8a2f,1,-1,2")
    ('0', 'GPU-8a2f', '1')
    >>> parse_mask("0.1,1.0,1")
    ('0.1', '1')
    """
    found: dict[str, None] = {}
    for entry in map(str.strip, listed.split(",")):
        if _NAME.fullmatch(entry) is None:
            break
        found[".".join(str(int(part)) for part in entry.split(".")) if entry[0].isdigit() else entry] = None
    parts = {name: name.split(".") for name in found}
    return tuple(n for n, p in parts.items() if not any(".".join(p[:i]) in found for i in range(1, len(p))))


def _masked(environment: Mapping[str, str], vendors: Collection[str]) -> list[Devices]:
    """What the masks of each of these vendors leave visible."""
    read = {NVIDIA: lambda variables: _mask(variables, CUDA), AMD: _amd, INTEL: _intel}
    found = (read[vendor](environment) for vendor in read if vendor in vendors)
    return [devices for devices in found if devices is not None]


def _of_unknown_vendor(environment: Mapping[str, str]) -> list[Devices]:
    """What masks leave visible where no driver names the vendor.

    The same list in NVIDIA's and AMD's masks, as Slurm sets it, may belong to either, and both read CUDA's. Two
    different lists belong to AMD, whose layers read all of them.
    """
    others = [name for name in (ROCR, HIP) if parse_mask(environment.get(name, ""))]
    if not environment.get(CUDA) or not others:
        return _masked(environment, _OWN)
    if len({parse_mask(environment[name]) for name in (CUDA, *others)}) > 1:
        return _masked(environment, (AMD, INTEL))
    return _masked({name: value for name, value in environment.items() if name not in (ROCR, HIP)}, _OWN)


def _amd(environment: Mapping[str, str]) -> Devices | None:
    # HIP takes an empty mask for an unset one. Sites that do not know what will run set OpenCL's as well.
    upper = next((name for name in (HIP, CUDA, ORDINAL) if environment.get(name)), None)
    below = _mask(environment, ROCR)
    if below is None:
        return _mask(environment, upper or next((name for name in (HIP, CUDA, ORDINAL) if name in environment), HIP))
    if upper is None or below.names == parse_mask(environment[upper]):  # Slurm sets all masks to the same list
        return below
    return _nested(below, _mask(environment, upper))


def _intel(environment: Mapping[str, str]) -> Devices | None:
    below, above = _mask(environment, ZE), None
    if listed := _selected(environment):
        above = Devices(parse_mask(listed), (SELECTOR,), f"{SELECTOR}={environment[SELECTOR]!r}")
    return above if below is None else _nested(below, above)


def _selected(environment: Mapping[str, str]) -> str:
    """Device numbers selected for SYCL; empty: all devices, or those of another library.

    >>> _selected({SELECTOR: "level_zero:0,1.*;opencl:cpu"}), _selected({SELECTOR: "level_zero:gpu"})
    ('0,1', '')
    """
    terms = [term.strip().lower().partition(":") for term in environment.get(SELECTOR, "").split(";")]
    listed = ",".join(devices for backend, _, devices in terms if backend in ("level_zero", "*"))
    return listed.replace(".*", "") if _SELECTED.fullmatch(listed) else ""


def _mask(environment: Mapping[str, str], name: str) -> Devices | None:
    if name not in environment:
        return None
    return Devices(parse_mask(environment[name]), (name,), f"{name}={environment[name]!r}")


def _nested(below: Devices, above: Devices | None) -> Devices:
    """A mask that numbers what a lower one has left, in terms of the lower one."""
    if above is None or below.names is None or above.names is None:
        return below
    left = []
    for name in above.names:
        number, dot, part = name.partition(".")
        if number.isdigit() and int(number) < len(below.names):
            left.append(below.names[int(number)] + dot + part)
        elif not number.isdigit() and name in below.names:
            left.append(name)
        else:
            break
    return Devices(parse_mask(",".join(left)), below.variables, f"{above.source} within {below.source}")


def present_vendors(root: Path = Path("/")) -> dict[str, int | None]:
    """Vendors whose drivers show devices on this machine, and how many."""
    nvidia = len(list(root.glob("dev/nvidia[0-9]*")))
    cards = [_read(path) for path in root.glob("sys/class/kfd/kfd/topology/nodes/*/gpu_id")]
    amd = sum(card not in ("", "0") for card in cards) if (root / "dev/kfd").exists() else 0  # 0: a processor
    found: dict[str, int | None] = {vendor: count for vendor, count in ((NVIDIA, nvidia), (AMD, amd)) if count}
    intel = root.glob("sys/class/drm/renderD*/device/vendor")
    if not found and any(_read(path) == "0x8086" for path in intel):  # beside others it is built into a processor
        found[INTEL] = None  # each may count as several
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:  # a device that this job may not use
        return ""
