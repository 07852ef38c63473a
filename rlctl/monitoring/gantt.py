"""Draws the Gantt chart of a campaign as SVG: cores against time, coloured by the final state of the task."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

import numpy as np
from numpy.typing import NDArray

from rlctl.monitoring.formatting import format_cores, ranges
from rlctl.monitoring.palette import STATE_COLOURS
from rlctl.monitoring.svg import Frame, axes, figure
from rlctl.monitoring.timeline import TaskAttempt, Timeline

MOST_BARS = 2000
"""With more bars the chart shows the predominant state of each slot of time."""

_MOST_ROWS = 96
_SLOTS = 400
_WIDTH = 860.0
_ROW, _LEAST_ROW = 22.0, 4.0
_DECISIONS = 16.0


def gantt(timeline: Timeline) -> tuple[str, bool]:
    """The chart as SVG, and whether it shows slots of time instead of single attempts."""
    held = [attempt for attempt in timeline.attempts if attempt.launched_s is not None]
    rows = _rows(timeline)
    height = max(min(_ROW, 480.0 / max(len(rows), 1)), _LEAST_ROW)
    tall = height * max(len(set(rows.values())), 1)
    end_s = max([timeline.charged_s, 1e-3, *(attempt.ended_s or 0.0 for attempt in held)])
    frame = Frame(_WIDTH, tall + _DECISIONS + 54.0, end_s, 1.0, left=64.0, top=6.0, bottom=38.0)
    many = sum(len(_blocks(attempt, rows)) for attempt in held) > MOST_BARS
    bars = _summed(held, rows, frame, height) if many else _bars(held, rows, frame, height, timeline.charged_s)
    parts = [axes(frame, "seconds since the campaign began", []), bars, _failures(held, rows, frame, height)]
    parts += [_labels(rows, frame, height), _controller(timeline, frame, frame.top + tall + 4.0)]
    label = f"{len(held)} attempts of tasks on {timeline.largest.total_cores} cores over {end_s:.0f} seconds"
    return figure(frame, label, parts), many


def _rows(timeline: Timeline) -> dict[int, int]:
    """Row of each core; cores share rows if there are too many."""
    used = sorted({core for attempt in timeline.attempts for core in attempt.cores})
    total = timeline.largest.total_cores
    # Cores that were never used have rows too, if their numbers are known: an idle machine should look idle.
    cores = used if used and used[-1] >= total else list(range(total))
    together = -(-len(cores) // _MOST_ROWS)
    return {core: at // together for at, core in enumerate(cores)}


def _blocks(attempt: TaskAttempt, rows: Mapping[int, int]) -> list[tuple[int, int]]:
    """Ranges (first, last) of adjacent rows that an attempt holds."""
    return ranges({rows[core] for core in attempt.cores})


def _bars(held: list[TaskAttempt], rows: Mapping[int, int], frame: Frame, height: float, end_s: float) -> str:
    parts = []
    for attempt in held:
        launched_s, ended_s = attempt.launched_s or 0.0, end_s if attempt.ended_s is None else attempt.ended_s
        started_s = min(ended_s if attempt.started_s is None else attempt.started_s, ended_s)
        title = f"{attempt.uid}, attempt {attempt.attempt}: {attempt.state.value}"
        title += f" ({attempt.failure.value}: {attempt.message})" if attempt.failure is not None else ""
        title += f", {launched_s:.2f} s to {ended_s:.2f} s on cores {format_cores(attempt.cores)}"
        for first, last in _blocks(attempt, rows):
            y, tall = frame.top + first * height, (last - first + 1) * height - min(2.0, 0.2 * height)
            spans = ((launched_s, started_s, "starting"), (started_s, ended_s, attempt.state.value))
            bars = "".join(_bar(frame, from_s, to_s, y, tall, state) for from_s, to_s, state in spans if to_s > from_s)
            parts.append(f"<g><title>{escape(title)}</title>{bars}</g>")
    return "".join(parts)


def _bar(frame: Frame, from_s: float, to_s: float, y: float, tall: float, state: str) -> str:
    x = frame.x(from_s)
    wide = max(frame.x(to_s) - x - 0.5, 0.4)
    colour = STATE_COLOURS.get(state, "grey")
    return f'<rect x="{x:.2f}" y="{y:.1f}" width="{wide:.2f}" height="{tall:.1f}" style="fill:var(--{colour})"/>'


def _summed(held: list[TaskAttempt], rows: Mapping[int, int], frame: Frame, height: float) -> str:
    """The predominant state of each row and slot of time; free if it was free for more than half."""
    states = list(STATE_COLOURS)
    seconds: NDArray[np.float64] = np.zeros((len(states), max(rows.values()) + 1, _SLOTS))
    slot_s = frame.x_most / _SLOTS
    shared = np.bincount(list(rows.values())).astype(np.float64)
    for attempt in held:
        from_s, to_s = attempt.launched_s or 0.0, frame.x_most if attempt.ended_s is None else attempt.ended_s
        state = states.index(attempt.state.value) if attempt.state.value in states else 0
        first, last = int(from_s / slot_s), min(int(to_s / slot_s), _SLOTS - 1)
        slots = np.arange(first, last + 1)
        part = np.minimum((slots + 1) * slot_s, to_s) - np.maximum(slots * slot_s, from_s)
        for core in attempt.cores:
            seconds[state, rows[core], first : last + 1] += part
    busy = seconds.sum(axis=0) >= 0.5 * slot_s * shared[:, None]
    shown = np.where(busy, seconds.argmax(axis=0), -1)
    paths: dict[int, list[str]] = {state: [] for state in range(len(states))}
    for row, line in enumerate(shown):
        edges = np.flatnonzero(np.diff(line, prepend=-2, append=-2))
        for first, last in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            if line[first] >= 0:
                x, y = frame.x(first * slot_s), frame.top + row * height
                wide = frame.x(last * slot_s) - x
                paths[int(line[first])].append(f"M{x:.1f} {y:.1f}h{wide:.1f}v{height - 0.5:.1f}h-{wide:.1f}z")
    return "".join(
        f'<path d="{"".join(path)}" style="fill:var(--{STATE_COLOURS[states[state]]})">'
        f"<title>{states[state]}</title></path>"
        for state, path in paths.items()
        if path
    )


def _failures(held: list[TaskAttempt], rows: Mapping[int, int], frame: Frame, height: float) -> str:
    """A cross at the end of each failed attempt."""
    path = []
    for attempt in [attempt for attempt in held if attempt.failure is not None or attempt.state.value == "failed"]:
        if attempt.cores and attempt.ended_s is not None:
            x, y = frame.x(attempt.ended_s), frame.top + (rows[attempt.cores[0]] + 0.5) * height
            path.append(f"M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8")
    return f'<path class="cross" d="{"".join(path[:MOST_BARS])}"><title>failed here</title></path>' if path else ""


def _labels(rows: Mapping[int, int], frame: Frame, height: float) -> str:
    cores: dict[int, list[int]] = {}
    for core, row in rows.items():
        cores.setdefault(row, []).append(core)
    every = max(1, -(-14 // max(int(height), 1)))
    return "".join(
        f'<text x="{frame.left - 6:g}" y="{frame.top + (row + 0.5) * height + 4:.1f}" text-anchor="end">'
        f"{'core' if len(of) == 1 else 'cores'} {format_cores(of)}</text>"
        for row, of in cores.items()
        if row % every == 0
    )


def _controller(timeline: Timeline, frame: Frame, y: float) -> str:
    """Controller starts, and a tick for each decision."""
    parts = [f'<text x="{frame.left - 6:g}" y="{y + 9:.1f}" text-anchor="end">decisions</text>']
    for from_s, to_s in timeline.booting:
        wide = max(frame.x(to_s) - frame.x(from_s), 1.0)
        parts.append(
            f'<rect x="{frame.x(from_s):.1f}" y="{y:.1f}" width="{wide:.1f}" height="10" style="fill:var(--orange)">'
            f"<title>the controller starts</title></rect>"
        )
    at = sorted({round(frame.x(decision.asked_s), 1) for decision in timeline.decisions})
    path = "".join(f"M{x:.1f} {y:.1f}v10" for x in at)
    return "".join(parts) + (f'<path class="tick" d="{path}"/>' if path else "")
