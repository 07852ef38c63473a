"""Judges the same policies and rules in other games, for which nothing is trained or tuned again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlctl.benchmark import result_rows as rows
from rlctl.benchmark.family import Family
from rlctl.benchmark.measures import Estimate, Resamples, Results, sign_flips
from rlctl.benchmark.result_rows import Row, row
from rlctl.benchmark.systems import CHANCE, UNTUNED, has_network, network_of
from rlctl.config.schema import Config
from rlctl.config.validation import validated
from rlctl.core.errors import ConfigError, ContractError, PolicyError
from rlctl.environments.reward_env import game_spaces
from rlctl.evaluation.rollout import evaluation_instances
from rlctl.plugins import preflight

MOST_INSTANCES = 128


def judge_variants(family: Family) -> list[Row]:
    """Rows of each variant; what cannot be played is among ``family.skipped`` with the reason."""
    found: list[Row] = []
    for name, changes in family.config.judged.variants.items():
        config, missing = check_variant(family.config, name, changes)
        if config is None:
            family.skipped[name] = missing
            continue
        try:
            found += _judge(family, f"{family.name}: {name}", config)
        except (PolicyError, ContractError) as error:
            family.skipped[name] = error.problem
    return found


def check_variant(config: Config, name: str, changes: Mapping[str, Any]) -> tuple[Config | None, str]:
    """The configuration of a variant; None, with the reason, if a file that it reads is not there.

    Raises:
        ConfigError: a key or value is wrong.
    """
    try:
        found = changed(config, changes)
        preflight.check_campaign(found)
    except ConfigError as error:
        if isinstance(error.__cause__, OSError) or "no such file" in str(error).lower():
            return None, str(error)
        raise ConfigError(str(error), ("benchmark", "variants", name)) from error
    return found, ""


def changed(config: Config, changes: Mapping[str, Any]) -> Config:
    """The configuration with other values at these keys, each ``a.b``."""
    data = config.model_dump(mode="json", by_alias=True, exclude_unset=True)
    for key, value in changes.items():
        *parts, last = key.split(".")
        section = data
        for part in parts:
            section = section.setdefault(part, {})
            if not isinstance(section, dict):
                raise ConfigError(f"{part} is not a section", (*parts, last))
        section[last] = value
    found = validated(Config, data)
    found._source = config.source
    return found


def _judge(family: Family, name: str, config: Config) -> list[Row]:
    factory = preflight.check_campaign(config)
    systems = [
        one for one in family.systems.values() if one.kind not in (CHANCE, UNTUNED) or one.name == family.best_rule
    ]
    spaces = game_spaces(factory, config.seed)
    for policy in family.judged.policies if family.judged is not None else ():
        if has_network(policy):
            network_of(policy).require(factory.name, factory.version, *spaces)
    count = None if config.evaluate.given is not None else min(len(family.instances), MOST_INSTANCES)
    instances = evaluation_instances(config, count)
    played = family.cache.play(config, factory, systems, instances, name)
    results = {system: Results.of(rollouts) for system, rollouts in played.items()}
    draw, found = Resamples(len(instances), seed=config.evaluate.seed), list[Row]()
    unit = f"{family.unit} per success"
    for system, of in results.items():
        found.append(row(name, rows.COST, system, draw.cost_per_success(of), unit, of.cost.size))
    mine = results[family.reference]
    for system, of in results.items():
        if system != family.reference:
            target = 1.0 if family.judged is not None and system in family.rules else None
            found.append(row(name, rows.SUMS, system, draw.ratio_of_sums(of, mine), "ratio", of.cost.size, target))
            found.append(
                row(name, rows.GEOMETRIC, system, draw.geometric_mean(of, mine), "ratio", of.cost.size, target)
            )
    if family.judged is not None and family.best_rule in results:
        p = sign_flips(results[family.best_rule], mine, config.evaluate.seed)
        found.append(row(name, rows.FLIPS, family.best_rule, Estimate(p, p, p), "p", len(instances)))
    return found
