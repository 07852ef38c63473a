import math

import numpy as np
import pytest

from rlctl.benchmark.measures import Resamples, Results, best_of_each, holm, sign_flips


def results(cost, successes=None, reached=None, rises=None):
    cost = np.atleast_2d(np.array(cost, float))
    successes = np.full(cost.shape, 4.0) if successes is None else np.atleast_2d(np.array(successes, float))
    reached = np.full(cost.shape, True) if reached is None else np.atleast_2d(reached)
    return Results(cost, successes, reached, rises or [[()] * cost.shape[1]] * len(cost))


def noisy(count, seeds=1, spread=0.0, scale=1.0, seed=0):
    random = np.random.default_rng(seed)
    hardness = random.lognormal(3.0, 0.5, count)
    return results(scale * hardness * np.exp(spread * random.standard_normal((seeds, 1))))


def test_a_system_that_always_costs_twice_as_much_has_a_ratio_without_an_interval():
    policy, rule = noisy(50), noisy(50, scale=2.0)
    for measure in (Resamples(50).ratio_of_sums, Resamples(50).geometric_mean):
        found = measure(rule, policy)
        assert (found.value, found.low, found.high) == pytest.approx((2.0, 2.0, 2.0))


def test_training_seeds_that_differ_widen_the_interval_and_equal_ones_do_not():
    draw, rule = Resamples(200), noisy(200)
    equal, unequal = (draw.ratio_of_sums(rule, noisy(200, 5, spread)) for spread in (0.0, 0.3))
    assert equal.high - equal.low < 1e-9
    assert unequal.high - unequal.low > 0.2


def test_the_crossed_interval_covers_the_truth_about_as_often_as_it_says():
    """Percentiles of five seeds are those of a normal distribution, not of Student's: about 90 % instead of 95 %."""
    covered = 0
    for trial in range(100):
        random = np.random.default_rng(trial)
        hardness = random.lognormal(0.0, 0.3, 60)
        policy = results(
            hardness * np.exp(0.1 * random.standard_normal((5, 1)) + 0.1 * random.standard_normal((5, 60)))
        )
        found = Resamples(60, samples=400, seed=trial).geometric_mean(results(2.0 * hardness), policy)
        covered += found.low <= 2.0 <= found.high
    assert 84 <= covered <= 99


def test_cost_per_success_charges_campaigns_that_failed():
    found = Resamples(3).cost_per_success(results([100.0, 100.0, 40.0], [2, 0, 1]))
    assert found.value == 80.0
    assert found.low <= 80.0 <= found.high
    none = Resamples(3).cost_per_success(results([1.0, 1.0, 1.0], [0, 0, 0]))
    assert none.value == none.low == none.high == math.inf


def test_half_a_success_keeps_ratios_of_single_instances_finite():
    found = Resamples(2).geometric_mean(results([9.0, 9.0], [0, 4]), results([9.0, 9.0], [4, 0]))
    assert found.value == pytest.approx(1.0)
    assert math.isfinite(found.high)


def test_shares_are_counted_over_instances_and_seeds():
    draw = Resamples(4)
    rule = results([10.0, 10.0, 10.0, 10.0])
    policy = results([[9.0, 10.0, 11.0, 12.0], [9.0, 9.0, 9.0, 12.0]])
    assert draw.lost(rule, policy).value == pytest.approx(3 / 8)  # equal costs are not lost
    assert draw.without_success(results([1.0] * 4, [0, 1, 2, 0])).value == 0.5
    assert draw.unreached_cost(results([10.0, 20.0, 30.0, 40.0], reached=[True, False, True, False])).value == 0.6


def test_the_worst_decile_is_the_quantile_of_all_seeds_and_its_interval_holds_it():
    of = noisy(100, seeds=3, spread=0.2)
    found = Resamples(100).worst_decile(of)
    assert found.value == np.quantile(of.each, 0.9, method="inverted_cdf")
    assert found.low < found.value < found.high
    alike = Resamples(100).worst_decile(results([45.0] * 100))
    assert (alike.low, alike.value, alike.high) == pytest.approx((10.0, 10.0, 10.0))


def test_the_area_is_one_if_all_successes_come_at_once_and_none_if_they_come_after_the_horizon():
    draw, horizon, goal = Resamples(2), np.array([10.0, 20.0]), np.array([2.0, 2.0])
    for rises, area in (((0.0, 0.0), 1.0), ((30.0, 30.0), 0.0)):
        found = draw.anytime_area(results([1.0, 1.0], rises=[[rises, rises]]), horizon, goal)
        assert found.value == area
    half = draw.anytime_area(results([1.0, 1.0], rises=[[(5.0, 5.0), (10.0, 10.0)]]), horizon, goal)
    assert half.value == 0.5


def test_training_pays_for_itself_after_what_it_took_over_what_a_campaign_saves():
    rule, policy = results([40.0] * 8), results([30.0] * 8)
    assert Resamples(8).break_even(rule, policy, 1000.0).value == pytest.approx(100.0)
    assert Resamples(8).break_even(policy, rule, 1000.0).value == math.inf
    assert Resamples(8).break_even(rule, policy, -5.0).value == 0.0


def test_the_portfolio_takes_the_cheapest_rule_of_each_instance():
    found = best_of_each([results([10.0, 50.0], [4, 4]), results([20.0, 20.0], [4, 1])])
    assert found.cost.tolist() == [[10.0, 50.0]]
    found = best_of_each([results([10.0, 50.0]), results([20.0, 20.0])])
    assert found.cost.tolist() == [[10.0, 20.0]]


def test_signs_of_log_ratios_tell_a_small_steady_advantage_from_none():
    rule, noise = noisy(60), np.exp(0.1 * np.random.default_rng(1).standard_normal((1, 60)))
    assert sign_flips(rule, results(0.9 * rule.cost * noise)) < 0.001
    assert sign_flips(rule, results(rule.cost * noise)) > 0.05
    assert sign_flips(rule, rule) == 1.0


def test_holm_multiplies_by_the_number_of_tests_that_are_left():
    assert holm([0.2, 0.01, 0.04]) == pytest.approx([0.2, 0.03, 0.08])
    assert holm([]) == []
