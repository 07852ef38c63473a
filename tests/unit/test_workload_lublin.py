"""The model of Lublin and Feitelson against its formulas, integrated where the samples are drawn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from rlctl_envs.ensemble.workloads.lublin import (
    BATCH,
    EITHER,
    INTERACTIVE,
    LONGEST,
    MIDDLE,
    day,
    lublin,
    run_time,
    size,
)


def stages(nodes: int) -> list[tuple[float, float, float]]:
    """Weight, from, to of the two uniform distributions."""
    middle, largest = math.log2(nodes) - MIDDLE, math.log2(nodes)
    return [(EITHER.first_stage, EITHER.smallest, middle), (1.0 - EITHER.first_stage, middle, largest)]


def between(nodes: int, low: float, high: float) -> float:
    """Chance of a two-stage uniform number."""
    return sum(w * max(0.0, min(b, high) - max(a, low)) / (b - a) for w, a, b in stages(nodes))


@pytest.mark.parametrize("nodes", [128, 1024])
def test_sizes_have_the_chances_of_the_two_stages(nodes: int) -> None:
    rng = np.random.default_rng(1)
    count = 30_000
    sizes = np.array([size(rng, nodes) for _ in range(count)])
    assert np.mean(sizes == 1) == pytest.approx(EITHER.serial, abs=4 * math.sqrt(0.25 / count))
    other = 1.0 - EITHER.serial - EITHER.power_of_two
    for ranks in (2, 4, 16, 17, 33, 64):
        # A power of two by intention is 2^k for k rounded; any other size is one of 2^u rounded.
        exponent = math.log2(ranks)
        power = between(nodes, exponent - 0.5, exponent + 0.5) if exponent.is_integer() else 0.0
        near = between(nodes, math.log2(ranks - 0.5), math.log2(ranks + 0.5))
        chance = EITHER.power_of_two * power + other * near
        if ranks == 2:  # 2^0.8 is rounded to 2 as well
            chance += other * between(nodes, -1.0, math.log2(1.5))
        assert np.mean(sizes == ranks) == pytest.approx(chance, abs=4 * math.sqrt(chance / count) + 1e-4)
    assert sizes.max() <= nodes


@pytest.mark.parametrize("ranks", [1, 100])
def test_logarithms_of_run_times_have_the_mean_of_the_hyper_gamma(ranks: int) -> None:
    """Cut off at the longest: each gamma's mean below it, by the distribution of shape + 1."""
    short = min(max(EITHER.intercept + EITHER.slope * ranks, 0.0), 1.0)
    mass = mean = 0.0
    for weight, (shape, scale) in ((short, EITHER.short), (1.0 - short, EITHER.long)):
        mass += weight * float(stats.gamma.cdf(LONGEST, shape, scale=scale))
        mean += weight * shape * scale * float(stats.gamma.cdf(LONGEST, shape + 1.0, scale=scale))
    rng = np.random.default_rng(2)
    logs = np.log([run_time(rng, ranks) for _ in range(20_000)])
    assert logs.mean() == pytest.approx(mean / mass, abs=4 * logs.std() / math.sqrt(len(logs)))
    assert logs.max() <= LONGEST


def test_wide_jobs_run_longer_with_the_published_numbers() -> None:
    """On one rank p is 0.7746: 0.7746 * 4.2 * 0.94 + 0.2254 * 312 * 0.03 = 5.168 without the cut."""
    rng = np.random.default_rng(3)
    means = [np.mean(np.log([run_time(rng, ranks) for _ in range(10_000)])) for ranks in (1, 32, 128)]
    assert means[0] == pytest.approx(5.168, abs=0.12)
    assert means[0] + 0.5 < means[1] < means[2] - 1.5


def test_arrivals_follow_the_half_hours() -> None:
    rng = np.random.default_rng(4)
    jobs = lublin(rng, 12_000, 128)
    slots = np.array([int(job.submit_s // 1800.0) % 48 for job in jobs])
    share = np.bincount(slots // 6, minlength=8) / len(jobs)
    expected = day().reshape(8, 6).sum(axis=1) / 48
    # Gaps of days make whole parts of a day miss their jobs, so more scatter than that of independent arrivals.
    np.testing.assert_allclose(share, expected, atol=0.025)
    assert expected.max() > 3.0 * expected.min()


def test_gaps_on_the_clock_of_the_day_are_log_gamma() -> None:
    jobs = lublin(np.random.default_rng(5), 6_000, 128)
    weights = day()
    passed = np.concatenate([[0.0], np.cumsum(weights) * 1800.0])
    at = np.array([job.submit_s for job in jobs])
    clock = at // 86400.0 * 86400.0 + np.interp(at % 86400.0, np.arange(49) * 1800.0, passed)
    logs = np.log(np.diff(clock, prepend=0.0))
    shape, scale = EITHER.gap
    whole = stats.gamma.cdf(13.0, shape, scale=scale)
    assert stats.kstest(logs, lambda x: stats.gamma.cdf(x, shape, scale=scale) / whole).pvalue > 1e-3


def test_the_same_generator_makes_the_same_jobs() -> None:
    first, again, other = (lublin(np.random.default_rng(seed), 50, 32) for seed in (8, 8, 9))
    assert first == again
    assert first != other


@pytest.mark.parametrize("nodes", [1, 2, 3, 5, 100])
def test_small_and_odd_machines_have_jobs_that_fit(nodes: int) -> None:
    rng = np.random.default_rng(10)
    assert {size(rng, nodes) for _ in range(2_000)} <= set(range(1, nodes + 1))


def test_typed_jobs_are_the_interactive_and_the_batch_ones() -> None:
    """Shares and medians of the model: few serial jobs, most jobs short, and more of them than without types."""
    rng = np.random.default_rng(2)
    typed, plain = lublin(rng, 4000, 256, typed=True), lublin(rng, 4000, 256)
    assert typed == sorted(typed, key=lambda job: job.submit_s)
    serial = np.mean([job.ranks == 1 for job in typed])
    assert BATCH.serial > serial > INTERACTIVE.serial
    assert np.median([job.run_s for job in typed]) < 0.5 * np.median([job.run_s for job in plain])
    assert typed[-1].submit_s < 0.8 * plain[-1].submit_s


def test_a_log_may_begin_at_any_hour_of_any_day() -> None:
    night = 5.25 * 86_400.0
    begun = [lublin(np.random.default_rng(i), 1, 256, begin_s=night)[0].submit_s - night for i in range(200)]
    noon = [lublin(np.random.default_rng(i), 1, 256, begin_s=0.5 * 86_400.0)[0].submit_s - 43_200.0 for i in range(200)]
    assert min(begun) >= 0.0
    assert np.median(begun) > 2.0 * np.median(noon)
