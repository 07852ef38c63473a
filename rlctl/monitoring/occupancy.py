"""The machine of a campaign as a picture and as figures: which core was used for what, and when."""

from __future__ import annotations

import colorsys
import io
import math
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from rlctl.core.machine import Capacity
from rlctl.core.task import TaskState
from rlctl.monitoring.ledger import Purpose, account
from rlctl.monitoring.palette import PURPOSE_COLOURS, rgb
from rlctl.monitoring.summary_writer import SummaryWriter
from rlctl.monitoring.timeline import Timeline

STATES = (TaskState.QUEUED, TaskState.RUNNING, TaskState.DONE, TaskState.FAILED, TaskState.CANCELED)
MOST_ROWS = 64
"""Cores up to so many have a row each; beyond that, nodes, and beyond that, groups of nodes."""

# Of the plot itself, and around it, in pixels. TensorBoard shows it 300 wide: hence large letters.
_WIDTH, _HEIGHT, _FONT = 500, 200, 22
_LEFT, _RIGHT, _TOP, _BOTTOM = 90, 18, 70, 66
_PAPER = 16  # number of the colour; the fifteen after it darken to ink
_PURPOSES = tuple(Purpose)
_DARKER = len(_PURPOSES)
_GOLDEN = 0.618034
"""Of a turn of the colour circle, from a task to the next."""


def write_occupancy(board: SummaryWriter, timeline: Timeline, step: int) -> None:
    """Everything about the machine that a timeline tells."""
    shares = account(timeline).shares()
    states = Counter(attempt.state for attempt in timeline.attempts)
    figures: dict[str, float] = {f"machine/share/{p.value.replace(' ', '_')}": share for p, share in shares.items()}
    figures |= {f"machine/tasks/{state.value}": states[state] for state in STATES}
    board.scalars(figures, step)
    ended = [a for a in timeline.attempts if a.ended_s is not None and a.launched_s is not None]
    board.histogram("machine/task_s", [(a.ended_s or 0.0) - (a.launched_s or 0.0) for a in ended], step)
    if timeline.end_s > 0.0:
        board.image("machine/allocation", allocation_png(timeline), step)
        board.image("machine/tasks", tasks_png(timeline), step)


def allocation_png(timeline: Timeline) -> bytes:
    """Cores or nodes down, seconds across, coloured by purpose, with axes and a legend."""
    return _picture(timeline, allocation(timeline, _WIDTH), [purpose.value for purpose in _PURPOSES], _palette())


def tasks_png(timeline: Timeline) -> bytes:
    """The same, coloured by task; white where none was."""
    return _picture(timeline, tasks(timeline, _WIDTH), [], _tasks_palette())


