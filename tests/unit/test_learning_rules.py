"""Rules that keep a memory of an instance find what is hidden in it, and plan by proven bounds."""

from __future__ import annotations

import itertools
import json
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rlctl.core.machine import Capacity
from rlctl.plugins.registry import policy_factory
from rlctl.testing.checks import check_policy
from rlctl_agents.rules.dual_approximation import allotment, least_horizon
from rlctl_agents.rules.stopping_index import StoppingIndex, fair_price, index
from rlctl_agents.rules.transition_posterior import TransitionPosterior
from rlctl_envs.block_copolymer.factory import BlockCopolymer
from rlctl_envs.block_copolymer.field import BAND_EDGES
from rlctl_envs.ensemble.factory import Ensemble

QUIET = (-3.0, -2.0, -1.0, -1.5, -2.2)
assert len(QUIET) == len(BAND_EDGES) - 1


def amplitude(temperature: float, transition: float, gain: float) -> float:
    r = transition / temperature - 1.0
    return math.sqrt(0.5 * gain * (r + math.sqrt(r * r + 4.0 * 0.03**2)))


@pytest.mark.parametrize("transition", [1.25, 1.5, 1.8])
@pytest.mark.parametrize("gain", [0.5, 2.5])
def test_the_transition_is_found_whatever_the_instrument_multiplies_by(transition: float, gain: float) -> None:
    rng = np.random.default_rng(1)
    known = TransitionPosterior()
    for share in (0.78, 0.85, 0.9, 0.95, 1.02):
        temperature = share * transition
        a = amplitude(temperature, transition, gain) * math.exp(0.03 * rng.standard_normal())
        known.learn(temperature, a, 480, QUIET, 0.7)
    assert known.transition == pytest.approx(transition, abs=0.04)


def test_one_wrong_amplitude_is_forgiven() -> None:
    known = TransitionPosterior()
    for share in (0.8, 0.85, 0.9, 0.95, 1.0):
        known.learn(share * 1.5, amplitude(share * 1.5, 1.5, 1.0), 480, QUIET, 0.7)
    before = known.transition
    known.learn(1.4, 50.0, 480, QUIET, 0.7)
    assert known.transition == pytest.approx(before, abs=0.03)


def test_power_at_short_waves_tells_noise() -> None:
    quiet, loud = TransitionPosterior(), TransitionPosterior()
    for known, power in ((quiet, -2.6), (loud, -1.8)):
        for _ in range(5):
            known.learn(1.2, 0.3, 480, (*QUIET[:-1], power), 0.7)
    assert quiet.fluctuation < loud.fluctuation - 0.5


def moldable(rng: np.random.Generator, tasks: int) -> tuple[Any, Any]:
    """Times on 1, 2 and 4 ranks: they fall, and the work rises."""
    one = rng.lognormal(0.0, 1.0, tasks)
    loss = 1.0 + rng.uniform(0.0, 0.9, tasks)
    return np.stack([one, one * loss / 2.0, one * loss**2 / 4.0], axis=1), np.tile([1.0, 2.0, 4.0], (tasks, 1))


@pytest.mark.parametrize("seed", range(20))
def test_no_schedule_ends_before_the_guess(seed: int) -> None:
    """Work over cores and the longest task bound every allotment's schedules; the guess is as good as the best."""
    times, ranks = moldable(np.random.default_rng(seed), 5)
    each = np.arange(5)
    all_of_them = [list(js) for js in itertools.product(range(3), repeat=5)]
    bounds = [max(times[each, js].max(), (times * ranks)[each, js].sum() / 4.0) for js in all_of_them]
    guess = least_horizon(times, ranks, 4.0)
    assert 0.985 * guess <= min(bounds) <= 1.001 * guess
    chosen = allotment(times, guess)
    work = sum(times[i, j] * ranks[i, j] for i, j in enumerate(chosen))
    assert work <= 1.001 * guess * 4.0
    assert all(times[i, j] <= 1.001 * guess for i, j in enumerate(chosen))


def test_each_task_gets_the_fewest_ranks_that_end_in_time() -> None:
    times = np.array([[8.0, 5.0, 3.0], [2.0, 1.2, 1.1], [math.inf, 9.0, 7.0]])
    assert allotment(times, 5.0).tolist() == [1, 0, 2]


