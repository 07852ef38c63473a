"""Checks an experiment before it starts: whether valid keys also fit together, and fit the plug-ins.

Errors are ``ConfigError``, and ``LaunchError`` where a program or the environment of an application is missing.
"""

from __future__ import annotations

import json
import logging

from rlctl.config.schema import Config, TrainSection
from rlctl.core.campaign import Campaign, Start, first_allowed, require_campaign
from rlctl.core.campaign_factory import CampaignFactory
from rlctl.core.errors import ConfigError, ContractError, Key, LaunchError, PolicyError, RequestError, brief
from rlctl.core.plugin_calls import asking
from rlctl.core.policy import Policy
from rlctl.core.task import TaskSpec
from rlctl.environments.reward_env import Game, collective, rewarded
from rlctl.plugins.entry_points import CAMPAIGNS, load
from rlctl.plugins.learner import Learner
from rlctl.plugins.registry import (
    configured_campaign,
    configured_game,
    executor_factory,
    executor_options,
    learner,
    load_policy,
)
from rlctl.system.crash_report import origin

log = logging.getLogger(__name__)

_ENOUGH_TASKS = 64
"""Number of tasks that show which programs a campaign uses."""

_AGES_S = 1e9
"""Seconds; a campaign that may take longer has no deadline."""


def check(config: Config) -> None:
    """Check a configuration without running anything."""
    with config.source.located():
        game = check_game(config)
        if config.train is not None:
            check_training(config, game)
        if rewarded(game):
            for name in config.policies:
                load_policy(config, name)
            executor_factory(config.executor.name, executor_options(config))
            return
        factory = check_campaign(config)
        factory.known()
        for name in config.policies:
            check_policy(config, factory, load_policy(config, name), ("policies", name))
        load_fallback(config, factory)
        check_programs(config, factory)


def check_campaign(config: Config, *, real: bool = False) -> CampaignFactory:
    """Make the factory of the campaign, and check it against the machine; ``real``: with real programs."""
    factory = configured_campaign(config)
    factory.check(config.machine.capacity(), real)
    try:
        require_campaign(factory.campaign(config.seed))
    except ContractError as error:
        raise ConfigError(f"{load(CAMPAIGNS, config.campaign.name)}: {error}", ("campaign", "name")) from None
    return factory


def check_programs(config: Config, factory: CampaignFactory) -> None:
    """Look whether what the campaign would start first can be started; what only other machines know is a warning."""
    executors = executor_factory(config.executor.name, executor_options(config))
    samples = factory.sample_tasks(config.machine.capacity(), config.seed)
    specs = [spec for _, spec in samples] or first_tasks(config, factory)
    endless = next((spec for spec in specs if spec.walltime_s is None), None)
    if endless is not None and factory.campaign(config.seed).deadline_s > _AGES_S:
        log.warning(
            "task %s has no walltime, and the campaign no deadline: should it hang, it is waited for without end; "
            "give it walltime_s",
            endless.uid,
        )
    notes = list[str]() if samples else executors.check_programs(specs)
    for key, spec in samples:
        try:
            notes += executors.check_programs([spec])
        except LaunchError as error:
            raise LaunchError(error.problem.removeprefix(f"task {spec.uid}: "), error.key or key) from error
    for note in dict.fromkeys(notes):
        log.warning("%s", note)


def first_tasks(config: Config, factory: CampaignFactory) -> list[TaskSpec]:
    """Tasks that the campaign starts before its first wait if the first allowed choices are taken."""
    campaign = factory.campaign(config.seed)
    campaign.begin(config.machine.capacity())
    specs: list[TaskSpec] = []
    while len(specs) < _ENOUGH_TASKS and (decision := campaign.decision()) is not None:
        with asking("the campaign", "apply()"):
            commands = campaign.apply(first_allowed(campaign.action_space, decision.mask))
        specs += [command.spec for command in commands if isinstance(command, Start)]
        if not commands:
            break
    return specs


