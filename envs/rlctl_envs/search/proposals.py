"""What a decision offers to networks: proposals of acquisition functions, waiting and stopping, as rows of features."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlctl.core.sets import SetLayout
from rlctl.core.task import Resources
from rlctl_envs.search.advice import Advice
from rlctl_envs.search.answers import Answer, Evaluate, Pause, Stop
from rlctl_envs.search.parameters import Floats
from rlctl_envs.search.search_state import SearchState
from rlctl_envs.search.trials import Trial

KINDS = ("wait", "stop", "target_per_second", "ei_per_second", "ei", "thompson", "bound", "cheap", "promote")
"""Where a proposal comes from; the order of the rows."""

GLOBALS = 12
ROW = 1 + len(KINDS) + 9
LAYOUT = SetLayout(GLOBALS, ((len(KINDS), ROW),), prior=ROW - 1)


@dataclass(frozen=True, slots=True)
class Proposal:
    """One choice.

    Attributes:
        kind: one of ``KINDS``.
        point, stage, need: of an evaluation; None, -1 and None otherwise.
        trial: that it would stop.
        features: of its row, after those that say its kind.
        favoured: whether the default rule would choose it.
    """

    kind: str
    point: Floats | None = None
    stage: int = -1
    need: Resources | None = None
    trial: Trial | None = None
    features: tuple[float, ...] = ()
    favoured: bool = False

    def named(self, state: SearchState) -> Mapping[str, Any]:
        """The same as named quantities."""
        if self.trial is not None:
            return {"stop": self.trial.number}
        if self.point is None or self.need is None:
            return {"wait": True}
        return {
            "evaluate": state.space.values(self.point),
            "stage": state.stages[self.stage],
            "ranks": self.need.ranks,
            "cores": self.need.cores_per_rank,
            "gpus": self.need.gpus_per_rank,
        }


def offered(state: SearchState) -> list[Proposal | None]:
    """A proposal for each of ``KINDS``; None: it is not possible now."""
    found: dict[str, Proposal] = {}
    about = state.subject
    if about is not None or state.running:
        found["wait"] = Proposal("wait")
    if about is not None:
        favoured = "stop" if _is_late(state, about) else "wait"
        found["stop"] = Proposal("stop", trial=about, features=_of_run(state, about))
    else:
        evaluations, favoured = _evaluations(state)
        found |= evaluations
    if favoured in found:
        found[favoured] = replace(found[favoured], favoured=True)
    return [found.get(kind) for kind in KINDS]


def nearest_proposal(rows: Sequence[Proposal | None], answer: Answer | str) -> NDArray[np.int64] | None:
    """The index of the row that means an answer; None: no row does."""
    for i, row in enumerate(rows):
        if row is None:
            continue
        if isinstance(answer, Evaluate):
            same = row.point is not None and row.stage == answer.stage and np.allclose(row.point, answer.point)
        else:
            same = isinstance(answer, Stop | Pause) and row.kind == ("stop" if isinstance(answer, Stop) else "wait")
        if same:
            return np.array([i], np.int64)
    return None


def observe(state: SearchState, rows: Sequence[Proposal | None]) -> NDArray[np.float32]:
    """The observation: ``GLOBALS`` numbers, then a row for each of ``KINDS``."""
    x = np.zeros(LAYOUT.length, np.float32)
    x[:GLOBALS] = _globals(state)
    for i, row in enumerate(rows):
        if row is not None:
            at = GLOBALS + i * ROW
            x[at] = x[at + 1 + i] = 1.0
            x[at + 1 + len(KINDS) : at + 1 + len(KINDS) + len(row.features)] = row.features
            x[at + ROW - 1] = float(row.favoured)
    return np.clip(np.nan_to_num(x), -5.0, 5.0)


def _evaluations(state: SearchState) -> tuple[dict[str, Proposal], str]:
    """Of each acquisition function, its best candidate that can start now; and the kind that the default rule takes."""
    stages = [stage for stage in range(len(state.stages)) if state.fitting(stage)]
    if not stages:
        return {}, ""
    full = state.counts if state.counts in stages else stages[-1]
    need = state.fitting(full)[0]
    rng = np.random.default_rng([state.seed, len(state.trials)])
    advice = state.advice(rng)
    cost = advice.log_cost(full, need)
    scores = {
        "target_per_second": advice.worth() - cost,
        "ei_per_second": advice.expected_improvement() - cost,
        "ei": advice.expected_improvement(),
        "thompson": advice.sampled(rng),
        "bound": advice.confidence_bound(3.0),
    }
    best = {kind: int(np.argmax(score)) for kind, score in scores.items()}
    found = {
        kind: Proposal(kind, advice.points[i], full, need, features=_of_point(advice, i, cost[i], cost))
        for kind, i in best.items()
    }
    favoured = "target_per_second" if state.started % 2 else "ei_per_second"  # as the default rule takes turns
    if stages[0] != full:
        cheap, i = state.fitting(stages[0])[0], best["ei_per_second"]
        low = advice.log_cost(stages[0], cheap)
        found["cheap"] = Proposal(
            "cheap", advice.points[i], stages[0], cheap, features=_of_point(advice, i, low[i], cost)
        )
        if advice.worthwhile_stage(i, {stages[0]: float(low[i]), full: float(cost[i])}) != full:
            favoured = "cheap"
        promoted = state.were_tried(advice.points, stages[0])
        if promoted.any():
            i = int(np.argmax(np.where(promoted, scores["target_per_second"], -math.inf)))
            found["promote"] = Proposal(
                "promote", advice.points[i], full, need, features=_of_point(advice, i, cost[i], cost)
            )
    return found, favoured


def _is_late(state: SearchState, trial: Trial) -> bool:
    """Whether the default rule would stop a run."""
    usual_s, ran_s = state.median_s(trial.stage), state.now_s - (trial.started_s or state.now_s)
    if usual_s is None or ran_s < 2.9 * usual_s:
        return False
    return ran_s >= 1.5 * state.seconds_of(trial.point, trial.stage, trial.resources)[0]


def _of_point(advice: Advice, i: int, log_cost: float, costs: Floats) -> tuple[float, ...]:
    predicted = advice.prediction
    mean, deviation = float(predicted.mean[i]), float(predicted.deviation[i])
    best = advice.best if math.isfinite(advice.best) else 0.0
    target = best if advice.target is None else advice.target
    return (
        mean - best,
        mean - target,
        math.log(deviation),
        float(advice.expected_improvement()[i]) / 5.0,
        float(advice.probability_of_target()[i]) / 5.0,
        float(predicted.log_feasible[i]),
        (log_cost - float(np.median(costs))) / 2.0,
    )


def _of_run(state: SearchState, trial: Trial) -> tuple[float, ...]:
    ran_s = state.now_s - (trial.queued_s if trial.started_s is None else trial.started_s)
    usual_s = state.median_s(trial.stage) or ran_s
    values = [value for _, value in trial.progress]
    others = [
        t.progress[len(values) - 1][1] for t in state.trials if t is not trial and len(t.progress) >= len(values) > 0
    ]
    rank = sum(other < values[-1] for other in others) / len(others) if others else 0.5
    return (math.log(max(ran_s, 1e-9) / max(usual_s, 1e-9)), rank, float(bool(values)))


def _globals(state: SearchState) -> list[float]:
    ended = len(state.trials) - len(state.running)
    failed = sum(trial.assessment is None for trial in state.trials if trial.ended_s is not None)
    usual_s = state.median_s(state.counts) or 1.0
    left_s = state.deadline_s - state.now_s
    return [
        math.log1p(ended) / 3.0,
        math.log1p(len(state.running)) / 3.0,
        failed / max(1, ended),
        math.log1p(len(state.space.names)) / 2.0,
        math.log1p(max(left_s, 0.0) / usual_s) / 4.0,
        math.log1p(state.now_s / usual_s) / 4.0,
        sum(node.free_cores for node in state.pool.states()) / max(1, state.capacity.total_cores),
        float(state.best is not None),
        float(state.options.until.value is not None),
        float(len(state.stages) > 1),
        float(state.subject is not None),
        len(state.results) / max(1, ended),
    ]