@pytest.mark.parametrize(("rate", "length"), [(0.5, 2.0), (2.0, 0.3), (1.0, 1.0)])
@pytest.mark.parametrize("price", [0.6, 1.5, 4.0])
def test_the_index_is_what_dynamic_programming_gives(rate: float, length: float, price: float) -> None:
    worth, n = price, 20_000
    for _ in range(n):
        worth -= (1.0 + rate * min(length, worth)) / n
    assert index(1.0, price, rate, length) == pytest.approx(worth, abs=2e-3)
    assert index(1.0, fair_price(rate, length), rate, length) == pytest.approx(0.0, abs=1e-9)


def reporting(number: int, fractions: list[float], **attributes: Any) -> Any:
    """A task of 100 s, by what is thought of it, that reports every 10 s."""
    reports = [SimpleNamespace(time_s=10.0 * (i + 1), fraction=f, value=None) for i, f in enumerate(fractions)]
    fields = {"begun": 0.0, "started_s": 0.0, "expected_s": 100.0, "ended_s": 0.0, "status": "running"} | attributes
    return SimpleNamespace(job=SimpleNamespace(number=number, estimate_s=100.0), reports=reports, worth=False, **fields)


def ensemble(task: Any, ended: list[Any]) -> Any:
    waiting = reporting(99, [])
    waiting.work_left_s = 100.0
    state = SimpleNamespace(
        ended=ended, reported=task, waiting={99: waiting}, alike={}, queue=None, may_wait=True,
        running={task.job.number: task}, tasks={99: waiting, task.job.number: task},
        options=SimpleNamespace(objective=SimpleNamespace(goal=None)),
    )  # fmt: skip
    return state


def test_a_task_that_is_stuck_is_stopped_where_others_were_stuck_for_long() -> None:
    stuck = [0.1, 0.2, 0.3, 0.3]
    long = [reporting(n, [0.1, 0.2] + [0.2] * 40 + [0.3], status="stopped", ended_s=430.0) for n in range(5)]
    short = [reporting(n, [0.1, 0.15, 0.25, 0.3, 0.4], status="done", ended_s=110.0) for n in range(5)]
    assert StoppingIndex().choose(ensemble(reporting(7, stuck), long)) == {"stop": 7}
    assert "stop" not in StoppingIndex().choose(ensemble(reporting(7, stuck), short))
    nearly = reporting(7, [0.1 * i for i in range(1, 10)])
    assert "stop" not in StoppingIndex().choose(ensemble(nearly, long))


def test_how_often_and_how_long_tasks_are_stuck_is_learned() -> None:
    rule = StoppingIndex(held=0.01)
    ended = [reporting(n, [0.1, 0.2, 0.2, 0.2, 0.3], status="stopped", ended_s=50.0) for n in range(8)]
    rule.choose(ensemble(reporting(20, [0.1]), ended))
    rate, length = rule.known()
    assert rate == pytest.approx(1 / 0.3, rel=0.1)  # once in 30 % of the work
    assert length == pytest.approx(0.2, rel=0.1)


ARRIVING = {"load": 0.9, "gpus": {"need": 0.3, "gain": 0.4}, "tasks": [8, 10]}
STUCK = {"reports": 8, "trouble": {"traps_per_work": [2, 2]}}
GAMES: dict[str, Any] = {
    "annealing_posterior": (BlockCopolymer({"allocation_s": 10.0}), Capacity(cores=2)),
    "dual_approximation": (Ensemble({"workload": {"tasks": [8, 10]}}), Capacity(nodes=8)),
    "slowdown_density": (
        Ensemble({"workload": ARRIVING, "objective": {"slowdown": 1.0, "node_second": 0.0}}),
        Capacity(nodes=4, cores=4, gpus=2),
    ),
    "stopping_index": (Ensemble({"workload": STUCK, "objective": {"goal": 4}, "stop": True}), Capacity(nodes=4)),
}


@pytest.mark.parametrize("rule", GAMES)
def test_a_rule_forgets_saves_and_continues(rule: str) -> None:
    factory, capacity = GAMES[rule]
    policy = policy_factory(rule)()
    check_policy(factory, policy, capacity)
    assert json.loads(json.dumps(policy.state())) == policy.state()


def test_the_opponents_of_a_game_are_rules_for_it() -> None:
    named = [name for factory, _ in GAMES.values() for name in factory.opponents]
    assert set(GAMES) <= set(named)
    for factory, _ in GAMES.values():
        for name in factory.opponents:
            assert policy_factory(name)().name == name
