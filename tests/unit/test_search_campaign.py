"""The campaign of a search: what is run, when it ends, and that a replay gives the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from searches import Fixed, FunctionModel, search, steered

from rlctl.core.driver import Driver
from rlctl.core.errors import ConfigError
from rlctl.core.machine import Capacity
from rlctl.core.records import RecordList
from rlctl.core.task import Event, Failure, TaskResult, TaskState
from rlctl.environments.campaign_env import twin
from rlctl.plugins.registry import policy_factory
from rlctl_envs.search.trials import TrialStatus

LINE: dict[str, Any] = {"parameters": {"x": {"low": 0, "high": 1}}, "objective": {"minimize": "y"}}
STEPS: dict[str, Any] = {"parameters": {"n": {"low": 0, "high": 9, "integer": True}}, "objective": {"minimize": "y"}}


def line(p: Mapping[str, Any], stage: str) -> float:
    return float(p["x"])


def steps(p: Mapping[str, Any], stage: str) -> float:
    return float(p["n"])


def test_two_numbers_are_a_range() -> None:
    short, long = (
        search({**LINE, "parameters": {"x": x}, "until": {"evaluations": 3}}) for x in ([0, 1], LINE["parameters"]["x"])
    )
    assert short.options == long.options
    with pytest.raises(ConfigError, match="low should be less"):
        search({**LINE, "parameters": {"x": [1, 0]}, "until": {"evaluations": 3}})


# When it ends.


def test_it_ends_after_so_many_evaluations() -> None:
    found = steered(search({**LINE, "until": {"evaluations": 7}}), line, "random_search", cores=4)
    assert len(found.state.results) == len(found.state.trials) == 7  # none starts that could not count
    assert (found.outcome().reached, found.outcome().reason) == (False, "7 evaluations")


def test_it_reaches_a_value_from_the_side_that_is_better() -> None:
    up = {**LINE, "objective": {"maximize": "y"}, "until": {"value": 0.9}}
    found = steered(search(up), line, "sobol")
    assert found.outcome().reached
    assert found.outcome().successes == 1
    assert found.outcome().extra["best"] >= 0.9
    assert all(assessment.losses[0] > -0.9 for _, assessment in found.state.results[:-1])


def test_it_ends_without_improvement() -> None:
    answers = iter([0.5, 0.6, 0.4, 0.7, 0.8, 0.9])
    rule = Fixed(lambda state: {"evaluate": {"x": next(answers)}} if not state.running else {"wait": True})
    found = steered(search({**LINE, "until": {"no_improvement": 3}}), line, rule)
    assert [trial.values["x"] for trial in found.state.trials] == [0.5, 0.6, 0.4, 0.7, 0.8, 0.9]
    assert found.outcome().reason == "no improvement in 3 results"


def test_it_ends_with_its_budget() -> None:
    found = steered(search({**LINE, "until": {"node_seconds": 100}, "start_late": True}), line, "sobol", cores=2)
    assert found.deadline_s == 100.0
    assert found.outcome().reason == "the budget is used"
    assert found.reward_scale == pytest.approx(0.01)


@pytest.mark.parametrize(("late", "started"), [(False, 2), (True, 4)])
def test_nothing_starts_whose_walltime_reaches_beyond_the_end(late: bool, started: int) -> None:
    """Runs take 30 s of their 45: the third one would begin at 60 s of 100."""
    options = {**LINE, "until": {"evaluations": 50}, "allocation_s": 100, "start_late": late}
    found = steered(search(options, walltime_s=45), line, "sobol", seconds=lambda launch: 30.0)
    assert len(found.state.trials) == started
    assert found.outcome().reason == ("the budget is used" if late else "no evaluation can start any more")


def test_every_point_is_evaluated_once_and_then_it_ends() -> None:
    found = steered(search({**STEPS, "until": {"evaluations": 50}}), steps, "random_search", cores=3)
    assert sorted(trial.values["n"] for trial in found.state.trials) == list(range(10))
    assert found.outcome().reason == "every point was evaluated"


def test_points_that_constraints_exclude_are_not_missed() -> None:
    options = {**STEPS, "constraints": ["n != 3", "n < 8"], "until": {"evaluations": 50}}
    found = steered(search(options), steps, "gp_ei", cores=2)
    assert sorted(trial.values["n"] for trial in found.state.trials) == [0, 1, 2, 4, 5, 6, 7]


def test_points_that_cannot_be_evaluated_are_evaluations_too() -> None:
    found = steered(search({**LINE, "until": {"evaluations": 9}}), lambda p, s: None, "gp_ei", cores=2)  # type: ignore[arg-type,return-value]
    assert found.state.statuses[TrialStatus.INFEASIBLE] == 9
    assert found.outcome().reason == "9 evaluations"


def test_a_search_without_any_result_ends() -> None:
    options = {**LINE, "until": {"value": 0.0}}
    found = steered(search(options), lambda p, s: None, "random_search", cores=4)  # type: ignore[arg-type,return-value]
    assert found.outcome().reason == "300 runs in a row without a result"


def test_a_failure_that_stops_says_why() -> None:
    factory = search({**LINE, "until": {"evaluations": 9}}, failures={"timeout": {"then": "stop"}}, walltime_s=5)
    found = steered(factory, line, "sobol")
    assert found.outcome().reason.startswith("stopped by evaluation 0 (timeout): ")
    assert len(found.state.trials) == 1


# What is run.


def test_a_point_is_not_run_twice() -> None:
    same = Fixed(lambda state: {"evaluate": {"x": 0.25}})
    found = steered(search({**LINE, "until": {"evaluations": 5}}), line, same, cores=2)
    points = [trial.values["x"] for trial in found.state.trials]
    assert points.count(0.25) == 1
    assert len(set(points)) == len(points)
    assert found.repeated >= 4


def test_a_noisy_point_may_be_run_twice() -> None:
    same = Fixed(lambda state: {"evaluate": {"x": 0.25}})
    found = steered(search({**LINE, "until": {"no_improvement": 1, "node_seconds": 45}, "noisy": True}), line, same)
    assert [trial.values["x"] for trial in found.state.trials] == [0.25] * 5
    assert len(found.state.results) == 1


def test_starting_points_come_first() -> None:
    options = {**LINE, "until": {"evaluations": 6}, "starts": [{"x": 0.5}, {"x": 0.75}]}
    for rule in ("target_per_second", "cma_es", "latin_hypercube", "median_pruning"):
        found = steered(search(options), line, rule)
        assert [trial.values["x"] for trial in found.state.trials[:2]] == [0.5, 0.75]
        assert len({trial.values["x"] for trial in found.state.trials}) == 6


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ({"evaluate": {"x": 2.0}}, "is not a number from 0 to 1"),
        ({"evaluate": {"x": float("nan")}}, "is not a number"),
        ({"evaluate": {"z": 1.0}}, "give a value for each of x"),
        ({"evaluate": {"x": 0.9}}, "does not fulfil the constraints"),
        ({"evaluate": 3}, "should be a mapping"),
        ({"evaluate": {"x": 0.1}, "stage": "none"}, "no stage 'none'"),
        ({"evaluate": {"x": 0.1}, "ranks": 7}, "no such resources"),
        ({"evaluate": {"x": 0.1}, "walltime_s": -1}, "walltime_s is -1"),
        ({"stop": 99}, "evaluation 99 does not run"),
        ({"wait": True}, "nothing runs"),
        ({}, "neither evaluate, stop nor wait"),
    ],
)
def test_what_is_not_allowed_is_refused_and_becomes_a_random_point(answer: Mapping[str, Any], why: str) -> None:
    options = {**LINE, "constraints": ["x < 0.8"], "until": {"evaluations": 3}}
    campaign = search(options).campaign(0)
    campaign.begin(Capacity(nodes=1, cores=2))
    assert campaign.decision() is not None
    assert why in (campaign.refuses(answer) or "")
    assert campaign.refuses({"evaluate": {"x": 0.5}}) is None
    assert len(campaign.apply(answer)) == 1
    assert campaign.masked == 1
    assert len(campaign.state.trials) == 1


def test_a_failure_is_excused_if_it_is_the_point_that_cannot_be_evaluated() -> None:
    factory = search({**LINE, "until": {"evaluations": 3}}, failures={"timeout": {"then": "infeasible"}})
    campaign = factory.campaign(0)
    campaign.begin(Capacity(nodes=1, cores=1))
    campaign.decision()
    campaign.apply({"evaluate": {"x": 0.5}})
    uid = campaign.state.trials[0].uid

    def event(state: TaskState, failure: Failure | None = None, **values: Any) -> Event:
        return Event(1.0, uid, state, result=TaskResult(uid, state, 1, values, failure))

    assert campaign.excuses(event(TaskState.FAILED, Failure.TIMEOUT))
    assert campaign.excuses(event(TaskState.DONE, then="infeasible", kind="exit", message=""))
    assert not campaign.excuses(event(TaskState.FAILED, Failure.EXIT))
    assert not campaign.excuses(event(TaskState.DONE, outputs={"y": 1.0}))


# Replays.


@pytest.mark.parametrize("rule", ["target_per_second", "cma_es", "thompson", "gp_ucb", "latin_hypercube"])
def test_a_rule_answers_a_replayed_campaign_as_it_answered_the_first(rule: str) -> None:
    """What models have learned follows from the journal, not from when they were asked."""
    options = {
        "parameters": {"x": {"low": 0, "high": 1}, "c": {"choices": ["a", "b"]}},
        "objective": {"minimize": "y", "subject_to": "y > -5"},
        "until": {"evaluations": 30},
    }

    def value(p: Mapping[str, Any], stage: str) -> float:
        return float((p["x"] - 0.3) ** 2 + (p["c"] == "a"))

    factory, journal, capacity = search(options), RecordList(), Capacity(nodes=1, cores=3)
    steered(factory, value, rule, seed=3, cores=3, journal=journal)
    asked = [i for i, record in enumerate(journal) if record.kind == "decision"]
    for number in (len(asked) // 3, 2 * len(asked) // 3, len(asked) - 1):
        campaign, policy = factory.campaign(3), policy_factory(rule)()
        driver = Driver(campaign, twin(factory, capacity, 3, model=FunctionModel(value, lambda launch: 10.0)))
        policy.reset(3)
        decision = driver.replay(list(journal)[: asked[number]], {})
        assert decision is not None
        action = policy.act(decision)
        assert json.loads(json.dumps(action)) == journal[asked[number]].data["action"]


# Candidates.


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rows = [f"m{i},{i / 40:.3f},{(i * 7) % 40},{'ab'[i % 2]}" for i in range(40)]
    (tmp_path / "c.csv").write_text("\n".join(["mol,a,b,kind", *rows]) + "\n")
    return tmp_path


def test_candidates_are_searched_and_each_is_run_once(table: Path) -> None:
    options = {
        "candidates": {"file": "c.csv", "name": "mol"},
        "objective": {"minimize": "y"},
        "until": {"value": 0.01, "evaluations": 40},
        "starts": [{"mol": "m7"}],
    }
    factory = search(options, table, command="run {mol} {a} {kind}")

    def value(p: Mapping[str, Any], stage: str) -> float:
        return float((p["a"] - 0.5) ** 2 + (p["b"] / 40 - 0.6) ** 2)

    found = steered(factory, value, cores=2)
    assert found.outcome().reached
    assert found.state.trials[0].values == {"mol": "m7", "a": 0.175, "b": 9, "kind": "b"}
    assert len(found.state.trials) < 25
    every = steered(search({**options, "until": {"evaluations": 99}}, table), value, "random_search", cores=2)
    assert sorted(trial.values["mol"] for trial in every.state.trials) == sorted(f"m{i}" for i in range(40))


def test_candidates_come_from_parquet_too(table: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install 'rlctl[parquet]'")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"a": [0.0, 0.5, 1.0], "n": [1, 2, 3]}), table / "c.parquet")
    options = {"candidates": {"file": "c.parquet"}, "objective": {"minimize": "y"}, "until": {"evaluations": 9}}
    found = steered(search(options, table), lambda p, s: float(p["a"]), "sobol")
    assert sorted((t.values["a"], t.values["n"]) for t in found.state.trials) == [(0.0, 1), (0.5, 2), (1.0, 3)]


@pytest.mark.parametrize(
    ("options", "key", "said"),
    [
        ({"file": "d.csv"}, ("candidates", "file"), "d.csv: there is no such file"),
        ({"file": "c.csv", "name": "moll"}, ("candidates", "name"), "no column 'moll'; known: a, b, kind, mol; did"),
        ({"file": "c.csv", "features": ["a", "kind"]}, ("candidates", "features"), "cells that are no finite numbers"),
        ({"file": "c.csv", "name": "kind"}, ("candidates", "name"), "two candidates have the name 'a'"),
        ({"file": "bad.csv"}, ("candidates", "file"), "row 2 has 1 cells, the first one 2"),
        ({"file": "empty.csv"}, ("candidates", "file"), "it is empty"),
    ],
)
def test_a_wrong_table_is_one_line_with_its_key(
    table: Path, options: dict[str, Any], key: tuple[str, ...], said: str
) -> None:
    (table / "bad.csv").write_text("a,b\n1,2\n3\n")
    (table / "empty.csv").write_text("")
    with pytest.raises(ConfigError) as error:
        search({"candidates": options, "objective": {"minimize": "y"}, "until": {"evaluations": 9}}, table)
    assert said in error.value.problem
    assert "\n" not in str(error.value)
    assert error.value.key == ("campaign", "options", *key)


def test_parameters_and_candidates_exclude_each_other(table: Path) -> None:
    for given in ({}, {**LINE, "candidates": {"file": "c.csv"}}):
        with pytest.raises(ConfigError, match="give parameters, or candidates in place of them"):
            search({"objective": {"minimize": "y"}, "until": {"evaluations": 9}, **given}, table)


def test_a_wrong_range_has_the_key_of_the_file() -> None:
    with pytest.raises(ConfigError) as error:
        search({**LINE, "parameters": {"x": {"low": 3, "high": 1}}, "until": {"evaluations": 9}})
    assert error.value.key == ("campaign", "options", "parameters", "x")


def test_a_run_that_a_new_controller_takes_over_has_begun_when_it_began() -> None:
    """Its executor reports once more that it runs."""
    campaign = search({**LINE, "until": {"evaluations": 3}}).campaign(0)
    campaign.begin(Capacity(nodes=1, cores=1))
    campaign.apply({"evaluate": {"x": 0.5}})
    uid = next(iter(campaign.state.running))
    for time_s in (1.0, 7.0):
        campaign.on_time(time_s)
        campaign.on_event(Event(time_s, uid, TaskState.RUNNING))
    result = TaskResult(uid, TaskState.DONE, 1, {"outputs": {"y": 0.5}}, started_s=1.0, ended_s=8.0)
    campaign.on_time(8.0)
    campaign.on_event(Event(8.0, uid, TaskState.DONE, result=result))
    assert (campaign.state.trials[0].started_s, campaign.state.trials[0].seconds) == (1.0, 7.0)
