"""Exports a campaign as Chrome trace events, for https://ui.perfetto.dev or chrome://tracing.

The format is the JSON object format of "Trace Event Format" (Google): complete events (ph X) on tracks, metadata (M),
counters (C) and flow arrows (s, f); times are microseconds. Each node is a process with a track for each core; the
controller is a process with a track for decisions and one for other work.
"""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from rlctl.core.json_values import json_text
from rlctl.monitoring.formatting import format_action
from rlctl.monitoring.timeline import AnsweredDecision, TaskAttempt, Timeline

MARK = '"generator": "rlctl trace"'

CONTROLLER = 1
"""Process id of the controller; node n has ``CONTROLLER + 1 + n``."""
_DECISIONS, _WORK = 1, 2

Event = dict[str, Any]

_COLOURS = {"done": "good", "failed": "terrible", "canceled": "grey", "running": "thread_state_running"}


def trace_json(timeline: Timeline, header: Mapping[str, Any]) -> str:
    """The content of the file; ``header`` is that of the journal."""
    other = {"generator": "rlctl trace", **header}
    return json_text({"otherData": other, "displayTimeUnit": "ms", "traceEvents": trace_events(timeline)})


def trace_events(timeline: Timeline) -> list[Event]:
    """Metadata, then all other events in order of time."""
    events = [*_controller(timeline), *_tasks(timeline), *_counters(timeline), *_flows(timeline)]
    # Of events with the same start the longer comes first, since it may contain the other.
    events.sort(key=lambda event: (event["ts"], -event.get("dur", 0)))
    return [*_names(timeline), *events]


def _names(timeline: Timeline) -> list[Event]:
    cores = sorted({core for attempt in timeline.attempts for core in attempt.cores})
    nodes = sorted({_node(timeline, core) for core in cores})
    names = [_name("process_name", CONTROLLER, 0, "controller")]
    names += [_name("thread_name", CONTROLLER, _DECISIONS, "decisions")]
    names += [_name("thread_name", CONTROLLER, _WORK, "start-up and other work")]
    names += [_name("process_name", pid, 0, f"node {pid - CONTROLLER - 1}") for pid in nodes]
    names += [_name("thread_name", _node(timeline, core), core + 1, f"core {core}") for core in cores]
    return names


def _name(kind: str, pid: int, tid: int, name: str) -> Event:
    return {"ph": "M", "name": kind, "pid": pid, "tid": tid, "args": {"name": name}}


def _controller(timeline: Timeline) -> list[Event]:
    events = [_slice("start-up", "boot", span, CONTROLLER, _WORK, {}) for span in timeline.booting]
    events += [_slice("at work", "controller", span, CONTROLLER, _WORK, {}) for span in timeline.working]
    end_s = 0.0
    for decision in timeline.decisions:
        # A decision may have been asked first by an earlier controller that was killed; slices must not overlap.
        span = (max(decision.asked_s, end_s), max(decision.answered_s, decision.asked_s, end_s))
        end_s = span[1]
        name = f"decision {decision.number}: {format_action(decision.shown)}"
        arguments = {"subject": decision.subject, "action": decision.shown, "successes": decision.successes}
        arguments["fallback"] = decision.fallback or ""
        events.append(_slice(name, "decision", span, CONTROLLER, _DECISIONS, arguments))
    return [event for event in events if event["dur"] > 0 or event["cat"] == "decision"]


def _tasks(timeline: Timeline) -> list[Event]:
    events = []
    for attempt in timeline.attempts:
        if attempt.launched_s is None:
            continue
        arguments = {
            "attempt": attempt.attempt,
            "state": attempt.state.value,
            "failure": attempt.failure.value if attempt.failure is not None else "",
            "message": attempt.message,
            "cores": list(attempt.cores),
            "gpus": dict(attempt.gpus),
            "waited_s": attempt.launched_s - attempt.queued_s,
            "parameters": attempt.parameters,
            "result": attempt.values,
        }
        span = (attempt.launched_s, _end_s(timeline, attempt))
        for core in attempt.cores:
            pid = _node(timeline, core)
            event = _slice(attempt.uid, "task", span, pid, core + 1, arguments)
            events.append(event | {"cname": _COLOURS.get(attempt.state.value, "generic_work")})
    return events


