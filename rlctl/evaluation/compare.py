"""Compares policies on the same held-out instances, with confidence intervals."""

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
from rlctl.evaluation.rollout import Rollout, RolloutPool
from rlctl.evaluation.statistics import Interval, ert, ert_interval, ert_ratio, with_interval
from rlctl.monitoring.progress import Progress, working

if TYPE_CHECKING:
    from rlctl.core.campaign_factory import CampaignFactory
    from rlctl.core.machine import Capacity

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class PolicyCosts:
    """Results of one policy over all instances.

    Attributes:
        ert: cost per success (node-seconds unless the campaign defines a cost), with its 95 % interval.
        ratio: ``ert`` over that of the reference, with its paired 95 % interval; 1 for the reference.
        no_success: share of instances without a success.
        reached: share of instances that reached the goal.
        utilisation: core-seconds held by tasks over core-seconds allocated.
        latency_s: median wall time of a decision.
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
    """Rollouts of every policy on every instance.

    Attributes:
        rollouts: by policy, in the same order of instances.
        reference: policy that ratios are relative to.
        cores: mean number of cores of a node.
        seed: seed of the instances and of the bootstrap.
    """

    rollouts: Mapping[str, Sequence[Rollout]]
    reference: str
    cores: float
    seed: int

    @cached_property
    def rows(self) -> tuple[PolicyCosts, ...]:
        """One per policy, in the order given."""
        return tuple(self._row(name) for name in self.rollouts)

    def ratio(self, policy: str, reference: str) -> tuple[float, Interval]:
        """Cost per success of ``policy`` over that of ``reference``, with its paired 95 % interval."""
        if policy == reference:
            return 1.0, (1.0, 1.0)
        return ert_ratio(*self._columns(policy), *self._columns(reference), seed=self.seed)

    def preferred(self) -> str:
        """The policy with the least cost per success; the first of several equal ones."""
        return min(self.rows, key=lambda row: row.ert).policy

    def verdict(self) -> str:
        """Names the preferred policy, and the others that differ significantly from it."""
        best = self.preferred()
        if not math.isfinite(next(row.ert for row in self.rows if row.policy == best)):
            return "no policy is preferred: none had a success"
        dearer: list[str] = []
        alike: list[str] = []
        for name in self.rollouts:
            if name != best:
                value, (low, high) = self.ratio(name, best)
                (dearer if low > 1.0 else alike).append(f"{name} {value:.2f} [{low:.2f}, {high:.2f}]")
        least = "fewest node-seconds" if self._unit == "node-seconds" else "least cost"
        parts = [f"preferred: {best}, with the {least} per success"]
        if dearer:
            parts.append(f"cost ratio significantly above 1 (95 % interval): {', '.join(dearer)}")
        if alike:
            parts.append(f"not significantly different: {', '.join(alike)}")
        return "; ".join(parts)

    def to_json(self) -> dict[str, Any]:
        """The comparison for JSON; infinite values become null."""
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
        """A table for terminals of 80 columns."""
        count = len(next(iter(self.rollouts.values())))
        title = f"{self._unit} per success, {count} held-out instances"
        table = Table(title=title, box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
        table.caption, table.caption_justify = self.verdict(), "left"
        table.add_column("policy")
        for heading in ("successes", "per success", f"/ {self.reference}", "none", "goal", "busy"):
            table.add_column(heading, justify="right")
        for row in self.rows:
            table.add_row(
                row.policy,
                str(row.successes),
                with_interval(row.ert, row.ert_interval, ".1f"),
                "1" if row.policy == self.reference else with_interval(row.ratio, row.ratio_interval, ".2f"),
                f"{row.no_success:.0%}",
                f"{row.reached:.0%}",
                f"{row.utilisation:.0%}",
            )
        return table

    @property
    def _unit(self) -> str:
        plain = all(one.cost == one.node_seconds for rollouts in self.rollouts.values() for one in rollouts)
        return "node-seconds" if plain else "cost"

    def _row(self, name: str) -> PolicyCosts:
        rollouts = self.rollouts[name]
        costs, successes = self._columns(name)
        node_seconds = math.fsum(one.node_seconds for one in rollouts)
        value, interval = self.ratio(name, self.reference)
        allocated = node_seconds * self.cores
        return PolicyCosts(
            policy=name,
            instances=len(rollouts),
            successes=int(successes.sum()),
            node_seconds=node_seconds,
            ert=ert(costs, successes),
            ert_interval=ert_interval(costs, successes, self.seed),
            ratio=value,
            ratio_interval=interval,
            no_success=float(np.mean(successes == 0)),
            reached=float(np.mean([one.reached for one in rollouts])),
            utilisation=sum(one.core_seconds for one in rollouts) / allocated if allocated else 0.0,
            decisions=sum(one.decisions for one in rollouts),
            latency_s=float(np.median([one.latency_s for one in rollouts])),
        )

    def _columns(self, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        rollouts = self.rollouts[name]
        return np.array([one.cost for one in rollouts]), np.array([float(one.successes) for one in rollouts])


def compare_policies(
    factory: CampaignFactory,
    capacity: Capacity,
    policies: Mapping[str, Policy],
    instances: Sequence[int],
    seed: int,
    progress: Progress,
    workers: int = 1,
) -> Comparison:
    """Run every policy on the same instances, in ``workers`` processes; the first is the reference.

    Args:
        seed: of the bootstrap.
    """
    if not policies or not instances:
        raise ConfigError("a comparison needs at least one policy and one instance")
    # Instance by instance, so that load on the machine affects all policies equally.
    pairs = [(name, instance) for instance in instances for name in policies]
    done: dict[int, Rollout] = {}
    work = working(progress, "comparing policies", len(pairs), "campaigns")
    with work, RolloutPool(factory, capacity, workers) as players:
        for part in players.run([(policies[name], instance) for name, instance in pairs]):
            done |= part
            progress.advance(len(part))
    ordered = {name: [done[i] for i in range(n, len(pairs), len(policies))] for n, name in enumerate(policies)}
    cores = capacity.total_cores / capacity.nodes
    return Comparison(rollouts=ordered, reference=next(iter(policies)), cores=cores, seed=seed)
