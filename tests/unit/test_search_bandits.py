"""Searches of few points with noisy results: rules that repeat evaluations, their budget, and recorded evaluations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from searches import search, steered

from rlctl.config.load import load_config
from rlctl.core.errors import ConfigError
from rlctl.core.machine import Capacity
from rlctl.evaluation.rollout import roll_out
from rlctl.plugins.registry import configured_campaign, policy_factory
from rlctl_envs.search.campaign import SearchCampaign

pytestmark = pytest.mark.quick

MEANS = {"a": 3.0, "b": 1.0, "c": 2.0, "d": 9.0}
EXAMPLE = Path(__file__).parents[2] / "examples" / "parallel_io" / "hints.yaml"


def options(trials: int, **further: Any) -> dict[str, Any]:
    return {
        "parameters": {"x": {"choices": list(MEANS)}},
        "objective": {"minimize": "y"},
        "until": {"trials": trials},
        "noisy": True,
        **further,
    }


def noisy(seed: int, spread: float = 0.5) -> Callable[[Mapping[str, Any], str], float]:
    rng = np.random.default_rng(seed)
    return lambda p, _: MEANS[p["x"]] + spread * float(rng.standard_normal())


def order(campaign: SearchCampaign) -> list[str]:
    return [str(trial.values["x"]) for trial in campaign.state.trials]


def test_explore_then_commit_tries_each_point_five_times_and_then_the_best() -> None:
    tried = order(steered(search(options(60)), noisy(1), "explore_then_commit"))
    assert tried[:20] == [*"abcd"] * 5
    assert set(tried[20:]) == {"b"}
    assert len(tried) == 60


@pytest.mark.parametrize("rule", ["ucb", "normal_thompson"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_rules_settle_on_the_best_of_noisy_points_and_give_bad_ones_up(rule: str, seed: int) -> None:
    count = Counter(order(steered(search(options(120)), noisy(seed), rule, seed)))
    assert count["b"] > 60
    assert count["d"] <= 6
    assert count["a"] < count["b"]


@pytest.mark.parametrize("rule", ["ucb", "normal_thompson"])
def test_a_point_that_was_unlucky_at_first_is_tried_again(rule: str) -> None:
    told: Counter[str] = Counter()
    rng = np.random.default_rng(0)

    def unlucky(p: Mapping[str, Any], _: str) -> float:
        told[p["x"]] += 1
        first = p["x"] == "b" and told["b"] <= 3
        return MEANS[p["x"]] + 1.2 * first + 0.6 * float(rng.standard_normal())

    assert Counter(order(steered(search(options(120)), unlucky, rule)))["b"] > 50


def test_without_noise_a_bound_follows_the_mean() -> None:
    tried = order(steered(search(options(30)), lambda p, _: MEANS[p["x"]], "ucb"))
    assert tried == [*"abcd"] * 2 + ["b"] * 22


def test_default_setting_stays_at_the_first_point_or_the_first_start() -> None:
    assert set(order(steered(search(options(7)), noisy(1), "default_setting"))) == {"a"}
    assert set(order(steered(search(options(7, starts=[{"x": "c"}])), noisy(1), "default_setting"))) == {"c"}


def test_several_at_a_time_try_different_points_first() -> None:
    campaign = steered(search(options(40)), noisy(1), "explore_then_commit", cores=4)
    assert Counter(order(campaign)[:20]) == dict.fromkeys("abcd", 5)
    assert len(campaign.state.trials) == 40


def test_a_point_that_fails_its_constraints_counts_as_the_worst() -> None:
    free = {"objective": {"minimize": "y", "subject_to": "y >= 1.5"}}
    tried = order(steered(search(options(40, **free)), lambda p, _: MEANS[p["x"]], "explore_then_commit"))
    assert set(tried[20:]) == {"c"}


def test_logarithms_weigh_rare_slow_runs_less() -> None:
    """``a`` takes 1, but once in five times 20; ``b`` always 3: the mean prefers ``b``, that of logarithms ``a``."""
    for logarithm, best in ((False, "b"), (True, "a")):
        told: Counter[str] = Counter()

        def slow(p: Mapping[str, Any], _: str, told: Counter[str] = told) -> float:
            told[p["x"]] += 1
            return {"a": 20.0 if told["a"] % 5 == 0 else 1.0, "b": 3.0}[p["x"]]

        two = options(30) | {"parameters": {"x": {"choices": ["a", "b"]}}}
        found = steered(search(two), slow, "explore_then_commit", logarithm=logarithm)
        assert order(found)[10] == best


def table(tmp_path: Path, text: str) -> Path:
    (tmp_path / "recorded.csv").write_text(text)
    file = tmp_path / "scan.yaml"
    file.write_text(
        "program: {command: 'echo {x}', results: {y: {regex: '(.+)'}}}\n"
        "campaign:\n"
        "  options:\n"
        "    parameters: {x: {choices: [a, b]}}\n"
        "    objective: {minimize: y}\n"
        "    noisy: true\n"
        "    until: {trials: 60}\n"
        "twin: {recorded: recorded.csv}\n"
    )
    return file


def played(file: Path, rule: str, seed: int = 0, *changes: str) -> SearchCampaign:
    factory = configured_campaign(load_config(file, changes))
    found = []
    policy = policy_factory(rule)(None)
    roll_out(factory, Capacity(1, 2), [(policy, seed)], lambda _, episode: found.append(episode.campaign))
    assert isinstance(found[-1], SearchCampaign)
    return found[-1]


def test_a_recorded_twin_draws_what_was_recorded_of_each_point(tmp_path: Path) -> None:
    file = table(tmp_path, "x,y,duration_s\na,1,10\na,2,20\nb,3,30\n")
    trials = played(file, "random_search").state.trials
    assert len(trials) == 60
    drawn = Counter((str(t.values["x"]), t.results["y"], round(t.seconds, 6)) for t in trials)
    assert set(drawn) == {("a", 1.0, 10.0), ("a", 2.0, 20.0), ("b", 3.0, 30.0)}
    assert drawn["a", 1.0, 10.0] == pytest.approx(15, abs=10)
    again = [t.results for t in played(file, "random_search").state.trials]
    assert again == [t.results for t in trials]
    assert again != [t.results for t in played(file, "random_search", seed=1).state.trials]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("x,y,duration_s\na,1,1\n", r"recorded.csv: no evaluation of x b"),
        ("x,y\na,1\nb,1\n", r"recorded.csv:2: started_s: '' is not a number: give duration_s, or started_s"),
        ("x,y,duration_s\na,1,-1\nb,1,1\n", r"recorded.csv:2: its duration is -1 s"),
        ("x,y,duration_s\na,one,1\nb,1,1\n", r"recorded.csv:2: y: 'one' is not a number"),
        ("x,z,duration_s\na,1,1\n", r"recorded.csv:1: no column is named after a result; known: y"),
    ],
)
def test_what_is_wrong_with_a_recorded_table_is_named(tmp_path: Path, text: str, error: str) -> None:
    config = load_config(table(tmp_path, text))
    with pytest.raises(ConfigError, match=error) as raised:
        configured_campaign(config).check(Capacity(1, 2), real=False)
    assert raised.value.key == ("twin", "recorded")


def test_the_table_of_the_example_has_twenty_repeats_of_each_setting_and_its_constraint_chooses_a_pattern() -> None:
    for pattern in ("contiguous", "strided", "random"):
        changes = [f"campaign.options.constraints=['pattern == \"{pattern}\"']", "campaign.options.until.trials=32"]
        campaign = played(EXAMPLE, "ucb", 0, *changes)
        assert {trial.values["pattern"] for trial in campaign.state.trials} == {pattern}
        assert len(campaign.state.results) == 16
    rows = [line.split(",")[:2] for line in (EXAMPLE.parent / "recorded.csv").read_text().splitlines()[1:]]
    assert set(Counter(map(tuple, rows)).values()) == {24}


def test_trials_are_no_budget_of_segments() -> None:
    file = EXAMPLE.parents[1] / "lammps_crystal" / "crystal.yaml"
    with pytest.raises(ConfigError, match="evaluations counts segments"):
        configured_campaign(load_config(file, ["campaign.options.until.trials=3"]))