def _counters(timeline: Timeline) -> list[Event]:
    changes: dict[str, dict[int, int]] = {"busy cores": defaultdict(int), "waiting tasks": defaultdict(int)}
    for attempt in timeline.attempts:
        ended_us = _us(_end_s(timeline, attempt))
        launched_us = ended_us if attempt.launched_s is None else _us(attempt.launched_s)
        changes["waiting tasks"][_us(attempt.queued_s)] += 1
        changes["waiting tasks"][launched_us] -= 1
        if attempt.launched_s is not None:
            changes["busy cores"][launched_us] += len(attempt.cores)
            changes["busy cores"][ended_us] -= len(attempt.cores)
    events = []
    for name, steps in changes.items():
        value = 0
        events.append(_counter(name, 0, value))
        for time_us, step in sorted(steps.items()):
            if step:
                value += step
                events.append(_counter(name, time_us, value))
    successes = [(decision.asked_s, decision.successes) for decision in timeline.decisions]
    if timeline.summary is not None:
        successes.append((timeline.charged_s, int(timeline.summary["successes"])))
    seen = 0
    for time_s, count in successes:
        if count != seen:
            events.append(_counter("successes", _us(time_s), count))
        seen = count
    return events


def _flows(timeline: Timeline) -> list[Event]:
    """Arrows from each decision to the tasks that it started."""
    events: list[Event] = []
    for decision, started in started_by(timeline):
        for attempt in started:
            if attempt.launched_s is None or not attempt.cores:
                continue
            core = attempt.cores[0]
            common = {"name": "starts", "cat": "start", "id": len(events) // 2 + 1}
            from_us = _us(decision.answered_s)
            to_us = max(_us(attempt.launched_s), from_us)
            events.append({"ph": "s", "ts": from_us, "pid": CONTROLLER, "tid": _DECISIONS, **common})
            to = {"pid": _node(timeline, core), "tid": core + 1}
            events.append({"ph": "f", "bp": "e", "ts": to_us, **to, **common})
    return events


def started_by(timeline: Timeline) -> list[tuple[AnsweredDecision, list[TaskAttempt]]]:
    """Each decision with the tasks that were submitted after it and before the next one, as their first attempts."""
    first = [attempt for attempt in timeline.attempts if attempt.attempt == 1]
    answered_s = [decision.answered_s for decision in timeline.decisions]
    started: list[list[TaskAttempt]] = [[] for _ in answered_s]
    for attempt in first:
        number = bisect.bisect_right(answered_s, attempt.queued_s) - 1
        if number >= 0:
            started[number].append(attempt)
    return list(zip(timeline.decisions, started, strict=True))


def _slice(
    name: str, category: str, span: tuple[float, float], pid: int, tid: int, arguments: Mapping[str, Any]
) -> Event:
    from_us, to_us = _us(span[0]), _us(span[1])
    where = {"ts": from_us, "dur": max(to_us - from_us, 0), "pid": pid, "tid": tid}
    return {"ph": "X", "name": name, "cat": category, **where, "args": dict(arguments)}


def _counter(name: str, time_us: int, value: int) -> Event:
    return {"ph": "C", "name": name, "ts": time_us, "pid": CONTROLLER, "tid": 0, "args": {name: value}}


def _node(timeline: Timeline, core: int) -> int:
    """Process id of the node of a core; real machines may number cores beyond the allocation."""
    return CONTROLLER + 1 + min(core // timeline.capacity.cores, timeline.capacity.nodes - 1)


def _end_s(timeline: Timeline, attempt: TaskAttempt) -> float:
    return max(timeline.end_s, attempt.queued_s) if attempt.ended_s is None else attempt.ended_s


def _us(seconds: float) -> int:
    return round(1e6 * seconds)