def check_game(config: Config) -> Game:
    """The campaign, or an environment with rewards, if it can be trained on."""
    game = configured_game(config)
    return game if rewarded(game) else check_campaign(config)


def check_training(config: Config, factory: Game) -> Learner:
    """The learner with its options, if it can be trained on ``factory``."""
    distributed = config.training.distributed
    if rewarded(factory) and distributed.simulations != "twin":
        raise ConfigError(
            f"campaign {factory.name!r} has no tasks that could be run: leave it out",
            ("train", "distributed", "simulations"),
        )
    if isinstance(factory, CampaignFactory) and not factory.has_twin and distributed.simulations == "twin":
        raise ConfigError(
            f"campaign {factory.name!r} cannot be trained on: its factory has no twin, see task_model(seed)",
            ("campaign", "name"),
        )
    if distributed.mode == "lockstep" and distributed.learners > 1:
        raise ConfigError(
            "several learners have actors that do not step together: leave it out, or mode: lockstep",
            ("train", "distributed", "learners"),
        )
    check_group(config.training, factory)
    made = learner(config)
    made.check(factory)
    return made


def check_group(section: TrainSection, factory: Game) -> None:
    """Check environments that span several ranks."""
    ranks = section.distributed.ranks_per_env
    if ranks == 1:
        return
    if not collective(factory):
        advice = "name the argument that takes it in campaign.options.communicator, or " if rewarded(factory) else ""
        raise ConfigError(
            f"environments of {factory.name} take no MPI communicator, so they cannot span {ranks} ranks: {advice}"
            "leave it out",
            ("train", "distributed", "ranks_per_env"),
        )
    if section.distributed.environment.step_timeout_s is not None:
        raise ConfigError(
            f"a step that hangs on {ranks} ranks cannot be left behind: leave it out, or ranks_per_env",
            ("train", "distributed", "environment", "step_timeout_s"),
        )


def load_fallback(config: Config, factory: CampaignFactory) -> Policy | None:
    """Load the fallback policy: the configured one, else the campaign's own."""
    name, key = config.steer.fallback or factory.default_fallback, ("steer", "fallback")
    if name is None:
        return None
    try:
        policy = load_policy(config, name)
    except ConfigError as error:
        if name in config.policies:
            raise
        raise ConfigError(str(error), key) from error
    check_policy(config, factory, policy, key)
    return policy


def check_policy(config: Config, factory: CampaignFactory, policy: Policy, key: Key | None = None) -> None:
    """Check a policy on one decision of a scratch campaign; ``key`` is that of the policy in the configuration."""
    campaign = factory.campaign(config.seed)
    campaign.begin(config.machine.capacity())
    try:
        policy.reset(config.seed)
        _ask(campaign, policy)
    except RequestError:  # an error of the campaign's task, whatever the policy
        raise
    except (KeyError, IndexError, AttributeError, TypeError, ValueError, ArithmeticError) as error:
        problem = f"policy {policy.name} {_misfit(error, config.campaign.name)}"
        raise (ConfigError if key else PolicyError)(problem, key) from error
    try:
        json.dumps(dict(policy.state()))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"policy {policy.name}: state() must return a mapping for JSON ({error})", key) from error
    policy.reset(config.seed)


def _ask(campaign: Campaign, policy: Policy) -> None:
    decision = campaign.decision()
    if decision is not None:
        with asking(f"policy {policy.name}", f"decision {decision.number}"):
            action = policy.act(decision)
        if action is None:
            raise TypeError("act() returned None")
        with asking("the campaign", "apply()"):
            campaign.apply(action)


def _misfit(error: Exception, campaign: str) -> str:
    where = origin(error).place  # the line of user code that raised the error
    place = f", at {where}" if where else ""
    if isinstance(error, KeyError | IndexError):
        what = f"does not fit campaign {campaign}: {brief(error.args[0] if error.args else '?')} is missing{place}"
    else:
        what = f"cannot decide in campaign {campaign} ({error}{place})"
    return f"{what}: use a policy of this campaign, or the campaign of this policy (campaign.name)"
