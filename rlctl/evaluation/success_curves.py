"""Successes against what they cost, as step curves: of a steered campaign, and of rules on its twin.

A success counts when the controller next asks, or when everything has stopped: what was allocated until then is what
it cost. Curves of real and of simulated campaigns are counted alike.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rlctl.config.schema import RuleEntry
from rlctl.core.errors import RlctlError
from rlctl.environments import twin_rollouts
from rlctl.evaluation.rollout import TOGETHER, draw_instances
from rlctl.monitoring.progress import Progress, Silent
from rlctl.plugins.registry import load_policy

if TYPE_CHECKING:
    from rlctl.config.schema import Config
    from rlctl.core.campaign_factory import CampaignFactory
    from rlctl.core.machine import Capacity
    from rlctl.core.policy import Policy
    from rlctl.environments.campaign_env import Episode
    from rlctl.monitoring.timeline import Timeline

SPREAD = 4
"""A purpose of instances, beside those of ``rlctl.evaluation.rollout``: to show how much instances differ. None of them
is held out, so that looking at them spoils no comparison."""

LOW, MEDIAN, HIGH = 0.1, 0.5, 0.9
"""Quantiles of a band."""


@dataclass(frozen=True, slots=True)
class Curve:
    """Successes of one campaign against node-seconds.

    Attributes:
        node_seconds: of the first success, the second, and so on; rising.
        end: node-seconds when it ended, or as far as it has come.
        ended: whether it has ended.
        reached: whether it ended by reaching its goal.
        price: what the campaign counts as its cost, where that is not node-seconds.
    """

    policy: str
    instance: int
    node_seconds: tuple[float, ...]
    end: float
    ended: bool = True
    reached: bool = False
    price: float | None = None

    @property
    def successes(self) -> int:
        """How many there were in the end."""
        return len(self.node_seconds)

    def cost(self, successes: int) -> float:
        """Node-seconds until there were so many; infinite if there never were.

        >>> curve = Curve("feedback", 7, (20.0, 50.0), 60.0)
        >>> curve.cost(2), curve.cost(3)
        (50.0, inf)
        """
        if successes <= 0:
            return 0.0
        return self.node_seconds[successes - 1] if successes <= self.successes else math.inf

    def points(self) -> list[tuple[float, int]]:
        """Corners of the step curve, as (node-seconds, successes), from the origin to the end.

        >>> Curve("feedback", 7, (20.0, 50.0), 60.0).points()
        [(0.0, 0), (20.0, 0), (20.0, 1), (50.0, 1), (50.0, 2), (60.0, 2)]
        """
        corners = [(0.0, 0)]
        for count, cost in enumerate(self.node_seconds):
            corners += [(cost, count), (cost, count + 1)]
        return corners if corners[-1][0] == self.end else [*corners, (self.end, self.successes)]

    def to_json(self) -> dict[str, Any]:
        """JSON-ready form."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Band:
    """What it costs to reach a number of successes, over instances; infinite where too few instances get there.

    Attributes:
        share: of the instances that get there.
        low, median, high: the 10 %, 50 % and 90 % quantiles of node-seconds.
    """

    successes: int
    share: float
    low: float
    median: float
    high: float

    def to_json(self) -> dict[str, Any]:
        """JSON-ready; what is infinite is null."""
        return {key: None if value == math.inf else value for key, value in asdict(self).items()}


def run_curve(timeline: Timeline, policy: str = "", instance: int = 0) -> Curve:
    """The curve of a steered campaign, ended or not."""
    nodes, summary = timeline.capacity.nodes, timeline.summary
    seen = [(nodes * answer.asked_s, answer.successes) for answer in timeline.decisions]
    end = nodes * timeline.end_s
    if summary is not None:
        end = float(summary["node_seconds"])
        seen.append((end, int(summary["successes"])))
    reached = summary is not None and bool(summary["reached"])
    return Curve(policy, instance, _rises(seen), end, ended=summary is not None, reached=reached)


