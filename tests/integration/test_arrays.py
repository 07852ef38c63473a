"""Large arrays on their way: they hold no file, give back what they used, and find room elsewhere where it is full."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlctl.executors import LocalExecutor
from rlctl.executors.functions import serialization
from rlctl.executors.functions.large_results import by_reference, fetch
from rlctl.executors.naming import spare

PATIENCE_S = 120.0


@pytest.fixture
def few_handles() -> Iterator[int]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = len(os.listdir("/proc/self/fd")) + 40
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, before[1]))
    yield few
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def numbers(i: int) -> np.ndarray:
    return np.full(10_000, float(i))


def several(i: int) -> list[np.ndarray]:
    return [np.full(100, float(i)) for _ in range(200)]


def same(array: np.ndarray) -> np.ndarray:
    return array


def test_arrays_that_are_held_hold_no_file(few_handles: int) -> None:
    with LocalExecutor(max_workers=1) as executor:
        held = list(executor.map(numbers, range(few_handles + 50)))
        groups = list(executor.map(several, range(few_handles + 50)))
        assert [executor.submit(np.sum, array).result() for array in held[:3]] == [0.0, 10_000.0, 20_000.0]
    assert [array[-1] for array in held] == list(range(few_handles + 50))
    assert [[array[-1] for array in group] for group in groups] == [[i] * 200 for i in range(few_handles + 50)]
    assert all(array.flags.writeable and array.flags.aligned for array in held)


@pytest.mark.parametrize("size", [9_000, 600_000])
def test_an_array_is_as_writable_as_it_was_and_empty_ones_travel(size: int) -> None:
    fixed, free = np.ones(size), np.ones(size)
    fixed.flags.writeable = False
    with LocalExecutor(max_workers=1) as executor:
        back, empty, also = executor.submit(same, [fixed, np.zeros((3, 0)), free]).result()  # type: ignore[arg-type]
    assert (back.flags.writeable, also.flags.writeable) == (False, True)
    also[:] = 2.0
    assert empty.shape == (3, 0)
    assert (back == 1.0).all()


def test_a_message_that_was_read_has_left_nothing(tmp_path: Path) -> None:
    arrays = [np.arange(20_000), np.arange(3_000_000), np.zeros(0)]
    message = serialization.dump(arrays, tmp_path)
    (file,) = tmp_path.iterdir()
    assert file.stat().st_size == sum(array.nbytes for array in arrays)
    loaded = serialization.load(message)
    assert list(tmp_path.iterdir()) == []
    assert all((a == b).all() for a, b in zip(arrays, loaded, strict=True))


def test_what_has_no_room_leaves_no_part_of_it(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    script = f"""
import numpy as np, resource, signal
from pathlib import Path
from rlctl.executors.functions import serialization
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, {before[1]}))
for _ in range(2):
    try:
        serialization.dump(np.ones(100_000), Path({str(tmp_path)!r}))
    except OSError as error:
        print(error.strerror)
serialization.dump(np.ones(10_000), Path({str(tmp_path)!r}))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.stdout == "File too large\n" * 2, done.stderr
    assert [file.stat().st_size for file in tmp_path.iterdir()] == [80_000]


SMALL = """
import os, sys
from pathlib import Path
import numpy as np
from rlctl.executors import LocalExecutor
disk = Path(sys.argv[1])
with LocalExecutor(max_workers=1) as executor:
    for mib in (30, 1, 1):
        try:
            print(mib, executor.submit(np.ones, mib << 20, np.uint8).result().nbytes >> 20)
            print(mib, executor.submit(np.sum, np.ones(mib << 20, np.uint8)).result() >> 20)
        except OSError as error:
            print(mib, error.strerror)
    used = sum(file.stat().st_size for file in Path("/dev/shm").rglob("*") if file.is_file())
    print("left", used, [str(file) for file in disk.rglob("array-*")])
print("after", os.listdir("/dev/shm"), [file.name for file in disk.iterdir() if file.name.startswith("rlctl-")])
"""


def with_small(mounts: str, disk: Path) -> list[str]:
    """What the script says where these file systems have been mounted, for it only."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("only root may mount a small file system for one process")
    command = ["unshare", "-m", "sh", "-ec", f'{mounts}; exec "$0" -c "$1" "$2"', sys.executable, SMALL, str(disk)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE_S, env={**os.environ, "TMPDIR": str(disk)}
    )
    if "mount" in done.stderr or "unshare" in done.stderr:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_what_has_no_room_in_shared_memory_goes_on_disk(tmp_path: Path) -> None:
    said = with_small("mount -t tmpfs -o size=16m tmpfs /dev/shm", tmp_path)
    assert said == ["30 30", "30 30", "1 1", "1 1", "1 1", "1 1", "left 0 []", "after [] []"]


def test_where_the_disk_is_full_too_one_call_fails_and_the_next_one_has_room(tmp_path: Path) -> None:
    small = f"mount -t tmpfs -o size=16m tmpfs /dev/shm; mount -t tmpfs -o size=8m tmpfs {tmp_path}"
    said = with_small(small, tmp_path)
    assert said == ["30 No space left on device", "1 1", "1 1", "1 1", "1 1", "left 0 []", "after [] []"]


def test_results_that_are_fetched_hold_no_file(tmp_path: Path, few_handles: int) -> None:
    kept = by_reference({str(i): numbers(i) for i in range(few_handles + 50)}, tmp_path, "a.1")
    arrays = [fetch(value, tmp_path) for value in kept.values()]
    assert [array[-1] for array in arrays] == list(range(few_handles + 50))


def test_a_result_that_has_no_room_leaves_no_part_of_it(disk: Path) -> None:
    for large in (np.ones(2**20), "x" * 2**23):
        with pytest.raises(OSError):  # noqa: PT011  NumPy has its own words
            by_reference({"field": large}, disk, "a.1")
    assert [file for file in disk.rglob("*") if file.is_file()] == []


def test_the_folder_on_disk_is_beside_shared_memory_only(tmp_path: Path, monkeypatch: Any) -> None:
    assert spare(tmp_path / "calls") == tmp_path / "calls", "which other hosts see"
    assert spare(Path("/dev/shm/rlctl-1")).name == "rlctl-1"
    assert spare(Path("/dev/shm/rlctl-1")).parent != Path("/dev/shm")
