"""Chooses the policy of a campaign where none is named: the winner of recorded judgements, else the default."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from rlctl.bundle import saved_policy
from rlctl.bundle.manifest import JudgedPolicy, Judgement
from rlctl.config.load import game_hash, load_rule_file
from rlctl.config.schema import Config, RuleEntry
from rlctl.core.campaign_factory import CampaignFactory
from rlctl.core.errors import ConfigError, PolicyError, RlctlError
from rlctl.core.random_policy import RANDOM
from rlctl.environments.reward_env import rewarded
from rlctl.plugins.registry import configured_campaign, configured_game


@dataclass(frozen=True, slots=True)
class PolicyChoice:
    """Which policy steers.

    Attributes:
        name: argument of ``load_policy``.
        reason: names the policy, and says why it steers.
        rule: makes it, where it is a rule of a judgement that the configuration does not have under this name.
    """

    name: str
    reason: str
    rule: RuleEntry | None = None


def choose(config: Config, factory: CampaignFactory) -> PolicyChoice:
    """The policy that steers where none is named.

    Raises:
        ConfigError: there is no judgement of this game that names one, and the campaign has no default.
        PolicyError: a saved policy is damaged.
    """
    choice, problems = _judged(config, factory)
    if choice is not None:
        return choice
    name = factory.default_policy
    if name is not None:
        return PolicyChoice(name, "; ".join([f"{name}, the campaign's default", *problems]))
    why = "; ".join(problems) or "no saved policy of the configuration carries a judgement"
    choices = ", ".join(sorted({*config.policies, RANDOM}))
    raise ConfigError(
        f"campaign {factory.name} has no default policy, and {why}: name one with --policy, e.g. {choices}"
    )


def steering_policy(config: Config) -> PolicyChoice | None:
    """What ``choose`` gives for a configuration that ``rlctl.check`` accepts; None: a policy has to be named."""
    if rewarded(configured_game(config)):
        return None
    try:
        return choose(config, configured_campaign(config))
    except ConfigError:
        return None


def _judged(config: Config, factory: CampaignFactory) -> tuple[PolicyChoice | None, list[str]]:
    """The winner of the judgements of this game, and why others were left out."""
    game, judged, problems = game_hash(config, factory), dict[str, Judgement](), list[str]()
    for name, judgement in _judgements(config).items():
        if judgement.game_hash != game:
            problems.append(f"{name} was judged on another game (campaign, options or machine)")
        elif judgement.winner is None:
            problems.append(judgement.reason(name))
        else:
            judged[name] = judgement
    if not judged:
        return None, problems
    if len(judged) == 1:
        [(name, judgement)] = judged.items()
        winner = judgement.policy if judgement.winner == judgement.policy.policy else judgement.best_rule
        return _choice(config, name, winner, judgement.reason(name)), problems
    unit = _common_rule(judged)
    if unit is None:
        return None, [*problems, f"{' and '.join(judged)} were judged against different rules"]
    return _best(config, judged, unit), problems


def _judgements(config: Config) -> dict[str, Judgement]:
    """By name, the judgements that saved policies carry."""
    found: dict[str, Judgement] = {}
    for name, entry in config.policies.items():
        if isinstance(entry, str) and entry and (folder := config.resolve(entry)).is_dir():
            try:
                judgement = saved_policy.read_manifest(folder).judgement
            except PolicyError as error:
                raise PolicyError(error.problem, ("policies", name)) from error
            if judgement is not None:
                found[name] = judgement
    return found


def _common_rule(judged: Mapping[str, Judgement]) -> JudgedPolicy | None:
    """The cheapest rule of the first judgement that has a success in all."""
    first, *others = judged.values()
    for row in sorted(first.rows[:-1], key=lambda row: math.inf if row.cost is None else row.cost):
        if all(any(one.rule == row.rule and one.cost for one in judgement.rows) for judgement in (first, *others)):
            return row
    return None


def _best(config: Config, judged: Mapping[str, Judgement], unit: JudgedPolicy) -> PolicyChoice:
    """The policy or rule of least cost, in multiples of a common rule's: each judgement has its own instances."""
    best, name, winner, own = math.inf, "", unit, list[str]()
    for of, judgement in judged.items():
        cost = next(row.cost for row in judgement.rows if row.rule == unit.rule and row.cost)
        for row in judgement.rows:
            share = math.inf if row.cost is None else row.cost / cost
            if share < best:
                best, name, winner = share, of, row
        own.append(f"{of} {'inf' if judgement.policy.cost is None else format(judgement.policy.cost / cost, '.2f')}")
    first = name if winner.rule is None else winner.policy
    return _choice(
        config, name, winner, f"{first}, at {best:.2f} times the cost of {unit.policy} on the twin ({', '.join(own)})"
    )


def _choice(config: Config, name: str, winner: JudgedPolicy, reason: str) -> PolicyChoice:
    """The saved policy ``name``, or the rule of the row, as it was judged."""
    if winner.rule is None:
        return PolicyChoice(name, reason)
    entry = config.policies.get(winner.policy, RuleEntry(rule=winner.policy))
    if isinstance(entry, str):
        with suppress(RlctlError):
            entry = load_rule_file(config.resolve(entry)).entry
    rule = RuleEntry(rule=winner.rule.rule, parameters=winner.rule.parameters)
    same = isinstance(entry, RuleEntry) and dict(entry) == dict(rule)
    return PolicyChoice(winner.policy, reason, None if same else rule)
