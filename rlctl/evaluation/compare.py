"""The comparison of policies: all play the same held-out instances, and what differs is said with its uncertainty."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.table import Table

from rlctl.core.errors import ConfigError
from rlctl.core.json_values import plain
from rlctl.core.policy import Policy
from rlctl.evaluation.rollout import EVALUATION, Rollout, RolloutPool, draw_instances
from rlctl.evaluation.statistics import Interval, ert, ert_interval, ert_ratio
from rlctl.plugins.registry import campaign_factory

if TYPE_CHECKING:
    from rlctl.config.schema import Config
    from rlctl.core.campaign_factory import CampaignFactory
    from rlctl.core.machine import Capacity
    from rlctl.monitoring.progress import Progress

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class PolicyCosts:
    """One policy over all instances.

    Attributes:
        ert: price of a success (node-seconds, unless the campaign counts otherwise), with its 95 % interval.
        ratio: ``ert`` over that of the reference, with its 95 % paired interval; 1 for the reference itself.
        no_success: share of instances without any success.
        reached: share of instances that reached the goal.
        utilisation: core-seconds that tasks occupied over core-seconds allocated.
        latency_s: median wall time of an answer.
    """

    policy: str
    instances: int
    successes: int
    node_seconds: float
    ert: float
    ert_interval: Interval
    ratio: float
    ratio_interval: Interval
    no_success: float
    reached: float
    utilisation: float
    decisions: int
    latency_s: float


@dataclass(frozen=True)
class Comparison:
    """What every policy did in every instance.

    Attributes:
        plays: by policy; instances in the same order for all.
        reference: the policy that ratios are relative to.
        cores: cores of a node of the allocation, on average.
        seed: what the instances and the bootstrap were drawn from.
    """

    plays: Mapping[str, Sequence[Rollout]]
    reference: str
    cores: float
    seed: int

    @cached_property
    def rows(self) -> tuple[PolicyCosts, ...]:
        """One per policy, in the order given."""
        return tuple(self._row(name) for name in self.plays)

    def ratio(self, policy: str, reference: str) -> tuple[float, Interval]:
        """How many times dearer ``policy`` is than ``reference``, with its 95 % paired interval."""
        if policy == reference:
            return 1.0, (1.0, 1.0)
        return ert_ratio(*self._columns(policy), *self._columns(reference), seed=self.seed)

    def preferred(self) -> str:
        """The policy with the least cost per success; the earlier one of equals."""
        return min(self.rows, key=lambda row: row.ert).policy

    def verdict(self) -> str:
        """Which policy is preferred, and against which others that is more than chance."""
        best = self.preferred()
        if not math.isfinite(next(row.ert for row in self.rows if row.policy == best)):
            return "no policy is preferred: none had a success"
        dearer: list[str] = []
        alike: list[str] = []
        for name in self.plays:
            if name != best:
                value, (low, high) = self.ratio(name, best)
                (dearer if low > 1.0 else alike).append(f"{name} {value:.2f} [{low:.2f}, {high:.2f}]")
        least = "fewest node-seconds" if self._unit == "node-seconds" else "least cost"
        parts = [f"preferred: {best}, with the {least} per success"]
        if dearer:
            parts.append(f"dearer by a factor whose 95 % interval excludes 1: {', '.join(dearer)}")
        if alike:
            parts.append(f"not told apart from it, the interval includes 1: {', '.join(alike)}")
        return "; ".join(parts)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready; what is infinite is null."""
        data = {
            "schema": SCHEMA,
            "seed": self.seed,
            "reference": self.reference,
            "preferred": self.preferred(),
            "verdict": self.verdict(),
            "rows": [asdict(row) for row in self.rows],
        }
        return {key: plain(value) for key, value in data.items()}

    def table(self) -> Table:
        """For a terminal, 80 columns wide."""
        count = len(next(iter(self.plays.values())))
        title = f"{self._unit} per success, {count} held-out instances"
        table = Table(title=title, box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
        table.caption, table.caption_justify = self.verdict(), "left"
        table.add_column("policy")
        for heading in (
            "successes",
            "per success",
            f"/ {self.reference}",
            "none",
            "goal",
            "busy",
        ):
            table.add_column(heading, justify="right")
        for row in self.rows:
            table.add_row(
                row.policy,
                str(row.successes),
                _with_interval(row.ert, row.ert_interval, ".1f"),
                "1" if row.policy == self.reference else _with_interval(row.ratio, row.ratio_interval, ".2f"),
                f"{row.no_success:.0%}",
                f"{row.reached:.0%}",
                f"{row.utilisation:.0%}",
            )
        return table

    @property
    def _unit(self) -> str:
        """What the price is counted in."""
        plain = all(play.price == play.node_seconds for plays in self.plays.values() for play in plays)
        return "node-seconds" if plain else "cost"

    def _row(self, name: str) -> PolicyCosts:
        plays = self.plays[name]
        prices, successes = self._columns(name)
        node_seconds = math.fsum(play.node_seconds for play in plays)
        value, interval = self.ratio(name, self.reference)
        allocated = node_seconds * self.cores
        return PolicyCosts(
            policy=name,
            instances=len(plays),
            successes=int(successes.sum()),
            node_seconds=node_seconds,
            ert=ert(prices, successes),
            ert_interval=ert_interval(prices, successes, self.seed),
            ratio=value,
            ratio_interval=interval,
            no_success=float(np.mean(successes == 0)),
            reached=float(np.mean([play.reached for play in plays])),
            utilisation=sum(play.core_seconds for play in plays) / allocated if allocated else 0.0,
            decisions=sum(play.decisions for play in plays),
            latency_s=float(np.median([play.latency_s for play in plays])),
        )

    def _columns(self, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        plays = self.plays[name]
        return np.array([play.price for play in plays]), np.array([float(play.successes) for play in plays])


def evaluate(
    config: Config, policies: Mapping[str, Policy], instances: int, seed: int, progress: Progress, workers: int = 1
) -> Comparison:
    """Let every policy play the same held-out instances of the configured campaign.

    Args:
        policies: the first is the reference.
        instances: how many.
        seed: of the instances.
        workers: processes to play in.

    Raises:
        ConfigError: there is nothing to compare.
    """
    factory = campaign_factory(config.campaign.name, config.campaign.options)
    return compare(factory, config.machine.capacity(), policies, instances, seed, progress, workers)


def compare(
    factory: CampaignFactory,
    capacity: Capacity,
    policies: Mapping[str, Policy],
    instances: int,
    seed: int,
    progress: Progress,
    workers: int = 1,
) -> Comparison:
    """The same for a factory."""
    if not policies or instances < 1:
        raise ConfigError("a comparison needs at least one policy and one instance")
    seeds = draw_instances(seed, EVALUATION, instances)
    # Instance by instance, so that a loaded machine slows all policies alike.
    pairs = [(name, instance) for instance in seeds for name in policies]
    done: dict[int, Rollout] = {}
    progress.start("comparing policies", len(pairs), "campaigns")
    try:
        with RolloutPool(factory, capacity, workers) as players:
            for part in players.run([(policies[name], instance) for name, instance in pairs]):
                done |= part
                progress.advance(len(part))
    finally:
        progress.stop()
    ordered = {name: [done[i] for i in range(n, len(pairs), len(policies))] for n, name in enumerate(policies)}
    cores = capacity.total_cores / capacity.nodes
    return Comparison(plays=ordered, reference=next(iter(policies)), cores=cores, seed=seed)


def _with_interval(value: float, interval: Interval, form: str) -> str:
    return f"{value:{form}} [{interval[0]:{form}}, {interval[1]:{form}}]"
