"""The table of a campaign's segments, and what it has found, for people."""

from __future__ import annotations

from typing import Any

from rlctl.core.findings import MAXIMIZE, MINIMIZE, Findings
from rlctl_envs.search.objective import SearchObjective
from rlctl_envs.segments.chains import Segment, SegmentStatus
from rlctl_envs.segments.segments_goal import SegmentsGoal
from rlctl_envs.segments.segments_state import SegmentsState


def segment_row(state: SegmentsState, segment: Segment, ended: bool) -> dict[str, Any]:
    """A row: place in its simulation, control values, resources, status, results, times; ``ended``: the campaign has.

    ``from`` is the evaluation whose restart file it began with.
    """
    status, need = segment.status.value, segment.need
    if segment.status is SegmentStatus.RUNNING and (ended or segment.started_s is None):
        status = "stopped" if ended else "queued"
    row: dict[str, Any] = {
        "evaluation": segment.number,
        "simulation": segment.simulation,
        "segment": segment.index,
        "from": segment.parent,
        **segment.values,
    }
    if state.options.length_name:
        row[state.options.length_name] = segment.length
    return row | {
        "ranks": need.ranks,
        "cores": need.cores_per_rank,
        "gpus": need.gpus_per_rank,
        "status": status,
        **segment.results,
        "feasible": None if segment.level is None else segment.level >= 0.0,
        "queued_s": round(segment.queued_s, 3),
        "started_s": None if segment.started_s is None else round(segment.started_s, 3),
        "ended_s": None if segment.ended_s is None else round(segment.ended_s, 3),
        "node_seconds": round(segment.node_seconds, 4),
        "kind": segment.kind,
        "message": segment.message,
    }


def segment_findings(state: SegmentsState, objective: SearchObjective, goal: SegmentsGoal) -> Findings:
    """What the rows mean."""
    known = [segment for segment in state.segments if segment.level is not None]
    best: tuple[int, ...] = ()
    if objective.finds:
        best = tuple(segment.number for segment in known if goal.hit(segment.level or 0.0))
    elif known:
        best = (max(known, key=lambda segment: (segment.level, -segment.number)).number,)
    length = [state.options.length_name] if state.options.length_name else []
    return Findings(
        parameters=(*state.names, *length),
        results=tuple(state.results),
        objectives={
            name: MINIMIZE if sign > 0 else MAXIMIZE
            for name, sign in zip(objective.names, objective.signs, strict=True)
        },
        best=best,
        goal=state.options.until.value is not None or state.options.until.found is not None,
    )
