"""This machine and a real Slurm as two pools of one campaign."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import slurm_bed
from slurm_bed import Bed

from rlctl.core.machine import Capacity
from rlctl.core.task import Event, Resources, TaskId, TaskSpec, TaskState
from rlctl.executors.engine import Executor
from rlctl.executors.event_log import Journal
from rlctl.plugins.pools import Pools

pytestmark = pytest.mark.slurm

PATIENCE_S = 60.0
TELL = "echo ${SLURMD_NODENAME:-here}"
ONE = Resources()
SUBMIT = {"poll_s": 0.5, "submit": {"time_limit": "0:05:00"}}


@contextlib.contextmanager
def opened(folder: Path, cores: int, *pools: dict[str, Any]) -> Iterator[tuple[Executor, Journal]]:
    """As a configuration has it, with a journal."""
    factory = Pools({"pools": list(pools)})
    capacity = Capacity(nodes=sum(pool.get("nodes", 1) for pool in pools), cores=cores)
    factory.check(capacity)
    with Journal.create(folder / "journal.db", {}) as journal:
        executor = Executor.open(factory, capacity, folder / "work", journal, 0.0)
        try:
            yield executor, journal
        finally:
            executor.close()


def shell(uid: str, script: str = TELL, need: Resources = ONE, pool: str | None = None) -> TaskSpec:
    return TaskSpec(TaskId(uid), executable="sh", arguments=("-c", script), resources=need, pool=pool)


def run(executor: Executor, done: Callable[[], bool]) -> list[Event]:
    """Wait for events until it is so."""
    events: list[Event] = []
    end_s = time.monotonic() + PATIENCE_S
    while not done():
        events += executor.wait(0.1)
        assert time.monotonic() < end_s, events
    return events + executor.wait(0.1)  # futures may be done before the last events are told


def said(folder: Path, uids: Sequence[str]) -> dict[str, str]:
    return {uid: (folder / "work" / "logs" / f"{uid}.1.out").read_text().split()[0] for uid in uids}


@pytest.fixture
def bed() -> Bed:
    return slurm_bed.bed()


def test_tasks_go_to_this_machine_and_to_slurm_by_name_and_by_rule(
    bed: Bed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in slurm_bed.inside(slurm_bed.whole()).items():
        monkeypatch.setenv(name, value)
    here = {"name": "here", "options": {"oversubscribe": True}}
    cluster = {"name": "cluster", "nodes": 2, "executor": "slurm", "options": {"poll_s": 0.5}}
    with opened(tmp_path, 2, here, cluster) as (executor, journal):
        specs = [
            shell("named", pool="cluster"),
            shell("first", f"{TELL}; sleep 1", Resources(cores_per_rank=2)),
            shell("second", need=Resources(cores_per_rank=2)),
            shell("wide", need=Resources(ranks=2, nodes=2)),
            shell("back", pool="here"),
        ]
        futures = executor.submit_tasks(specs)
        events = run(executor, lambda: all(future.done() for future in futures))
        ended = [event for event in events if event.state is TaskState.DONE]
        assert {event.uid for event in ended} == {spec.uid for spec in specs}
        assert [event.time_s for event in events] == sorted(event.time_s for event in events)
        records = {record.data["uid"]: record.data for record in journal.records() if record.kind == "launching"}
    hosts = said(tmp_path, ["named", "first", "second", "back"])
    assert (hosts["first"], hosts["back"]) == ("here", "here")
    assert "here" not in (hosts["named"], hosts["second"])
    pools = {uid: data["pool"] for uid, data in records.items()}
    assert pools == {"named": "cluster", "first": "here", "second": "cluster", "wide": "cluster", "back": "here"}
    assert records["first"]["cores"] == [0, 1]
    assert records["wide"]["nodes"] == [1, 2]
    assert all(core >= 2 for core in records["wide"]["cores"])


def test_two_pools_ask_slurm_for_jobs_of_their_own(bed: Bed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slurm_bed.end_whole()
    monkeypatch.setenv("SLURM_CONF", bed.environment["SLURM_CONF"])
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    one, two = ({"name": name, "executor": "slurm", "options": SUBMIT} for name in ("one", "two"))
    with opened(tmp_path, 2, one, two) as (executor, _):
        futures = executor.submit_tasks([shell("a", pool="one"), shell("b", pool="two")])
        run(executor, lambda: all(future.done() for future in futures))
        assert len(set(bed.ask("squeue", "--noheader", "--format=%j").split())) == 2
    end_s = time.monotonic() + 10.0
    while (left := bed.ask("squeue", "--noheader")) and time.monotonic() < end_s:
        time.sleep(0.1)
    slurm_bed.end_whole()
    assert not left
    assert not [path.name for path in (tmp_path / "work").glob(".slurm-beat*")]
