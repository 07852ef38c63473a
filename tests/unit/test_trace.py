"""The trace keeps the rules of the Trace Event Format: checked here against what the format's description says."""

import itertools
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from run_folders import queue_config, simulated_run

import rlctl
from rlctl.core.machine import Capacity
from rlctl.core.records import RecordList
from rlctl.executors.event_log import Journal
from rlctl.monitoring.timeline import Timeline
from rlctl.monitoring.trace import started_by, trace_events

REQUIRED = {
    "X": {"name", "cat", "ts", "dur", "pid", "tid", "args"},
    "M": {"name", "pid", "tid", "args"},
    "C": {"name", "ts", "pid", "args"},
    "s": {"name", "cat", "id", "ts", "pid", "tid"},
    "f": {"name", "cat", "id", "ts", "pid", "tid", "bp"},
}


def check(events: list[dict[str, Any]]) -> None:
    """Raise AssertionError where the events break a rule of the format."""
    tracks: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    named = set()
    flows: dict[int, dict[str, dict[str, Any]]] = defaultdict(dict)
    last = 0
    for event in events:
        assert REQUIRED[event["ph"]] <= set(event), event
        assert isinstance(event["pid"], int)
        if event["ph"] == "M":
            assert event["name"] in ("process_name", "thread_name")
            assert isinstance(event["args"]["name"], str)
            named.add((event["name"], event["pid"], event["tid"] if event["name"] == "thread_name" else None))
            continue
        assert isinstance(event["ts"], int), "microseconds"
        assert event["ts"] >= last, "in order of time"
        last = event["ts"]
        if event["ph"] == "X":
            assert isinstance(event["dur"], int)
            assert event["dur"] >= 0
            tracks[event["pid"], event["tid"]].append((event["ts"], event["ts"] + event["dur"]))
            assert ("process_name", event["pid"], None) in named
            assert ("thread_name", event["pid"], event["tid"]) in named
        elif event["ph"] == "C":
            assert all(isinstance(value, int | float) and value >= 0 for value in event["args"].values())
        else:
            assert event["ph"] not in flows[event["id"]], "one start and one end"
            flows[event["id"]][event["ph"]] = event
    for spans in tracks.values():
        for (_, ended), (begun, _) in itertools.pairwise(spans):
            assert begun >= ended, "slices of one track overlap"
    for flow in flows.values():
        assert set(flow) == {"s", "f"}
        assert flow["s"]["ts"] <= flow["f"]["ts"]
        for event in flow.values():
            spans = tracks[event["pid"], event["tid"]]
            assert any(begun <= event["ts"] <= ended for begun, ended in spans), "an arrow ends in no slice"


def traced(run: Path) -> dict[str, Any]:
    return json.loads(rlctl.trace(run).read_text(), parse_constant=lambda text: pytest.fail(f"JSON has no {text}"))


def test_the_trace_of_a_campaign_keeps_the_rules_of_the_format(tmp_path: Path) -> None:
    run = simulated_run(tmp_path / "run", queue_config(tmp_path), "equal")
    data = traced(run)
    events = data["traceEvents"]
    check(events)
    with Journal.open(run / "journal.db", read_only=True) as journal:
        timeline = Timeline.read(journal.records(), Capacity(32, 1))
    slices = [event for event in events if event["ph"] == "X"]
    decisions = [event for event in slices if event["cat"] == "decision"]
    assert len(decisions) == len(timeline.decisions)
    tasks = [event for event in slices if event["cat"] == "task"]
    assert len(tasks) == sum(len(attempt.cores) for attempt in timeline.attempts)
    core_us = sum(event["dur"] for event in tasks)
    assert core_us == pytest.approx(1e6 * timeline.summary["core_seconds"]["useful run"], rel=1e-6)  # type: ignore[index]
    assert len({event["args"]["parameters"]["ranks"] for event in tasks}) > 1
    assert all(event["args"]["result"] for event in tasks)
    assert sum(event["ph"] == "s" for event in events) == len(timeline.attempts)
    last = {event["name"]: event["args"][event["name"]] for event in events if event["ph"] == "C"}
    assert last == {"busy cores": 0, "waiting tasks": 0, "successes": timeline.summary["successes"]}  # type: ignore[index]
    assert data["otherData"]["policy"] == "equal"


def test_a_killed_campaign_has_a_trace_too(tmp_path: Path) -> None:
    run = simulated_run(tmp_path / "run", queue_config(tmp_path), "wide", decisions=6)
    events = traced(run)["traceEvents"]
    check(events)
    assert {event["args"]["state"] for event in events if event.get("cat") == "task"} >= {"running"}


def test_an_arrow_leads_from_a_decision_to_what_it_started() -> None:
    records = RecordList()
    for number, uids in enumerate((["a"], [], ["b", "c"])):
        records.append("decision", 1.0 * number, {"number": number, "action": [0]})
        for uid in uids:
            records.append("submitted", 1.0 * number, {"uid": uid, "attempt": 1})
    timeline = Timeline.read(records, Capacity(1, 2))
    assert [[a.uid for a in started] for _, started in started_by(timeline)] == [["a"], [], ["b", "c"]]


def good() -> list[dict[str, Any]]:
    records = RecordList()
    records.append("decision", 1.0, {"number": 0, "action": {"size": 2}, "subject": "a", "asked_s": 0.5})
    for at, kind in ((1.0, "submitted"), (1.5, "launching"), (2.0, "event")):
        records.append(kind, at, {"uid": "a", "attempt": 1, "cores": [0], "time_s": at, "state": "running"})
    records.append("time", 4.0, {})
    return trace_events(Timeline.read(records, Capacity(1, 1)))


@pytest.mark.parametrize(
    "change",
    [
        {"ts": 1.5},
        {"dur": -1},
        {"ts": 0},
        {"tid": 77},
        {"ph": "Q"},
        {"ts": 3_900_000},
    ],
)
def test_the_check_sees_what_breaks_the_rules(change: dict[str, Any]) -> None:
    events = good()
    check(events)
    task = next(event for event in events if event.get("cat") == "task")
    with pytest.raises((AssertionError, KeyError)):
        check([event | change if event is task else event for event in events])
