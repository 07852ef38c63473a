"""Judges one family: a configuration with a section ``benchmark``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlctl.benchmark import result_rows as rows
from rlctl.benchmark.hidden_numbers import find_hidden
from rlctl.benchmark.measures import Estimate, Resamples, Results, best_of_each, sign_flips
from rlctl.benchmark.result_rows import Row, row
from rlctl.benchmark.rollout_cache import RolloutCache
from rlctl.benchmark.systems import (
    CPU_SECONDS,
    RULE,
    TRAINED,
    UNTUNED,
    System,
    contestants,
    has_network,
    identity,
    trainings,
)
from rlctl.config.load import config_hash
from rlctl.config.schema import Config, RuleEntry
from rlctl.core.random_policy import RANDOM
from rlctl.evaluation.rollout import VALIDATION, draw_instances, evaluation_instances
from rlctl.monitoring.progress import Progress
from rlctl.plugins import preflight
from rlctl.plugins.registry import campaign_factory, make_rule

PORTFOLIO = "best rule of each instance, in hindsight"
CLAIRVOYANT = "clairvoyant rule"
BOUND = "bound that nothing can beat"
BEST_SEED = "policy, best seed"

CAMPAIGNS = 100
"""Campaigns that share the cost of a training, in the amortised cost."""
HIDDEN_IN = 8
"""Instances in which hidden numbers are searched for."""
POINTS = 41
"""Of each curve."""


@dataclass(frozen=True)
class Work:
    """Where and how a family is judged.

    Attributes:
        folder: trainings, tuned rules and rollouts, used if they are there.
        instances: number of evaluation instances; None: that of the configuration.
        workers: processes of rollouts.
        command: that makes the results again.
    """

    folder: Path
    instances: int | None
    workers: int
    command: str
    progress: Progress


class Family:
    """A configuration with what plays in it, judged step by step.

    Attributes:
        systems: by name: policy, rules, untuned rules, random.
        judged: the trained policy, else a configured one; None: rules alone are compared.
        best_rule: name of the rule that was cheapest on validation instances.
        chosen: what was chosen there, for the results.
    """

    def __init__(self, name: str, config: Config, work: Work) -> None:
        self.name, self.config, self.work = name, config, work
        self.factory = preflight.check_campaign(config)
        self.capacity = config.machine.capacity()
        self.cache = RolloutCache(work.folder / "rollouts", work.progress, work.workers)
        trained = trainings(config, self.factory, work.folder, work.progress, work.workers)
        others = contestants(config, self.factory, work.folder, work.progress, work.workers)
        self.systems = {one.name: one for one in ([] if trained is None else [trained]) + others}
        self.judged = next((one for one in self.systems.values() if one.kind == TRAINED), None)
        self.instances = evaluation_instances(config, work.instances)
        self.resamples = Resamples(len(self.instances), seed=config.evaluate.seed)
        self.skipped: dict[str, str] = {}
        self._choose()

    @cached_property
    def results(self) -> dict[str, Results]:
        """On the evaluation instances: of each system, of each training seed, and of what is made from them."""
        played = self.cache.play(
            self.config, self.factory, list(self.systems.values()), self.instances, f"{self.name}: evaluation"
        )
        found = {name: Results.of(rollouts) for name, rollouts in played.items()}
        self.node_seconds = all(
            abs(one.cost - one.node_seconds) <= 1e-9 * one.cost
            for rollouts in played.values()
            for of in rollouts
            for one in of
        )
        if self.judged is not None and len(self.judged.policies) > 1:
            of = found[self.judged.name]
            found[BEST_SEED] = of.seed(self.chosen["seed"] - 1)
            found |= {name: of.seed(n) for n, name in enumerate(self.own[2:])}
        found[PORTFOLIO] = best_of_each([found[name] for name in self.rules])
        return found | self._bounds(found[self.best_rule])

    @property
    def rules(self) -> list[str]:
        """Names of all rules."""
        return [name for name, one in self.systems.items() if one.kind in (RULE, UNTUNED)]

    def candidates(self) -> list[str]:
        """Rules that may be chosen: with defaults only where a rule is nowhere configured or tuned."""
        better = {one.record.get("rule") for one in self.systems.values() if one.kind == RULE}
        return [
            name
            for name in self.rules
            if self.systems[name].kind == RULE or self.systems[name].record["rule"] not in better
        ]

    @property
    def unit(self) -> str:
        """Of costs."""
        return "node-seconds" if self.results and self.node_seconds else "cost"

    @property
    def own(self) -> list[str]:
        """Names of the judged policy's results: all seeds, the best one, and each."""
        if self.judged is None:
            return []
        return [
            self.judged.name,
            BEST_SEED,
            *(f"{self.judged.name}, seed {n + 1}" for n in range(len(self.judged.policies))),
        ]

    @property
    def reference(self) -> str:
        """Name of the system that the others are compared with: the judged policy, or else the chosen rule."""
        return self.best_rule if self.judged is None else self.judged.name

    def best_policy(self) -> System | None:
        """The judged policy with its best seed."""
        if self.judged is None or len(self.judged.policies) == 1:
            return self.judged
        return self.judged.seed(self.chosen["seed"] - 1, BEST_SEED)

    def judge(self) -> list[Row]:
        """All rows about the evaluation instances of the family itself."""
        return [*self._each(), *self._against(), *self._preparation(), *self._controls()]

    def curves(self) -> dict[str, list[float]]:
        """Mean share of the goal at shares 0 to 1 of the cost of the best rule's campaign, by system."""
        horizon, goal = self.results[self.best_rule].cost[0], self.goals()
        shares = np.linspace(0.0, 1.0, POINTS)
        shown = [*self.own[:1], self.best_rule, CLAIRVOYANT, PORTFOLIO, RANDOM]
        found: dict[str, list[float]] = {}
        for name in (name for name in shown if name in self.results):
            of, each = self.results[name], []
            for row_of in of.rises:
                for rises, most, all_of in zip(row_of, horizon, goal, strict=True):
                    each.append(np.searchsorted(np.array(rises), shares * most, side="right") / all_of)
            found[name] = [round(float(x), 4) for x in np.mean(each, axis=0)]
        return found

    def _choose(self) -> None:
        """Choose training seed and rule on validation instances."""
        count = min(len(self.instances), 128)
        instances = draw_instances(self.config.seed, VALIDATION, count, batch=1)
        players = [self.systems[name] for name in self.candidates()]
        players += [one for one in self.systems.values() if one.kind == TRAINED]
        played = self.cache.play(self.config, self.factory, players, instances, f"{self.name}: validation")
        results = {name: Results.of(rollouts) for name, rollouts in played.items()}
        costs = {
            name: (of.cost.sum(axis=1) / np.maximum(of.successes.sum(axis=1), 0.5)).tolist()
            for name, of in results.items()
        }
        self.best_rule = min(self.candidates(), key=lambda name: costs[name][0])
        self.chosen: dict[str, Any] = {
            "rule": self.best_rule,
            "instances": count,
            "candidates": self.candidates(),
            "cost per success": costs,
        }
        if self.judged is not None:
            self.chosen["seed"] = int(np.argmin(costs[self.judged.name])) + 1

    def _bounds(self, best: Results) -> dict[str, Results]:
        """A clairvoyant rule, and costs that no policy can go below, where there are such."""
        found: dict[str, Results] = {}
        section = self.config.judged.clairvoyant
        if section is not None:
            options = {**self.config.campaign.options, **section.options}
            campaign = self.config.campaign.model_copy(update={"options": options})
            config = self.config.model_copy(update={"campaign": campaign})
            entry = RuleEntry(rule=section.rule, parameters=section.parameters)
            rule = make_rule(entry, CLAIRVOYANT, ("benchmark", "clairvoyant"))
            digest = config_hash(self.config.model_copy(update={"policies": {CLAIRVOYANT: entry}}))
            system = System(CLAIRVOYANT, RULE, (rule,), (digest,))
            factory = campaign_factory(campaign.name, options)
            played = self.cache.play(config, factory, [system], self.instances, f"{self.name}: {CLAIRVOYANT}")
            found[CLAIRVOYANT] = Results.of(played[CLAIRVOYANT])
        least = [self.factory.least_cost(instance, self.capacity) for instance in self.instances]
        known = [cost for cost in least if cost is not None]
        if len(known) == len(least):
            found[BOUND] = Results(np.array([known]), best.successes, best.reached, [[()] * len(known)])
        return found

    def _row(self, measure: str, system: str, figure: Estimate, unit: str, **target: Any) -> Row:
        seeds = len(self.results[system].cost) if system in self.results else 1
        return row(self.name, measure, system, figure, unit, len(self.instances) * seeds, **target)

    def _each(self) -> list[Row]:
        """Measures of each system."""
        draw, found = self.resamples, list[Row]()
        best = self.results[self.best_rule]
        horizon, goal = np.maximum(best.cost[0], 1e-12), self.goals()
        for name, of in self.results.items():
            found.append(self._row(rows.COST, name, draw.cost_per_success(of), f"{self.unit} per success"))
            if name == BOUND:
                continue
            found.append(self._row(rows.DECILE, name, draw.worst_decile(of), f"{self.unit} per success"))
            found.append(self._row(rows.NONE, name, draw.without_success(of), "share"))
            found.append(self._row(rows.UNREACHED, name, draw.unreached_cost(of), "share"))
            found.append(self._row(rows.AREA, name, draw.anytime_area(of, horizon, goal), "share"))
        return found

    def goals(self) -> NDArray[np.float64]:
        """Successes that count as all, of each instance: the campaign's goal, or the most that any system had."""
        most = np.max([of.successes.max(axis=0) for of in self.results.values()], axis=0)
        goals = [self.factory.campaign(instance).goal for instance in self.instances]
        return np.array([max(most[i], 1.0) if goal is None else goal for i, goal in enumerate(goals)])

    def _against(self) -> list[Row]:
        """Measures of each system against the policy, or the chosen rule."""
        draw, found, mine = self.resamples, list[Row](), self.results[self.reference]
        for name, of in self.results.items():
            if name in (self.reference, *self.own):
                continue
            rival: dict[str, Any] = {"target": 1.0} if self.judged is not None and name in self.rules else {}
            found.append(self._row(rows.SUMS, name, draw.ratio_of_sums(of, mine), "ratio", **rival))
            if name == BOUND:
                continue
            found.append(self._row(rows.GEOMETRIC, name, draw.geometric_mean(of, mine), "ratio", **rival))
            if len(of.cost) == 1:
                found.append(self._row(rows.LOST, name, draw.lost(of, mine), "share"))
        if self.judged is None:
            return found
        p = sign_flips(self.results[self.best_rule], mine, self.config.evaluate.seed)
        return [*found, self._row(rows.FLIPS, self.best_rule, Estimate(p, p, p), "p")]

    def _preparation(self) -> list[Row]:
        """What trainings and tuned rules took, and when the policy has paid for itself."""
        found, cores = list[Row](), self.capacity.total_cores / self.capacity.nodes
        seconds = {name: one.cpu_seconds for name, one in self.systems.items()}
        for name, took in seconds.items():
            if took is not None and took > 0.0:
                found.append(self._row(rows.PREPARED, name, Estimate(took, took, took), "core-seconds"))
        if self.judged is None:
            return found
        mine, its = seconds[self.judged.name], seconds[self.best_rule]
        if mine is None or not self.node_seconds:
            why = f"no {CPU_SECONDS} of the training is known" if mine is None else "costs are not node-seconds"
            self.skipped[rows.BREAK_EVEN] = why
            return found
        for name, took in ((self.judged.name, mine), (self.best_rule, its or 0.0)):
            of = self.results[name]
            share = self.resamples.ratio(of.cost + took / cores / CAMPAIGNS, of.successes)
            found.append(self._row(rows.AMORTISED, name, share, f"{self.unit} per success"))
        extra = (mine - (its or 0.0)) / cores
        campaigns = self.resamples.break_even(self.results[self.best_rule], self.results[self.judged.name], extra)
        return [*found, self._row(rows.BREAK_EVEN, self.best_rule, campaigns, "campaigns")]

    def _controls(self) -> list[Row]:
        """Controls against self-deception."""
        policy = self.best_policy()
        player = self.systems[self.best_rule].policies[0] if policy is None else policy.policies[0]
        searched = self.instances[:HIDDEN_IN]
        key = ["hidden", identity(player), self.cache.game(self.config, self.factory), *searched]
        hidden = self.cache.kept(key, lambda: find_hidden(self.factory, self.capacity, player, searched))
        count = float(len(hidden))
        figure = Estimate(count, count, count)
        found = [
            row(
                self.name,
                rows.HIDDEN,
                self.best_rule if policy is None else policy.name,
                figure,
                "numbers",
                len(searched),
                0.0,
                most=True,
            )
        ]
        if hidden:
            self.skipped[rows.HIDDEN] = hidden[0]
        if policy is None:
            return found
        if not has_network(player):
            self.skipped["controls of observations"] = f"{policy.name} is a rule, and reads fields"
            return found
        instances = self.instances[: self.config.judged.controls]
        played = self.cache.controls(self.config, self.factory, policy, instances, f"{self.name}: controls")
        results = {name: Results.of([rollouts]) for name, rollouts in played.items()}
        mine, draw = results.pop(policy.name), Resamples(len(instances), seed=self.config.evaluate.seed)
        for name, of in results.items():
            figure = draw.ratio_of_sums(of, mine)
            found.append(row(self.name, rows.CONTROL, name, figure, "ratio", len(instances), 1.0))
        return found
