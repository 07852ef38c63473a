"""Measures of policies and rules on the same instances, with intervals over instances and training seeds.

The intervals come from a crossed bootstrap: each sample draws instances, the same for all systems, and independently of
them the training seeds of each system, both with replacement (the pigeonhole bootstrap, Owen 2007). A rule has one
seed, itself. The weights of seeds are spread by ``sqrt(seeds / (seeds - 1))``, since a bootstrap of few would give them
too little variance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from rlctl.evaluation.rollout import Rollout
from rlctl.evaluation.statistics import interval_of, quotient

Array = NDArray[np.float64]

SAMPLES = 4_000
_BLOCK = 4_000_000  # numbers held at once while quantiles are resampled
_ALIKE = 1e-9


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Results:
    """What a system did, [training seeds, instances].

    Attributes:
        cost: of the whole campaign.
        successes: units of the goal.
        reached: whether the goal was reached.
        rises: cost at each success.
    """

    cost: Array
    successes: Array
    reached: NDArray[np.bool_]
    rises: Sequence[Sequence[Sequence[float]]]

    @classmethod
    def of(cls, rollouts: Sequence[Sequence[Rollout]]) -> Results:
        """From the rollouts of each seed, in the same order of instances."""
        return cls(
            cost=np.array([[one.cost for one in row] for row in rollouts], np.float64),
            successes=np.array([[one.successes for one in row] for row in rollouts], np.float64),
            reached=np.array([[one.reached for one in row] for row in rollouts], np.bool_),
            rises=[[one.success_costs for one in row] for row in rollouts],
        )

    def seed(self, number: int) -> Results:
        """Those of one seed."""
        at = slice(number, number + 1)
        return Results(self.cost[at], self.successes[at], self.reached[at], self.rises[at])

    @cached_property
    def each(self) -> Array:
        """Cost per success of each instance; half a success more keeps it finite where there was none."""
        return np.asarray(self.cost / (self.successes + 0.5))


def best_of_each(systems: Sequence[Results]) -> Results:
    """The cheapest of several systems of one seed on each instance, chosen in hindsight."""
    chosen = np.argmin([one.each[0] for one in systems], axis=0)
    instances = range(len(chosen))
    return Results(
        cost=np.array([[systems[chosen[i]].cost[0, i] for i in instances]]),
        successes=np.array([[systems[chosen[i]].successes[0, i] for i in instances]]),
        reached=np.array([[systems[chosen[i]].reached[0, i] for i in instances]]),
        rises=[[systems[chosen[i]].rises[0][i] for i in instances]],
    )


class Resamples:
    """Bootstrap samples of instances and training seeds.

    Args:
        instances: number of instances.
    """

    def __init__(self, instances: int, samples: int = SAMPLES, seed: int = 0) -> None:
        random = np.random.default_rng([seed, 0])
        self.instances = _draws(random, instances, samples)
        self._samples, self._seed = samples, seed
        self._seeds: dict[int, Array] = {}

    def seeds(self, count: int) -> Array:
        """The weight of each of ``count`` seeds in each sample, [samples, count]; 1 on average, perhaps below 0."""
        if count not in self._seeds:
            drawn = _draws(np.random.default_rng([self._seed, count]), count, self._samples)
            self._seeds[count] = 1.0 + (drawn - 1.0) * math.sqrt(count / max(count - 1, 1))
        return self._seeds[count]

    def sums(self, values: Array) -> Array:
        """Sums over instances, means over seeds, of ``values`` [seeds, instances] in each sample."""
        seeds = len(values)
        total: Array = np.einsum("bs,bs->b", self.seeds(seeds), self.instances @ values.T) / seeds
        return total

    def mean(self, values: Array) -> Estimate:
        """The mean of ``values`` [seeds, instances]."""
        return _estimate(float(values.mean()), self.sums(values) / values.shape[1])

    def ratio(self, numerator: Array, denominator: Array) -> Estimate:
        """Ratio of the sums of two arrays [seeds, instances]."""
        value = quotient(np.atleast_1d(numerator.mean(axis=0).sum()), np.atleast_1d(denominator.mean(axis=0).sum()))
        return _estimate(float(value[0]), quotient(self.sums(numerator), self.sums(denominator)))

    def quantile(self, values: Array, share: float) -> Estimate:
        """Quantile of ``values`` [seeds, instances], all of one weight."""
        seeds, count = values.shape
        order = np.argsort(values, axis=None)
        ordered = values.ravel()[order]
        step, found = max(1, _BLOCK // values.size), []
        for at in range(0, self._samples, step):
            part = slice(at, at + step)
            weights = (np.maximum(self.seeds(seeds)[part, :, None], 0.0) * self.instances[part, None, :]).reshape(
                -1, seeds * count
            )
            reached = weights[:, order].cumsum(axis=1) >= share * weights.sum(axis=1, keepdims=True)
            found.append(ordered[reached.argmax(axis=1)])
        return _estimate(float(np.quantile(values, share, method="inverted_cdf")), np.concatenate(found))

    # The measures of a system.

    def cost_per_success(self, of: Results) -> Estimate:
        """Expected running time (Auger and Hansen 2005): all cost, that of failed campaigns too, over all successes."""
        return self.ratio(of.cost, of.successes)

    def worst_decile(self, of: Results) -> Estimate:
        """A tenth of the instances cost at least so much per success, counted with half a success more."""
        return self.quantile(of.each, 0.9)

    def without_success(self, of: Results) -> Estimate:
        """Share of instances without a success."""
        return self.mean((of.successes == 0).astype(np.float64))

    def unreached_cost(self, of: Results) -> Estimate:
        """Share of the whole cost that went to campaigns which the end of the allocation, not the goal, ended."""
        return self.ratio(np.where(of.reached, 0.0, of.cost), of.cost)

    def anytime_area(self, of: Results, horizon: Array, goal: Array) -> Estimate:
        """Mean over instances of the area under the curve of successes against cost, as a share of the most it can be.

        Args:
            horizon: cost up to which each instance is looked at, [instances], the same for all systems.
            goal: successes that count as all, [instances].
        """
        areas = [
            [sum(max(0.0, h - at) for at in rises) / (h * g) for rises, h, g in zip(row, horizon, goal, strict=True)]
            for row in of.rises
        ]
        return self.mean(np.array(areas))

    # The measures of a system against another on the same instances.

    def ratio_of_sums(self, of: Results, reference: Results) -> Estimate:
        """Cost per success of a system over that of the reference."""
        value = self.cost_per_success(of).value / (self.cost_per_success(reference).value or math.nan)
        mine = quotient(self.sums(of.cost), self.sums(of.successes))
        return _estimate(value, quotient(mine, quotient(self.sums(reference.cost), self.sums(reference.successes))))

    def geometric_mean(self, of: Results, reference: Results) -> Estimate:
        """Geometric mean over instances of the ratio of costs per success.

        Every cost is divided by the successes and a half: half a success keeps the ratio finite where there was none.
        It draws ratios towards one where successes are few.
        """
        apart = self.sums(np.log(of.each)) - self.sums(np.log(reference.each))
        value = float(np.log(of.each).mean() - np.log(reference.each).mean())
        with np.errstate(over="ignore"):
            return _estimate(math.exp(value), np.exp(apart / of.each.shape[1]))

    def lost(self, of: Results, reference: Results) -> Estimate:
        """Share of instances, over all seeds, on which the reference costs more per success than the system."""
        dearer = reference.each[:, None, :] > of.each[None, :, :] * (1.0 + _ALIKE)
        if len(of.each) > 1 and len(reference.each) > 1:
            raise ValueError("one of the two has to have one seed")
        return self.mean(dearer.reshape(-1, of.each.shape[1]).astype(np.float64))

    def break_even(self, of: Results, reference: Results, extra: float) -> Estimate:
        """Campaigns after which the reference, prepared for ``extra`` more than the system, has paid for itself.

        A campaign of the system is taken for as many successes as one of the reference. Infinite: it never does.
        """

        def campaigns(mine: Array, its: Array, successes: Array) -> Array:
            saved = (mine - its) * successes
            return np.where(saved > 0.0, quotient(np.full_like(saved, max(extra, 0.0)), saved), np.inf)

        instances = of.cost.shape[1]
        its_cost, its_successes = self.sums(reference.cost), self.sums(reference.successes)
        samples = campaigns(
            quotient(self.sums(of.cost), self.sums(of.successes)),
            quotient(its_cost, its_successes),
            its_successes / instances,
        )
        value = campaigns(
            np.atleast_1d(self.cost_per_success(of).value),
            np.atleast_1d(self.cost_per_success(reference).value),
            np.atleast_1d(reference.successes.mean()),
        )
        return _estimate(float(value[0]), samples)


def sign_flips(of: Results, reference: Results, seed: int = 0) -> float:
    """P value, two-sided, of the same cost per success on each instance, by flips of the signs of log ratios.

    Training seeds are averaged before: the test is about these trainings on other instances; what other seeds would
    give is in the intervals.
    """
    apart = np.log(of.each).mean(axis=0) - np.log(reference.each).mean(axis=0)
    if not np.any(np.abs(apart) > _ALIKE):
        return 1.0
    test = stats.permutation_test(
        (apart,),
        np.mean,
        permutation_type="samples",
        n_resamples=9_999,
        vectorized=True,
        rng=np.random.default_rng(seed),
    )
    return float(test.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """P values corrected for their number (Holm 1979).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values)
    corrected, most = [0.0] * len(p_values), 0.0
    for rank, n in enumerate(order.tolist()):
        most = max(most, min(1.0, (len(p_values) - rank) * p_values[n]))
        corrected[n] = most
    return corrected


def _draws(random: np.random.Generator, count: int, samples: int) -> Array:
    return random.multinomial(count, np.full(count, 1.0 / count), size=samples).astype(np.float64)


def _estimate(value: float, samples: Array) -> Estimate:
    low, high = interval_of(samples)
    return Estimate(value, low, high)
