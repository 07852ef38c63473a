"""Programs that say how far they are, and machines whose nodes come and go: what executors tell whoever decides."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pytest

from rlctl.core.errors import LaunchError
from rlctl.core.machine import Capacity, Machine, NodeGroup
from rlctl.core.simulation import Launch, Outage, Simulated
from rlctl.core.task import Event, Resources, TaskId, TaskSpec, TaskState, event_from_json, event_to_json
from rlctl.executors.local.backend import LocalExecutor
from rlctl.executors.local.factory import Local
from rlctl.executors.local.programs import ProgressFiles
from rlctl.executors.simulated.backend import SimulatedExecutor

PROGRAM = """
import json, time
for fraction in (0.25, 0.5, 0.75):
    with open("says.jsonl", "a") as file:
        file.write(json.dumps({"fraction": fraction}) + "\\n" + '{"fraction": 0.9')
    time.sleep(0.6)
    with open("says.jsonl", "a") as file:
        file.write("9}\\nno JSON\\n")
"""


def test_what_a_running_program_reports_is_told_once_and_torn_lines_are_not(tmp_path: Path) -> None:
    with LocalExecutor(Capacity(1, 1), workdir=tmp_path) as executor:
        spec = TaskSpec(
            TaskId("a"), executable="python", arguments=("-c", PROGRAM), progress_file="says.jsonl", walltime_s=30.0
        )
        executor.submit_task(spec)
        events: list[Event] = []
        while not events or not events[-1].state.final:
            events += executor.wait(10.0)
    told = [event.progress["fraction"] for event in events if event.progress is not None]
    assert told == [0.25, 0.5, 0.75]
    assert [event.state for event in events if event.progress is None] == [TaskState.RUNNING, TaskState.DONE]
    assert [event.seq for event in events] == sorted(event.seq for event in events)
    for event in events:
        again = event_from_json(event_to_json(event))
        assert (again.progress, again.state, again.time_s) == (event.progress, event.state, event.time_s)


def test_only_the_newest_whole_line_counts(tmp_path: Path) -> None:
    reports, file = ProgressFiles(tmp_path), tmp_path / "p"
    spec = TaskSpec(TaskId("a"), executable="true", progress_file="p")
    assert reports.newest(spec) is None
    file.write_text('{"x": 1')
    assert reports.newest(spec) is None
    file.write_text('{"x": 1}\n{"x": 2}\n{"x": 3')
    assert reports.newest(spec) == {"x": 2}
    assert reports.newest(spec) is None
    with file.open("a") as more:
        more.write("}\n")
    assert reports.newest(spec) == {"x": 3}
    with file.open("a") as more:
        more.write("[1]\n")
    assert reports.newest(spec) is None


class Tenth:
    """Tasks of ten seconds that report twice."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, float, bool]] = []

    def outcomes(self, launches: list[Launch]) -> list[Simulated]:
        return [Simulated(10.0, progress=((3.0, {"n": 1}), (6.0, {"n": 2}))) for _ in launches]

    def stopped(self, launch: Launch, ran_s: float, asked: bool) -> None:
        self.seen.append((launch.spec.uid, ran_s, asked))

    def withdrawn(self, uid: TaskId) -> None: ...


def task(uid: str, ranks: int = 1) -> TaskSpec:
    return TaskSpec(TaskId(uid), executable="true", resources=Resources(ranks=ranks))


def test_reports_come_on_the_virtual_clock_and_models_hear_of_stops() -> None:
    model = Tenth()
    executor = SimulatedExecutor(Capacity(2, 1), model, outages=[Outage(1, 7.0, 8.0)])
    for uid in ("a", "b"):
        executor.submit_task(task(uid))
    seen: list[tuple[float, str, str, object]] = []
    while events := executor.wait():
        seen += [(e.time_s, e.uid, e.state.value, e.progress and e.progress["n"]) for e in events]
        if seen[-1][0] == 6.0:
            executor.cancel(TaskId("a"))
    assert [entry for entry in seen if entry[3]] == [
        *((3.0, uid, "running", 1) for uid in "ab"),
        *((6.0, uid, "running", 2) for uid in "ab"),
        (10.0, "b", "running", 1),
        (13.0, "b", "running", 2),
    ]
    assert model.seen == [("a", 6.0, True), ("b", 7.0, False)]
    assert seen[-1][:3] == (17.0, "b", "done")


def test_waiting_through_idleness_ends_when_nodes_come() -> None:
    executor = SimulatedExecutor(Capacity(2, 1), Tenth(), outages=[Outage(0, 0.0, 5.0, paid=False), Outage(1, 2.0)])
    assert executor.machine() == Machine(2, frozenset({0}), 1)
    assert executor.wait(100.0) == []
    assert executor.now() == 0.0
    seen = []
    while executor.now() < 20.0:
        assert executor.wait(20.0 - executor.now(), idle=True) == []
        seen.append((executor.now(), executor.machine()))
    assert seen == [
        (2.0, Machine(2, frozenset({0, 1}), 1)),
        (5.0, Machine(2, frozenset({1}), 2)),
        (20.0, Machine(2, frozenset({1}), 2)),
    ]


def test_a_real_machine_waits_through_idleness_too(tmp_path: Path) -> None:
    with LocalExecutor(Capacity(1, 1), workdir=tmp_path) as executor:
        assert executor.wait(1e6) == []  # at once, since nothing can come
        began_s = time.monotonic()
        assert executor.wait(0.3, idle=True) == []
        assert time.monotonic() - began_s >= 0.3
        assert executor.machine() == Machine(1, frozenset(), 1)


def test_unequal_nodes_take_what_they_have_and_real_ones_are_equal() -> None:
    capacity = Capacity.of([NodeGroup(2, 2), NodeGroup(1, 8, gpus=2, memory_mb=4000)])
    assert (capacity.total_cores, capacity.total_gpus, capacity.memory_mb) == (12, 2, None)
    executor = SimulatedExecutor(capacity, Tenth())
    executor.submit_task(TaskSpec(TaskId("g"), executable="true", resources=Resources(ranks=2, gpus_per_rank=1.0)))
    executor.submit_task(task("c", 10))
    running = {e.uid for e in executor.wait() if e.state is TaskState.RUNNING}
    assert running == {"g", "c"}
    placed = {t.uid: dict(t.nodes) for t in executor.status().running}
    assert placed == {TaskId("g"): {2: 2}, TaskId("c"): {0: 2, 1: 2, 2: 6}}
    with pytest.raises(LaunchError, match="GPUs"):
        executor.submit_task(TaskSpec(TaskId("h"), executable="true", resources=Resources(ranks=3, gpus_per_rank=1.0)))
    with pytest.raises(LaunchError, match="has equal nodes"):
        Local({}).check(capacity)
    assert math.isfinite(executor.now())
