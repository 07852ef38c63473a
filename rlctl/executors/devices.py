"""GPUs: which of them this process may use, and by which variables a program is told its own.

Each maker has masks of its own. NVIDIA's library reads ``CUDA_VISIBLE_DEVICES``. AMD's lowest layer reads
``ROCR_VISIBLE_DEVICES``; above it HIP counts anew what that has left, and reads ``HIP_VISIBLE_DEVICES`` or, where this
is not set, ``CUDA_VISIBLE_DEVICES``; OpenCL reads ``GPU_DEVICE_ORDINAL`` there. Intel's Level Zero reads
``ZE_AFFINITY_MASK``, and SYCL counts anew what that has left for ``ONEAPI_DEVICE_SELECTOR``. So the same list in two
masks of one maker means two things, and a program must be told its devices by one of them alone.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

CUDA, ROCR, HIP = "CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"
ORDINAL, ZE, SELECTOR = "GPU_DEVICE_ORDINAL", "ZE_AFFINITY_MASK", "ONEAPI_DEVICE_SELECTOR"
MASKS = (CUDA, ROCR, HIP, ORDINAL, ZE)
"""Variables that hide devices of a machine; ``ONEAPI_DEVICE_SELECTOR`` may do so too, or choose a library only."""

ANY_MAKER = (CUDA, ZE)
"""Where the maker is unknown: NVIDIA's library obeys the first, AMD's too if there is none of its own, Intel's the
second."""

HIDDEN = {CUDA: "", ROCR: "", ZE: "-1"}
"""What hides every device. An empty ``ZE_AFFINITY_MASK`` would show them all, an impossible device shows none."""

NVIDIA, AMD, INTEL = "NVIDIA", "AMD", "Intel"
Makers = Mapping[str, int | None]
"""How many devices of each maker are there; None: some."""

_OWN: Mapping[str, tuple[str, ...]] = {NVIDIA: (CUDA,), AMD: (ROCR,), INTEL: (ZE,)}
_BATCH = ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS")  # where a site has Slurm set no mask
_NAME = re.compile(r"\d+(\.\d+)*|(GPU|MIG)-[\w/.:-]+", re.ASCII)
_SELECTED = re.compile(r"[\d.,* ]*\d[\d.,* ]*")


@dataclass(frozen=True, slots=True)
class Devices:
    """GPUs that may be used, by this process or by a task.

    Attributes:
        names: as the variables have them; None: neither a mask nor a driver says, so they are numbered from 0.
        variables: which tell a program its own: one of each maker whose devices they may be.
        source: what says which these are, for messages.
    """

    names: tuple[str, ...] | None = None
    variables: tuple[str, ...] = ANY_MAKER
    source: str = ""

    def chosen(self, numbers: Iterable[int]) -> tuple[str, ...]:
        """Names of those with these numbers. Where there are fewer, some stand for several; none stands for others'."""
        if self.names is None:
            return tuple(str(number) for number in numbers)
        return tuple(dict.fromkeys(self.names[number % len(self.names)] for number in numbers if self.names))

    def shown(self, numbers: Iterable[int]) -> dict[str, str]:
        """The variables that show a program the devices of these numbers, and no others."""
        return told(self.chosen(numbers), self.variables)


def told(names: Sequence[str], variables: Sequence[str] = ANY_MAKER) -> dict[str, str]:
    """Variables that show a program these devices and no others, after ``without_masks``.

    >>> told(["4"], [ROCR])
    {'ROCR_VISIBLE_DEVICES': '4'}
    >>> told([])
    {'CUDA_VISIBLE_DEVICES': '', 'ROCR_VISIBLE_DEVICES': '', 'ZE_AFFINITY_MASK': '-1'}
    """
    if not names:
        return dict(HIDDEN)
    listed = ",".join(names)
    return {name: f"level_zero:{listed}" if name == SELECTOR else listed for name in variables}


def without_masks(environment: Mapping[str, str]) -> dict[str, str]:
    """A copy in which no device is hidden: what a program inherits would narrow what it is told."""
    kept = {name: value for name, value in environment.items() if name not in MASKS}
    if _selected(environment):
        del kept[SELECTOR]
    return kept


def visible(environment: Mapping[str, str], makers: Makers | None = None) -> Devices:
    """The GPUs that a process with this environment may use.

    Args:
        environment: its variables.
        makers: whose devices are there; None: look on this machine.

    >>> visible({"ROCR_VISIBLE_DEVICES": "4,5"}, {}).names
    ('4', '5')
    >>> visible({"ROCR_VISIBLE_DEVICES": "4,5", "HIP_VISIBLE_DEVICES": "1"}, {}).names
    ('5',)
    >>> visible({"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, {}).names
    ()
    """
    makers = present() if makers is None else makers
    found = _masked(environment, makers) or _unknown(environment)
    usable = [devices for devices in found if devices.names]
    if usable:  # Slurm may have told each maker the same
        same = [devices.variables for devices in usable if devices.names == usable[0].names]
        return replace(usable[0], variables=tuple(dict.fromkeys(name for variables in same for name in variables)))
    if found:
        return found[0]
    maker = next((maker for maker in _OWN if maker in makers), "")
    variables, count = _OWN.get(maker, ANY_MAKER), makers.get(maker)
    for name in _BATCH:
        if name in environment:
            return Devices(names(environment[name]), variables, f"{name}={environment[name]!r}")
    if count is None:
        return Devices(None, variables)
    return Devices(tuple(map(str, range(count))), variables, f"the driver of {maker}")


