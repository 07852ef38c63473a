import numpy as np
import pytest

from rlctl.config.schema import Config
from rlctl.core.errors import ConfigError
from rlctl.core.machine import Capacity
from rlctl.evaluation.compare import Comparison
from rlctl.evaluation.rollout import (
    EVALUATION,
    TUNING,
    VALIDATION,
    Rollout,
    draw_instances,
    evaluation_instances,
    roll_out,
)
from rlctl.evaluation.statistics import ert, ert_interval, ert_ratio, resampled_sums
from rlctl_agents.rules.ensemble import Fifo
from rlctl_envs.ensemble.factory import Ensemble


def plays(node_seconds, successes, instances=None):
    instances = range(len(node_seconds)) if instances is None else instances
    return [
        Rollout(i, int(s), bool(s >= 2), float(n), float(n), 10, 1e-5, float(n))
        for i, n, s in zip(instances, node_seconds, successes, strict=True)
    ]


def test_cost_per_success_is_total_cost_over_total_successes():
    # 100 + 100 + 40 node-seconds, 2 + 0 + 1 successes; the mean of the quotients would be undefined.
    assert ert(np.array([100.0, 100.0, 40.0]), np.array([2, 0, 1])) == 80.0
    assert ert(np.array([5.0]), np.array([0])) == float("inf")


def test_bootstrap_sums_have_the_mean_and_spread_of_resampled_rows():
    columns = np.array([[1.0, 10.0], [2.0, 20.0], [6.0, 60.0]])
    sums = resampled_sums(columns, samples=20_000, seed=1)
    assert sums.shape == (20_000, 2)
    assert np.array_equal(sums[:, 1], 10 * sums[:, 0])  # the same rows for both columns
    assert sums[:, 0].mean() == pytest.approx(9.0, abs=0.1)
    assert sums[:, 0].var() == pytest.approx(3 * np.var([1, 2, 6]), rel=0.05)


def test_interval_covers_a_known_ratio_as_often_as_it_says():
    random, covered, widths = np.random.default_rng(0), 0, []
    for trial in range(50):
        hardness = random.lognormal(0.0, 0.5, 100)
        a, b = 2.0 * hardness * random.lognormal(0, 0.1, 100), hardness * random.lognormal(0, 0.1, 100)
        value, (low, high) = ert_ratio(a, np.full(100, 3), b, np.full(100, 3), seed=trial)
        assert low <= value <= high
        covered += low <= 2.0 <= high
        widths.append(high - low)
    assert 43 <= covered <= 50
    # Pairing removes the spread between instances: unpaired, it alone would make the interval several times as wide.
    assert np.mean(widths) < 0.2


def test_policies_without_success_have_unbounded_intervals():
    costs, none, some = np.full(4, 10.0), np.zeros(4), np.array([0, 0, 0, 1])
    assert ert_interval(costs, none) == (float("inf"), float("inf"))
    assert ert_interval(costs, some)[1] == float("inf")
    assert ert_ratio(costs, none, costs, np.ones(4))[0] == float("inf")
    value, interval = ert_ratio(costs, none, costs, none)
    assert np.isnan(value)
    assert interval == (0.0, float("inf"))


def test_comparison_says_what_is_preferred_and_how_surely():
    random = np.random.default_rng(3)
    cost = random.lognormal(3.0, 0.3, 64)
    twins = random.lognormal(0.0, 0.3, (2, 64))
    comparison = Comparison(
        rollouts={
            "learned": plays(cost * twins[0], np.ones(64)),
            "alike": plays(cost * twins[1] * 1.01, np.ones(64)),
            "dear": plays(3 * cost, np.ones(64)),
            "useless": plays(cost, np.zeros(64)),
        },
        reference="learned",
        cores=2,
        seed=0,
    )
    rows = {row.policy: row for row in comparison.rows}
    assert comparison.preferred() == min(("learned", "alike"), key=lambda name: rows[name].ert)
    worse, alike = comparison.verdict().split("not significantly different")
    assert "dear 2.88 [" in worse
    assert "useless inf" in worse
    assert "alike" in alike or "learned" in alike
    assert rows["dear"].ratio_interval[0] > 2.0
    assert rows["useless"].no_success == 1.0
    assert rows["learned"].utilisation == pytest.approx(0.5)
    data = comparison.to_json()
    assert data["rows"][3]["ert"] is None
    assert data["rows"][0]["ratio"] == 1.0
    assert comparison.table().row_count == 4


def test_no_policy_is_preferred_when_none_has_a_success():
    comparison = Comparison({"a": plays([1.0, 2.0], [0, 0])}, "a", 1, 0)
    assert comparison.verdict() == "no policy is preferred: none had a success"
    assert comparison.table().row_count == 1


def test_held_out_instances_are_never_those_of_tuning_or_training():
    held_out = draw_instances(5, EVALUATION, 100)
    assert held_out == draw_instances(5, EVALUATION, 100)
    assert held_out[:10] == draw_instances(5, EVALUATION, 10)
    assert len(set(held_out)) == 100
    assert min(held_out) >= 2**32
    others = (
        draw_instances(5, TUNING, 100) + draw_instances(5, TUNING, 100, batch=1) + draw_instances(5, VALIDATION, 100)
    )
    assert len(set(others)) == 300
    assert max(others) < 2**32


def test_the_cost_at_each_success_is_kept():
    factory = Ensemble({"workload": {"tasks": [5, 7], "kinds": [1, 1]}, "ranks": [1, 2]})
    (one,) = roll_out(factory, Capacity(4, 1), [(Fifo(), 3)])
    assert len(one.success_costs) == one.successes > 0
    assert sorted(one.success_costs) == list(one.success_costs)
    assert 0.0 < one.success_costs[0] < one.success_costs[-1] == one.cost


def test_given_instances_take_the_place_of_drawn_ones():
    def config(**evaluate):
        return Config.model_validate({"schema": 1, "campaign": {"name": "ensemble"}, "evaluate": evaluate})

    drawn = config(instances=4, seed=7)
    assert evaluation_instances(drawn) == draw_instances(7, EVALUATION, 4)
    assert evaluation_instances(drawn, 2, 5) == draw_instances(5, EVALUATION, 2)
    given = config(given=[3, 0, 3])
    assert evaluation_instances(given) == [3, 0, 3]
    assert evaluation_instances(given, 2, 5) == [3, 0]
    with pytest.raises(ConfigError, match="gives 3 instances, not 4"):
        evaluation_instances(given, 4)
