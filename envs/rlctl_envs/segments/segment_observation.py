"""What networks read of a campaign of segments: numbers of about -3 to 3 in a fixed order."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from rlctl_envs.segments.chain_memory import BINS, PHASES
from rlctl_envs.segments.chains import RECENT, SegmentedSimulation, SimulationEnd
from rlctl_envs.segments.segments_state import SegmentsState

_OWN = 8
_OTHERS = 3
_MEMORY = 8
_MACHINE = 4
MOST_RESOURCES = 4
"""Choices of resources whose speed is shown."""

_SUCCESS = 8.0
"""Segments of middle length that a success takes about, before one has been seen."""


def length_of(controls: int, results: int) -> int:
    """Of the observation."""
    phases = len(PHASES) + 1
    recent = RECENT * (2 + controls + results)
    return _OWN + controls + recent + _OTHERS + phases * controls * (2 * BINS + 2) + _MEMORY + _MACHINE + MOST_RESOURCES


def observe(state: SegmentsState, simulation: SegmentedSimulation) -> NDArray[np.float32]:
    """The simulation, the others, former ones, the machine.

    Returns:
        [length_of(controls, results)] float32, from -5 to 5.
    """
    x = _simulation(state, simulation)
    others = [other for other in state.others(simulation) if other.segments]
    best = max((state.progress(other) for other in others), default=0.0)
    x += [best, len(others) / 4.0, state.free_share()]
    _append_memory(x, state)
    _append_machine(x, state)
    return np.clip(np.array(x, np.float32), -5.0, 5.0)


def _simulation(state: SegmentsState, simulation: SegmentedSimulation) -> list[float]:
    scale, middle, count = state.memory.scale, state.middle, len(state.controls)
    segments = simulation.segments
    last = simulation.last
    progress = state.progress(simulation)
    x = [
        float(simulation.fresh),
        float(simulation.own),
        progress,
        scale.progress(simulation.best),
        0.5 * math.log1p(simulation.elapsed / middle),
        0.5 * math.log1p(simulation.since_best / middle),
        0.5 * math.log1p(simulation.node_seconds / max(_cost(state), 1e-9)),
        simulation.failures / 2.0,
    ]
    x += [0.0] * count if last is None else [2.0 * unit - 1.0 for unit in last.units]
    for segment in segments[: -RECENT - 1 : -1]:
        x += [scale.progress(segment.level), 0.5 * math.log2(segment.length / middle)]
        x += [2.0 * unit - 1.0 for unit in segment.units]
        x += segment.shown
    missing = RECENT - min(len(segments), RECENT)
    return x + [0.0] * (missing * (2 + count + len(state.results)))


def _append_memory(x: list[float], state: SegmentsState) -> None:
    memory, middle = state.memory, state.middle
    per_length = 4.0 * middle / memory.scale.span
    found = memory.found_units[-1] if memory.found_units else None
    for phase, rows in enumerate(memory.bins):
        means = None if found is None else found[phase]
        for i, row in enumerate(rows):
            for cell in row:
                if cell.length > 0.0:
                    x += (0.5 * math.log1p(cell.length / middle), per_length * cell.gain / cell.length)
                else:
                    x += (0.0, 0.0)
            x += (0.0, 0.0) if means is None else (1.0, 2.0 * means[i] - 1.0)
    ended, typical = memory.ended, memory.lengths
    x += [
        math.log1p(ended[SimulationEnd.FOUND]),
        math.log1p(ended[SimulationEnd.GIVEN_UP]),
        math.log1p(ended[SimulationEnd.BLEW_UP]),
        math.log1p(ended[SimulationEnd.LOST]),
        float(bool(typical)),
        0.5 * math.log1p(sum(typical) / len(typical) / middle) if typical else 0.0,
        math.log1p(state.measured) / 4.0,
        float(bool(state.best)) and memory.scale.progress(state.best[-1].level),
    ]


def _append_machine(x: list[float], state: SegmentsState) -> None:
    needed = state.options.needed - state.memory.found
    x += [min(needed, 8) / 4.0, float(needed == 1)]
    if math.isfinite(state.deadline_s):
        left_s = max(state.deadline_s - state.now_s, 0.0)
        x += [left_s / state.deadline_s, math.log1p(left_s * state.capacity.nodes / max(_cost(state), 1e-9))]
    else:
        x += [1.0, 4.0]
    first = state.rate(state.possible[0])
    for i in range(MOST_RESOURCES):
        rate = state.rate(i) if i < len(state.resources) else None
        x.append(0.0 if rate is None or first is None else 1.0 if rate <= 0.0 else min(first / rate, 4.0))


def _cost(state: SegmentsState) -> float:
    """Node-seconds that a success takes about."""
    memory = state.memory
    if memory.found:
        return memory.node_seconds / memory.found
    rates = [(state.rate(i), share) for i, share in enumerate(state.shares)]
    known = [rate * share for rate, share in rates if rate is not None]
    return _SUCCESS * state.middle * (min(known) if known else 1.0)