def _picture(timeline: Timeline, cells: NDArray[np.uint8], legend: Sequence[str], palette: list[int]) -> bytes:
    """A PNG of numbers of colours, with axes; the first colours have the names of the legend."""
    rows, end_s, capacity = cells.shape[0], timeline.end_s, timeline.capacity
    tall = max(_HEIGHT // rows, 1)
    height = tall * rows
    colours = np.full((_TOP + height + _BOTTOM, _LEFT + _WIDTH + _RIGHT), _PAPER, np.uint8)
    colours[_TOP : _TOP + height, _LEFT : _LEFT + _WIDTH] = np.repeat(cells, tall, axis=0)
    ink = Image.new("L", colours.shape[::-1])  # drawn apart, in shades of grey, and laid over the colours
    draw, font = ImageDraw.Draw(ink), ImageFont.load_default(_FONT)
    for n, name in enumerate(legend):
        x, y = 8 + n % 3 * (ink.width // 3), 6 + n // 3 * (_FONT + 8)
        colours[y + 3 : y + 3 + _FONT, x : x + _FONT] = n
        draw.rectangle((x, y + 3, x + _FONT, y + 3 + _FONT), outline=255)
        draw.text((x + _FONT + 8, y), name, fill=255, font=font)
    if not legend:
        count = len({attempt.uid for attempt in timeline.attempts if attempt.launched_s is not None})
        draw.text((8, 6), f"{count} tasks, a colour each", fill=255, font=font)
    draw.rectangle((_LEFT - 1, _TOP - 1, _LEFT + _WIDTH, _TOP + height), outline=255)
    for tick_s in _ticks(end_s):
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
    picture.putpalette(palette)  # a third of the bytes of full colours, and their checksum is computed in Python
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def _palette() -> list[int]:
    """Purposes, the same darker, to tell tasks that are neighbours, and from paper to ink."""
    light = [c for purpose in _PURPOSES for c in rgb(PURPOSE_COLOURS[purpose])]
    greys = [255 - 14 * grey for grey in range(16) for _ in range(3)]
    used = [*light, *(int(0.78 * c) for c in light)]
    return [*used, *[0] * (3 * _PAPER - len(used)), *greys]


def _tasks_palette() -> list[int]:
    """Nothing, then colours that neighbours in time do not share, and from paper to ink."""
    turns = [colorsys.hls_to_rgb(n * _GOLDEN % 1.0, 0.42 + 0.2 * (n % 2), 0.65) for n in range(_PAPER - 1)]
    used = [255, 255, 255, *(int(255 * part) for turn in turns for part in turn)]
    greys = [255 - 14 * grey for grey in range(16) for _ in range(3)]
    return [*used, *greys]


def tasks(timeline: Timeline, columns: int) -> NDArray[np.uint8]:
    """[row, column]: 0 where no task was, else a number from 1 to 15 that a task keeps."""
    capacity, end_s = timeline.capacity, timeline.end_s
    cells = np.zeros((capacity.nodes * capacity.cores, columns), np.uint8)
    numbers: dict[str, int] = {}
    for attempt in timeline.attempts:
        if attempt.launched_s is None:
            continue
        number = 1 + numbers.setdefault(attempt.uid, len(numbers)) % (_PAPER - 1)
        first = min(int(attempt.launched_s / end_s * columns), columns - 1)
        last = columns if attempt.ended_s is None else max(first + 1, round(attempt.ended_s / end_s * columns))
        cells[list(attempt.cores), first:last] = number
    return cells if len(cells) <= MOST_ROWS else np.ascontiguousarray(cells[:: _step(capacity)])


def _step(capacity: Capacity) -> int:
    """Of a node, and of a group of nodes, the first core stands for all."""
    return capacity.cores * math.ceil(capacity.nodes / 4 / MOST_ROWS)


def allocation(timeline: Timeline, columns: int) -> NDArray[np.uint8]:
    """[row, column]: number of the purpose that a core or node had then, plus ``len(Purpose)`` where darker."""
    capacity, end_s = timeline.capacity, timeline.end_s
    total = capacity.nodes * capacity.cores  # unequal nodes are numbered as if all were the largest
    cells = np.full((total, columns), _PURPOSES.index(Purpose.IDLE), np.uint8)

    def span(from_s: float, to_s: float | None) -> slice:
        first = min(int(from_s / end_s * columns), columns - 1)
        return slice(first, columns if to_s is None else max(first + 1, round(to_s / end_s * columns)))

    for attempt in timeline.attempts:
        left_s = attempt.ended_s if attempt.launched_s is None else attempt.launched_s
        if left_s is None or left_s > attempt.queued_s:
            cells[:, span(attempt.queued_s, left_s)] = _PURPOSES.index(Purpose.QUEUE)
    for purpose, share in ((Purpose.CONTROLLER, timeline.working), (Purpose.BOOT, timeline.booting)):
        # A controller works for milliseconds, a column is longer: it shows where it had most of the column.
        cells[:, _covered(share, end_s, columns) >= 0.5] = _PURPOSES.index(purpose)
    for number, attempt in enumerate(a for a in timeline.attempts if a.launched_s is not None):
        launched_s, shade, cores = attempt.launched_s or 0.0, _DARKER * (number % 2), list(attempt.cores)
        run = Purpose.USEFUL if attempt.useful else Purpose.WASTED
        cells[cores, span(launched_s, attempt.ended_s)] = _PURPOSES.index(run) + shade
        running_s = attempt.ended_s if attempt.started_s is None else attempt.started_s
        if running_s is None or running_s > launched_s:
            cells[cores, span(launched_s, running_s)] = _PURPOSES.index(Purpose.BOOT) + shade
    if total <= MOST_ROWS:
        return cells
    return np.ascontiguousarray(cells[:: _step(capacity)])


def _covered(spans: Iterable[tuple[float, float]], end_s: float, columns: int) -> NDArray[np.float64]:
    """Share of each column that the spans cover."""
    edges = np.linspace(0.0, end_s, columns + 1)
    pairs = np.array(list(spans), np.float64).reshape(-1, 2)
    if pairs.size == 0 or end_s <= 0.0:
        return np.zeros(columns)
    # Covered time until each edge: the spans are disjoint and rise.
    lengths = np.concatenate([[0.0], np.cumsum(pairs[:, 1] - pairs[:, 0])])
    before = np.searchsorted(pairs[:, 0], edges, side="right")
    over = np.where(before > 0, np.maximum(pairs[np.maximum(before - 1, 0), 1] - edges, 0.0), 0.0)
    covered: NDArray[np.float64] = np.diff(lengths[before] - over) / (end_s / columns)
    return covered


def _ticks(end_s: float) -> list[float]:
    """Round times, at most eight.

    >>> _ticks(97.0)
    [0.0, 20.0, 40.0, 60.0, 80.0]
    """
    rough = end_s / 6
    power: float = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * 0.999)
    return [n * step for n in range(int(end_s / step) + 1)]
