"""Cores that this process may keep busy: quotas of control groups, and what a batch system gave."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from rlctl.cli import doctor
from rlctl.core.errors import LaunchError
from rlctl.executors import Capacity
from rlctl.executors.local.site import ThisMachine, require_machine
from rlctl.executors.node_share import NodeShare
from rlctl.system import cores


def tree(folder: Path, groups: str, mounts: Mapping[str, str], files: Mapping[str, str]) -> Path:
    """A made-up ``/proc/self`` beside a made-up hierarchy."""
    (folder / "cgroup").write_text(groups)
    lines = [f"30 23 0:26 {root} {folder / 'sys'}{at} rw,nosuid shared:9 - {kind}\n" for (at, kind), root in
             ((key.split(" ", 1), value) for key, value in mounts.items())]  # fmt: skip
    (folder / "mountinfo").write_text("".join(lines))
    for name, text in files.items():
        path = folder / "sys" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return folder


V2 = {" cgroup2 cgroup rw": "/"}
V1 = {"/cpu cgroup cgroup rw,cpu,cpuacct": "/", "/memory cgroup cgroup rw,memory": "/"}


@pytest.mark.parametrize(
    ("groups", "mounts", "files", "expected"),
    [
        ("0::/\n", V2, {}, None),
        ("0::/\n", V2, {"cpu.max": "50000 100000"}, 0.5),  # a container's own view
        ("0::/a/b\n", V2, {"a/b/cpu.max": "max 100000"}, None),
        ("0::/a/b\n", V2, {"a/b/cpu.max": "400000 100000", "a/cpu.max": "250000 100000"}, 2.5),
        ("0::/a/b\n", V2, {"a/b/cpu.max": "100000 100000", "a/cpu.max": "250000 100000"}, 1.0),
        ("0::/../x\n", V2, {"x/cpu.max": "20000 10000", "cpu.max": "max 100000"}, 2.0),
        ("0::/a\n", V2, {"a/cpu.max": "garbage"}, None),
        # Without a namespace of its own a container has the host's names, but sees its own group only.
        ("0::/docker/1f\n", {" cgroup2 cgroup rw": "/docker/1f"}, {"cpu.max": "150000 100000"}, 1.5),
        ("0::/docker/1f/in\n", {" cgroup2 cgroup rw": "/docker/1f"}, {"in/cpu.max": "150000 100000"}, 1.5),
        ("0::/docker/1f\n", {" cgroup2 cgroup rw": "/elsewhere"}, {"cpu.max": "150000 100000"}, 1.5),
        (
            "4:cpu,cpuacct:/a\n3:memory:/b\n0::/\n",
            V1,
            {"cpu/a/cpu.cfs_quota_us": "300000", "cpu/a/cpu.cfs_period_us": "100000"},
            3.0,
        ),
        (
            "4:cpu:/a\n",
            V1,
            {
                "cpu/a/cpu.cfs_quota_us": "-1",
                "cpu/a/cpu.cfs_period_us": "100000",
                "cpu/cpu.cfs_quota_us": "50000",
                "cpu/cpu.cfs_period_us": "100000",
            },
            0.5,
        ),
        ("4:cpuset:/a\n", V1, {"cpu/a/cpu.cfs_quota_us": "50000", "cpu/a/cpu.cfs_period_us": "100000"}, None),
    ],
)
def test_quota(
    tmp_path: Path, groups: str, mounts: Mapping[str, str], files: Mapping[str, str], expected: float | None
) -> None:
    assert cores.quota(tree(tmp_path, groups, mounts, files)) == expected


def test_without_control_groups_there_is_no_quota(tmp_path: Path) -> None:
    assert cores.quota(tmp_path) is None


@pytest.fixture
def four(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A process that may run on four cores."""
    monkeypatch.setattr(cores, "affinity", lambda: [0, 2, 4, 6])
    monkeypatch.setattr("rlctl.executors.local.site.affinity", lambda: [0, 2, 4, 6])
    for name in ("SLURM_JOB_ID", "SLURM_CPUS_ON_NODE", "PYTHON_CPU_COUNT"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize(("quota", "usable"), [(None, 4), (0.5, 1), (1.0, 1), (1.5, 1), (2.5, 2), (4.0, 4), (64.0, 4)])
def test_a_part_of_a_core_is_none_but_there_is_always_one(
    four: pytest.MonkeyPatch, quota: float | None, usable: int
) -> None:
    four.setattr(cores, "quota", lambda: quota)
    assert cores.usable_cores()[0] == usable


def test_what_limits_is_named_and_obeyed_everywhere(four: pytest.MonkeyPatch) -> None:
    four.setattr(cores, "quota", lambda: 2.5)
    assert "2 of" in doctor.cores().detail
    assert "(CPU quota of 2.5 cores)" in doctor.cores().detail
    with pytest.raises(LaunchError, match=r"3 cores are asked for, this process may use 2 \(CPU quota of 2\.5 cores\)"):
        require_machine(Capacity(cores=3))


def test_a_quota_says_how_much_and_not_which_cores(four: pytest.MonkeyPatch, tmp_path: Path) -> None:
    second = (NodeShare(0, 1, 0b10),)
    four.setattr(cores, "quota", lambda: None)
    assert ThisMachine(Capacity(cores=2), tmp_path).cores(second) == [2]
    four.setattr(cores, "quota", lambda: 2.0)
    assert ThisMachine(Capacity(cores=2), tmp_path).cores(second) == [0, 2, 4, 6]


def test_a_job_of_slurm_has_what_it_was_given(four: pytest.MonkeyPatch) -> None:
    four.setattr(cores, "quota", lambda: None)
    assert cores.usable_cores({"SLURM_CPUS_ON_NODE": "2", "SLURM_JOB_ID": "7"}) == (2, "SLURM_CPUS_ON_NODE=2")
    assert cores.usable_cores({"SLURM_CPUS_ON_NODE": "2"}) == (4, "")
    assert cores.usable_cores({"SLURM_CPUS_ON_NODE": "16", "SLURM_JOB_ID": "7"}) == (4, "")
    assert cores.usable_cores({"PYTHON_CPU_COUNT": "1"}) == (1, "PYTHON_CPU_COUNT=1")
    assert cores.usable_cores({"PYTHON_CPU_COUNT": "default"}) == (4, "")
