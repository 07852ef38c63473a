"""Judges a trained policy against rules, so that the cheapest of them steers.

The instances are neither those of training and tuning nor the held-out ones of ``rlctl evaluate``: what is chosen on
some instances looks better there than it is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlctl.bundle.manifest import Judgement, validate_judgement
from rlctl.config.load import config_hash, game_hash, load_rule_file
from rlctl.config.schema import RuleEntry
from rlctl.core.campaign_factory import CampaignFactory
from rlctl.core.errors import RlctlError
from rlctl.core.json_values import plain
from rlctl.evaluation import scores
from rlctl.evaluation.compare import Comparison
from rlctl.evaluation.rollout import JUDGEMENT, TOGETHER, Rollout, draw_instances, roll_out
from rlctl.evaluation.statistics import ert
from rlctl.monitoring.progress import Progress, working
from rlctl.plugins import preflight
from rlctl.plugins.registry import configured_game, load_policy

if TYPE_CHECKING:
    from rlctl.config.schema import Config
    from rlctl.core.policy import Policy
    from rlctl.environments.campaign_env import Episode

log = logging.getLogger(__name__)


Stop = Callable[[], bool]
"""Whether to stop; then a judgement raises KeyboardInterrupt."""


def judge_trained(config: Config, folder: Path, progress: Progress, stop: Stop = lambda: False) -> Judgement | None:
    """Judge the policy that a training has saved, as ``judge`` does; what goes wrong is a warning.

    Returns:
        None: nothing was judged, since ``train.judgement_instances`` is 0, there is no rule or no twin, or something
        went wrong.
    """
    game, count = configured_game(config), config.training.judgement_instances
    if not count or not isinstance(game, CampaignFactory) or not game.has_twin:
        return None
    rules: dict[str, RuleEntry] = {}
    for name, entry in opponents(config, game).items():
        try:
            _load(config, game, {name: entry})
            rules[name] = entry
        except RlctlError as error:
            log.warning("%s is not compared with: %s", name, error)
    if not rules:
        return None
    try:
        return judge(config, game, load_policy(config, str(folder)), rules, count, progress, stop)
    except Exception as error:  # a rule or a twin may fail in any way, and the policy is saved
        log.warning("%s: not judged: %s", folder, error if isinstance(error, RlctlError) else repr(error))
        return None


def opponents(config: Config, factory: CampaignFactory) -> dict[str, RuleEntry]:
    """The rules of the configuration's ``policies``, and those opponents of the campaign that it has no entry for."""
    rules: dict[str, RuleEntry] = {}
    for name, entry in config.policies.items():
        if isinstance(entry, RuleEntry):
            rules[name] = entry
        elif not config.resolve(entry).is_dir():
            try:
                rules[name] = load_rule_file(config.resolve(entry)).entry
            except RlctlError as error:
                log.warning("%s is not compared with: %s", name, error)
    known = {entry.rule for entry in rules.values()}
    return rules | {rule: RuleEntry(rule=rule) for rule in factory.opponents if rule not in known | {*config.policies}}


def judge(
    config: Config,
    factory: CampaignFactory,
    policy: Policy,
    rules: Mapping[str, RuleEntry],
    count: int,
    progress: Progress,
    stop: Stop = lambda: False,
) -> Judgement:
    """Roll out a saved policy and the rules on the same ``count`` instances; record which costs least in its manifest.

    Raises:
        ConfigError: a rule cannot be used.
        PolicyError: ``policy`` is no saved policy, or its manifest cannot be written.
    """
    saved = scores.recordable(policy)
    players = _load(config, factory, rules)
    players[policy.name if policy.name not in rules else f"{policy.name} (trained)"] = policy
    rollouts = _roll_out(config, factory, players, draw_instances(config.seed, JUDGEMENT, count), progress, stop)

    def cost(rule: str) -> float:
        of = rollouts[rule]
        return ert(np.array([one.cost for one in of]), np.array([one.successes for one in of]))

    capacity = config.machine.capacity()
    compared = Comparison(rollouts, min(rules, key=cost), capacity.total_cores / capacity.nodes, config.seed)
    data: dict[str, Any] = {
        "date": scores.now(),
        "config_hash": config_hash(config),
        "game_hash": game_hash(config, factory),
        "seed": config.seed,
        "instances": count,
        "winner": compared.preferred() if any(row.successes for row in compared.rows) else None,
        "rows": [
            {
                "policy": row.policy,
                "rule": rules[row.policy].model_dump(mode="json", fallback=plain) if row.policy in rules else None,
                "successes": row.successes,
                "cost": row.ert,
                "cost_interval": row.ert_interval,
                "ratio": row.ratio,
                "ratio_interval": row.ratio_interval,
            }
            for row in compared.rows
        ],
    }
    judgement = validate_judgement(plain(data))
    scores.record_judgement(saved, judgement)
    return judgement


def _load(config: Config, factory: CampaignFactory, rules: Mapping[str, RuleEntry]) -> dict[str, Policy]:
    players: dict[str, Policy] = {name: load_policy(config.with_rules(rules), name) for name in rules}
    for player in players.values():
        preflight.check_policy(config, factory, player)
    return players


def _roll_out(
    config: Config,
    factory: CampaignFactory,
    players: Mapping[str, Policy],
    instances: Sequence[int],
    progress: Progress,
    stop: Stop,
) -> dict[str, list[Rollout]]:
    def watch(n: int, episode: Episode) -> None:
        if stop():
            raise KeyboardInterrupt
        progress.advance(1.0 if episode.decision is None else 0.0)

    entries = [(players[name], instance) for instance in instances for name in players]
    done: list[Rollout] = []
    with working(progress, "judging the policy", len(entries), "campaigns"):
        for at in range(0, len(entries), TOGETHER):
            done += roll_out(factory, config.machine.capacity(), entries[at : at + TOGETHER], watch)
    return {name: done[n :: len(players)] for n, name in enumerate(players)}