def names(listed: str) -> tuple[str, ...]:
    """The devices of a mask: each once, up to the first entry that is none, as CUDA reads it.

    >>> names("0, 0,GPU-8a2f,1,-1,2")
    ('0', 'GPU-8a2f', '1')
    >>> names("0.1,1.0,1")
    ('0.1', '1')
    """
    found: dict[str, None] = {}
    for entry in map(str.strip, listed.split(",")):
        if _NAME.fullmatch(entry) is None:
            break
        found[".".join(str(int(part)) for part in entry.split(".")) if entry[0].isdigit() else entry] = None
    return tuple(name for name in found if not any(whole in found for whole in _wholes(name)))


def _wholes(name: str) -> list[str]:
    """What a part of a device is a part of.

    >>> _wholes("0.1.2")
    ['0', '0.1']
    """
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def _masked(environment: Mapping[str, str], makers: Collection[str]) -> list[Devices]:
    """What the masks that these makers obey leave of their devices."""
    read = {NVIDIA: _nvidia, AMD: _amd, INTEL: _intel}
    found = (read[maker](environment) for maker in read if maker in makers)
    return [devices for devices in found if devices is not None]


def _unknown(environment: Mapping[str, str]) -> list[Devices]:
    """What masks leave where no driver tells whose they are.

    The same list in NVIDIA's and AMD's, as Slurm sets it, may be either's, and both obey that of CUDA alone. Two lists
    are AMD's, whose layers obey all of them.
    """
    others = [name for name in (ROCR, HIP) if names(environment.get(name, ""))]
    if not environment.get(CUDA) or not others:
        return _masked(environment, _OWN)
    if len({names(environment[name]) for name in (CUDA, *others)}) > 1:
        return _masked(environment, (AMD, INTEL))
    return _masked({name: value for name, value in environment.items() if name not in (ROCR, HIP)}, _OWN)


def _nvidia(environment: Mapping[str, str]) -> Devices | None:
    return _by(environment, CUDA)


def _amd(environment: Mapping[str, str]) -> Devices | None:
    # HIP takes an empty mask for none. OpenCL's is told too, by those who do not know what will run.
    above = next((name for name in (HIP, CUDA, ORDINAL) if environment.get(name)), None)
    below = _by(environment, ROCR)
    if below is None:
        return _by(environment, above or next((name for name in (HIP, CUDA, ORDINAL) if name in environment), HIP))
    if above is None or below.names == names(environment[above]):  # Slurm sets all masks, to the same list
        return below
    return _within(below, _by(environment, above))


def _intel(environment: Mapping[str, str]) -> Devices | None:
    below, above = _by(environment, ZE), None
    if listed := _selected(environment):
        above = Devices(names(listed), (SELECTOR,), f"{SELECTOR}={environment[SELECTOR]!r}")
    return above if below is None else _within(below, above)


def _selected(environment: Mapping[str, str]) -> str:
    """The devices that SYCL is told by their numbers; empty: all of them, or those of another library.

    >>> _selected({SELECTOR: "level_zero:0,1.*;opencl:cpu"}), _selected({SELECTOR: "level_zero:gpu"})
    ('0,1', '')
    """
    terms = [term.strip().lower().partition(":") for term in environment.get(SELECTOR, "").split(";")]
    listed = ",".join(devices for backend, _, devices in terms if backend in ("level_zero", "*"))
    return listed.replace(".*", "") if _SELECTED.fullmatch(listed) else ""


def _by(environment: Mapping[str, str], name: str) -> Devices | None:
    if name not in environment:
        return None
    return Devices(names(environment[name]), (name,), f"{name}={environment[name]!r}")


def _within(below: Devices, above: Devices | None) -> Devices:
    """A mask that counts what another has left; the lower one can say both."""
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
    return Devices(names(",".join(left)), below.variables, f"{above.source} within {below.source}")


def present(root: Path = Path("/")) -> dict[str, int | None]:
    """Whose GPUs the drivers of this machine show, and how many."""
    nvidia = len(list(root.glob("dev/nvidia[0-9]*")))
    cards = [_read(path) for path in root.glob("sys/class/kfd/kfd/topology/nodes/*/gpu_id")]
    amd = sum(card not in ("", "0") for card in cards) if (root / "dev/kfd").exists() else 0  # 0: a processor
    found: dict[str, int | None] = {maker: count for maker, count in ((NVIDIA, nvidia), (AMD, amd)) if count}
    vendors = root.glob("sys/class/drm/renderD*/device/vendor")
    if not found and any(_read(path) == "0x8086" for path in vendors):  # beside others it is built into a processor
        found[INTEL] = None  # each may count as several
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:  # of a device that this job may not use
        return ""