def twin_curves(
    factory: CampaignFactory,
    capacity: Capacity,
    policies: Mapping[str, Policy],
    instances: Sequence[int],
    progress: Progress | None = None,
) -> dict[str, list[Curve]]:
    """Let every policy play every instance on the simulated executor, many campaigns in step.

    Args:
        factory: makes the campaigns.
        capacity: the allocation of each.
        policies: by name.
        instances: the same for every policy.
        progress: told how far it is; silent if None.

    Returns:
        by policy, a curve of each instance, in order.
    """
    entries = [(name, instance) for instance in instances for name in policies]
    curves: dict[str, list[Curve]] = {name: [] for name in policies}
    told = progress or Silent()
    told.start("playing the rules on the twin", len(entries), "campaigns")
    try:
        for at in range(0, len(entries), TOGETHER):
            part = entries[at : at + TOGETHER]
            # Each campaign is played by a copy of its policy, since each needs memory of its own.
            players = [(instance, copy.deepcopy(policies[name])) for name, instance in part]
            for (name, _), curve in zip(part, _play(factory, capacity, players, told), strict=True):
                curves[name].append(curve)
    finally:
        told.stop()
    return curves


def _play(
    factory: CampaignFactory, capacity: Capacity, players: Sequence[tuple[int, Policy]], progress: Progress
) -> list[Curve]:
    seen: list[list[tuple[float, int]]] = [[] for _ in players]

    def watch(n: int, episode: Episode) -> None:
        seen[n].append((episode.driver.ledger.node_seconds, episode.campaign.outcome().successes))
        progress.advance(1.0 if episode.decision is None else 0.0)

    figures = twin_rollouts.rollout_on_twin(factory, capacity, players, watch=watch)
    return [
        Curve(
            policy.name,
            instance,
            _rises(points),
            ended["node_seconds"],
            reached=bool(ended["reached"]),
            price=None if ended["cost"] == ended["node_seconds"] else ended["cost"],
        )
        for (instance, policy), points, ended in zip(players, seen, figures, strict=True)
    ]


def bands(curves: Sequence[Curve], most: int | None = None) -> list[Band]:
    """Median and 10-90 % band of the cost of 1, 2, 3 ... successes, over instances.

    Args:
        curves: one per instance.
        most: the largest number of successes; None: as many as any instance has.
    """
    most = max((curve.successes for curve in curves), default=0) if most is None else most
    return [_band(curves, count) for count in range(1, most + 1)] if curves else []


def spread_instances(seed: int, count: int) -> list[int]:
    """Instances that show how much instances differ."""
    return draw_instances(seed, SPREAD, count)


def load_rules(config: Config) -> tuple[dict[str, Policy], list[str]]:
    """The rules among ``config.policies``, entries and files, with the complaints about those that cannot be loaded."""
    loaded: dict[str, Policy] = {}
    complaints: list[str] = []
    for name, entry in config.policies.items():
        if isinstance(entry, RuleEntry) or not config.resolve(entry).is_dir():
            try:
                loaded[name] = load_policy(config, name)
            except RlctlError as error:
                complaints.append(str(error))
    return loaded, complaints


def _rises(points: Iterable[tuple[float, int]]) -> tuple[float, ...]:
    """From points (node-seconds, successes), the node-seconds of each success."""
    costs: list[float] = []
    for cost, successes in points:
        costs += [cost] * (successes - len(costs))
    return tuple(costs)


def _band(curves: Sequence[Curve], successes: int) -> Band:
    costs = sorted(curve.cost(successes) for curve in curves)
    low, median, high = (costs[max(math.ceil(q * len(costs)) - 1, 0)] for q in (LOW, MEDIAN, HIGH))
    return Band(successes, sum(cost < math.inf for cost in costs) / len(costs), low, median, high)
