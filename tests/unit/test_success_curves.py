"""Successes against node-seconds: counted alike for real and simulated campaigns."""

import math
from pathlib import Path

import pytest

from rlctl.config.load import load_config
from rlctl.core.driver import Driver
from rlctl.core.machine import Capacity
from rlctl.core.records import RecordList
from rlctl.evaluation.rollout import EVALUATION, draw_instances, roll_out
from rlctl.evaluation.success_curves import Curve, bands, load_rules, run_curve, spread_instances, twin_curves
from rlctl.executors.simulated.backend import SimulatedExecutor
from rlctl.monitoring.timeline import Timeline
from rlctl.plugins.registry import campaign_factory, policy_factory

CAPACITY = Capacity(nodes=32, cores=1)


def test_a_journal_and_the_twin_give_the_same_curve() -> None:
    factory = campaign_factory("ensemble", {"workload": {"tasks": [8, 12]}})
    policy = policy_factory("lpt")()
    records = RecordList()
    executor = SimulatedExecutor(CAPACITY, factory.task_model(5), records)
    driver = Driver(factory.campaign(5), executor, records)
    decision = driver.begin()
    while decision is not None:
        decision = driver.step(policy.act(decision))
    outcome = driver.outcome()
    ended = {"node_seconds": driver.ledger.node_seconds, "successes": outcome.successes, "reached": outcome.reached}
    records.append("ended", executor.now(), ended)
    real = run_curve(Timeline.read(records, CAPACITY), policy.name, 5)
    twin = twin_curves(factory, CAPACITY, {policy.name: policy}, [5])[policy.name][0]
    assert real.node_seconds == pytest.approx(twin.node_seconds)
    assert (real.end, real.reached, real.ended) == (pytest.approx(twin.end), twin.reached, True)
    assert len(set(real.node_seconds)) > 3


def test_curves_end_where_the_comparison_says_and_go_on_one_policy_s_memory_each() -> None:
    factory = campaign_factory("ensemble", {"workload": {"tasks": [4, 6]}})
    policies = {name: policy_factory(name)() for name in ("lpt", "same_efficiency")}
    instances = [2, 9, 4]
    curves = twin_curves(factory, CAPACITY, policies, instances)
    for name, policy in policies.items():
        plays = roll_out(factory, CAPACITY, [(policy, instance) for instance in instances])
        assert [(c.policy, c.instance, c.end, c.successes) for c in curves[name]] == [
            (name, p.instance, p.node_seconds, p.successes) for p in plays
        ]
        assert all(list(c.node_seconds) == sorted(c.node_seconds) for c in curves[name])


def test_a_band_counts_those_that_never_get_there_as_infinite() -> None:
    curves = [Curve("rule", i, (10.0 * (i + 1),), 200.0) for i in range(8)]
    curves += [Curve("rule", 8, (), 200.0), Curve("rule", 9, (), 200.0)]
    band = bands(curves)[0]
    assert (band.successes, band.share) == (1, 0.8)
    assert (band.low, band.median, band.high) == (10.0, 50.0, math.inf)
    assert bands([]) == []
    assert [b.successes for b in bands(curves, most=3)] == [1, 2, 3]


def test_a_run_in_progress_has_a_curve_so_far() -> None:
    records = RecordList()
    records.append("epoch", 0.0, {})
    for number, successes in enumerate((0, 2, 2)):
        data = {"number": number, "action": [0], "asked_s": 10.0 * number, "successes": successes}
        records.append("decision", 10.0 * number + 1.0, data)
    curve = run_curve(Timeline.read(records, Capacity(nodes=3, cores=1)))
    assert curve == Curve("", 0, (30.0, 30.0), 63.0, ended=False, reached=False)
    assert curve.points() == [(0.0, 0), (30.0, 0), (30.0, 1), (30.0, 1), (30.0, 2), (63.0, 2)]


def test_the_spread_is_shown_on_instances_that_no_comparison_uses() -> None:
    assert not set(spread_instances(1, 50)) & set(draw_instances(1, EVALUATION, 50))
    assert max(spread_instances(1, 50)) < 2**32
    assert len(set(spread_instances(1, 50))) == 50


def test_rules_are_the_policies_that_are_rules_and_the_others_are_complained_about(tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    (tmp_path / "tuned.yaml").write_text("{schema: 1, rule: lpt, parameters: {most: 0.1}}")
    (tmp_path / "experiment.yaml").write_text(
        "{schema: 1, seed: 0, campaign: {name: ensemble}, policies: {learned: saved, tuned: tuned.yaml, "
        "by_hand: {rule: same_efficiency}, gone: gone.yaml, odd: {rule: largest_frist}}}"
    )
    found, complaints = load_rules(load_config(tmp_path / "experiment.yaml"))
    assert {name: policy.name for name, policy in found.items()} == {"tuned": "tuned", "by_hand": "by_hand"}
    assert len(complaints) == 2
    assert "policies.gone" in complaints[0]
    assert "lpt" in complaints[1]
