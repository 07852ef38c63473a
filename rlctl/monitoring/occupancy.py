"""Draws the use of the machine over time as PNG pictures, and writes it to TensorBoard."""

from __future__ import annotations

import colorsys
import io
import math
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from rlctl.core.task import TaskState
from rlctl.monitoring.ledger import AllocationLedger, Purpose, allocation_ledger
from rlctl.monitoring.palette import PURPOSE_COLOURS, rgb
from rlctl.monitoring.summary_writer import SummaryWriter
from rlctl.monitoring.svg import ticks
from rlctl.monitoring.timeline import Timeline

STATES = (TaskState.QUEUED, TaskState.RUNNING, TaskState.DONE, TaskState.FAILED, TaskState.CANCELED)
MOST_ROWS = 64
"""Up to so many cores have a row each; beyond that nodes, and beyond that groups of nodes."""

# Sizes in pixels, of the plot and of its margins. TensorBoard shows it 300 wide, hence the large letters.
_WIDTH, _HEIGHT, _FONT = 500, 200, 22
_LEFT, _RIGHT, _TOP, _BOTTOM = 90, 18, 70, 66
_PAPER = 16  # index of the background colour; the fifteen after it darken to black
_PURPOSES = tuple(Purpose)
_DARKER = len(_PURPOSES)
_GOLDEN = 0.618034  # turn of the colour circle from one task to the next


def write_occupancy(writer: SummaryWriter, timeline: Timeline, step: int) -> AllocationLedger:
    """Write shares of the allocation by purpose, counts of tasks by state, durations and the two pictures."""
    ledger = allocation_ledger(timeline)
    states = Counter(attempt.state for attempt in timeline.attempts)
    values: dict[str, float] = {
        f"machine/share/{p.value.replace(' ', '_')}": share for p, share in ledger.shares().items()
    }
    values |= {f"machine/tasks/{state.value}": states[state] for state in STATES}
    writer.scalars(values, step)
    ended = [a for a in timeline.attempts if a.ended_s is not None and a.launched_s is not None]
    writer.histogram("machine/task_s", [(a.ended_s or 0.0) - (a.launched_s or 0.0) for a in ended], step)
    if timeline.end_s > 0.0:
        writer.image("machine/allocation", allocation_png(timeline), step)
        writer.image("machine/tasks", tasks_png(timeline), step)
    return ledger


def allocation_png(timeline: Timeline) -> bytes:
    """Cores or nodes down, seconds across, coloured by purpose, with axes and a legend."""
    colours = [rgb(PURPOSE_COLOURS[purpose]) for purpose in _PURPOSES]
    # The same colours darker tell neighbouring tasks apart.
    colours += [(int(0.78 * r), int(0.78 * g), int(0.78 * b)) for r, g, b in colours]
    return _picture(timeline, allocation(timeline, _WIDTH), [purpose.value for purpose in _PURPOSES], colours)


def tasks_png(timeline: Timeline) -> bytes:
    """The same picture coloured by task; white where no task ran."""
    turns = [colorsys.hls_to_rgb(n * _GOLDEN % 1.0, 0.42 + 0.2 * (n % 2), 0.65) for n in range(_PAPER - 1)]
    colours = [(255, 255, 255), *((int(255 * r), int(255 * g), int(255 * b)) for r, g, b in turns)]
    return _picture(timeline, tasks(timeline, _WIDTH), [], colours)


def _picture(
    timeline: Timeline, cells: NDArray[np.uint8], legend: Sequence[str], palette: Sequence[tuple[int, int, int]]
) -> bytes:
    """A PNG of indices of colours, with axes; the legend names the first colours."""
    rows, end_s, capacity = cells.shape[0], timeline.end_s, timeline.largest
    tall = max(_HEIGHT // rows, 1)
    height = tall * rows
    colours = np.full((_TOP + height + _BOTTOM, _LEFT + _WIDTH + _RIGHT), _PAPER, np.uint8)
    colours[_TOP : _TOP + height, _LEFT : _LEFT + _WIDTH] = np.repeat(cells, tall, axis=0)
    ink = Image.new("L", colours.shape[::-1])  # in shades of grey, laid over the colours
    draw, font = ImageDraw.Draw(ink), ImageFont.load_default(_FONT)
    for n, name in enumerate(legend):
        x, y = 8 + n % 3 * (ink.width // 3), 6 + n // 3 * (_FONT + 8)
        colours[y + 3 : y + 3 + _FONT, x : x + _FONT] = n
        draw.rectangle((x, y + 3, x + _FONT, y + 3 + _FONT), outline=255)
        draw.text((x + _FONT + 8, y), name, fill=255, font=font)
    if not legend:
        count = len({attempt.uid for attempt in timeline.attempts if attempt.launched_s is not None})
        draw.text((8, 6), f"{count} tasks, one colour each", fill=255, font=font)
    draw.rectangle((_LEFT - 1, _TOP - 1, _LEFT + _WIDTH, _TOP + height), outline=255)
    for tick_s in ticks(end_s, 6):
        at = _LEFT + round(tick_s / end_s * _WIDTH)
        draw.line((at, _TOP + height, at, _TOP + height + 6), fill=255)
        draw.text((at, _TOP + height + 8), f"{tick_s:g}", fill=255, font=font, anchor="ma")
    below = (_LEFT + _WIDTH // 2, _TOP + height + 10 + _FONT)
    draw.text(below, "seconds of the allocation", fill=255, font=font, anchor="ma")
    what, count = ("core", capacity.total_cores) if capacity.total_cores <= MOST_ROWS else ("node", capacity.nodes)
    for row in sorted({0, rows - 1} if rows > 8 else set(range(rows))):
        at_row = (_LEFT - 6, _TOP + (row + 0.5) * height / rows)
        draw.text(at_row, f"{what} {row * count // rows}", fill=255, font=font, anchor="rm")
    shades = np.asarray(ink) // 16
    picture = Image.fromarray(np.where(shades > 0, _PAPER + shades, colours).astype(np.uint8), "L")
    used = [part for colour in palette for part in colour]
    greys = [255 - 14 * grey for grey in range(16) for _ in range(3)]
    # Compared with full colours, a palette needs a third of the bytes, whose checksum Python computes.
    picture.putpalette([*used, *[0] * (3 * _PAPER - len(used)), *greys])
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def tasks(timeline: Timeline, columns: int) -> NDArray[np.uint8]:
    """[row, column]: 0 without a task, else a number from 1 to 15 that belongs to the task."""
    cells = np.zeros((timeline.largest.nodes * timeline.largest.cores, columns), np.uint8)
    numbers: dict[str, int] = {}
    for attempt in timeline.attempts:
        if attempt.launched_s is not None:
            number = 1 + numbers.setdefault(attempt.uid, len(numbers)) % (_PAPER - 1)
            cells[list(attempt.cores), _columns(timeline, columns, attempt.launched_s, attempt.ended_s)] = number
    return _rows(timeline, cells)


def allocation(timeline: Timeline, columns: int) -> NDArray[np.uint8]:
    """[row, column]: index of the purpose of a core or node, plus ``len(Purpose)`` for the darker colour."""
    # Nodes of unequal size are numbered as if all were the largest.
    total = timeline.largest.nodes * timeline.largest.cores
    cells = np.full((total, columns), _PURPOSES.index(Purpose.IDLE), np.uint8)
    for attempt in timeline.attempts:
        left_s = attempt.ended_s if attempt.launched_s is None else attempt.launched_s
        if left_s is None or left_s > attempt.queued_s:
            cells[:, _columns(timeline, columns, attempt.queued_s, left_s)] = _PURPOSES.index(Purpose.QUEUE)
    for purpose, spans in ((Purpose.CONTROLLER, timeline.working), (Purpose.BOOT, timeline.booting)):
        # A controller works for milliseconds and a column is longer: it shows where it had most of the column.
        cells[:, _covered(spans, timeline.end_s, columns) >= 0.5] = _PURPOSES.index(purpose)
    for number, attempt in enumerate(a for a in timeline.attempts if a.launched_s is not None):
        launched_s, shade, cores = attempt.launched_s or 0.0, _DARKER * (number % 2), list(attempt.cores)
        run = Purpose.USEFUL if attempt.useful else Purpose.WASTED
        cells[cores, _columns(timeline, columns, launched_s, attempt.ended_s)] = _PURPOSES.index(run) + shade
        running_s = attempt.ended_s if attempt.started_s is None else attempt.started_s
        if running_s is None or running_s > launched_s:
            cells[cores, _columns(timeline, columns, launched_s, running_s)] = _PURPOSES.index(Purpose.BOOT) + shade
    return _rows(timeline, cells)


def _columns(timeline: Timeline, columns: int, from_s: float, to_s: float | None) -> slice:
    """Columns of a span of time, at least one; None: until the end."""
    first = min(int(from_s / timeline.end_s * columns), columns - 1)
    return slice(first, columns if to_s is None else max(first + 1, round(to_s / timeline.end_s * columns)))


def _rows(timeline: Timeline, cells: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """One row for each core, or, for many cores, for the first core of each node or group of nodes."""
    if len(cells) <= MOST_ROWS:
        return cells
    capacity = timeline.largest
    return np.ascontiguousarray(cells[:: capacity.cores * math.ceil(capacity.nodes / 4 / MOST_ROWS)])


def _covered(spans: Iterable[tuple[float, float]], end_s: float, columns: int) -> NDArray[np.float64]:
    """Share of each column that the spans cover; the spans are disjoint and in order."""
    edges = np.linspace(0.0, end_s, columns + 1)
    pairs = np.array(list(spans), np.float64).reshape(-1, 2)
    if pairs.size == 0 or end_s <= 0.0:
        return np.zeros(columns)
    lengths = np.concatenate([[0.0], np.cumsum(pairs[:, 1] - pairs[:, 0])])
    before = np.searchsorted(pairs[:, 0], edges, side="right")
    over = np.where(before > 0, np.maximum(pairs[np.maximum(before - 1, 0), 1] - edges, 0.0), 0.0)
    covered: NDArray[np.float64] = np.diff(lengths[before] - over) / (end_s / columns)  # differences of covered time
    return covered
