"""Makes campaigns, policies, executors and learners from their entry points.

All raise ``ConfigError`` for an unknown name, and for options or parameters that the plug-in rejects.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

from rlctl.bundle import saved_policy
from rlctl.bundle.actions import action_heads
from rlctl.config.load import load_rule_file
from rlctl.config.schema import Config, RuleEntry
from rlctl.config.validation import did_you_mean, key_prefix
from rlctl.core.campaign_factory import CampaignFactory
from rlctl.core.errors import ConfigError, Key, RlctlError, brief, reason
from rlctl.core.machine import Capacity, Scoring
from rlctl.core.policy import Policy
from rlctl.core.random_policy import RANDOM, Chance
from rlctl.environments.campaign_env import CampaignEnv
from rlctl.environments.campaign_vector_env import CampaignVectorEnv
from rlctl.environments.residual import ResidualPolicy, residual_observation_space
from rlctl.environments.reward_env import Game, RewardFactory, game_spaces, rewarded
from rlctl.executors.factory import BackendFactory
from rlctl.plugins.entry_points import (
    CAMPAIGNS,
    EXECUTORS,
    LEARNERS,
    PLACEMENTS,
    POLICIES,
    Registered,
    load,
    names,
)
from rlctl.plugins.learner import ALGORITHM, Learner
from rlctl.programs.configured import ConfiguredPrograms

LARGEST = 1e12
"""Largest absolute value of a parameter of a rule, to avoid overflow."""


@runtime_checkable
class TunableRule(Protocol):
    """A rule class with a search space for ``rlctl tune``."""

    SPACE: Mapping[str, Sequence[Any]]


class Rule:
    """A registered rule, that is, a class that takes its parameters by keyword; checks the parameters.

    Attributes:
        name: name of the entry point.
        SPACE: search space of the parameters: ``(low, high)`` or ``(low, high, "log" | "int")``; may be empty.
    """

    def __init__(self, registered: Registered) -> None:
        self.name = registered.name
        found = registered.found
        self.SPACE: Mapping[str, Sequence[Any]] = found.SPACE if isinstance(found, TunableRule) else {}
        self._registered = registered

    def __call__(self, mapping: Mapping[str, Any] | None = None, /, **keywords: Any) -> Policy:
        """Make the rule with parameters as a mapping or keywords; the others keep their defaults."""
        parameters = {**(mapping or {}), **keywords}
        for key, value in parameters.items():
            self._check(key, value)
        unknown = next((key for key in parameters if key not in self.SPACE), None)
        try:
            rule = self._registered.found(**parameters)
        except (TypeError, ValueError, OverflowError) as error:
            if unknown is None or not isinstance(error, TypeError):  # of a parameter that is there
                raise ConfigError(f"rule {self.name}: {error}", ("parameters",)) from error
            hint = did_you_mean(unknown, self.SPACE)
            raise ConfigError(
                f"rule {self.name}: unknown parameter {unknown!r}; {hint}", ("parameters", unknown)
            ) from error
        except Exception as error:
            raise ConfigError(f"{self._registered} cannot be made: {reason(error)}") from error
        hint = "a rule without memory is easily written with rlctl.SimpleRule"
        self._registered.require(rule, ("act", "reset", "state", "restore"), hint)
        return cast(Policy, rule)

    def _check(self, key: str, value: Any) -> None:
        """Check a parameter in ``SPACE``; the rule checks the others."""
        if key not in self.SPACE:
            return
        problem = None
        if isinstance(value, bool) or not isinstance(value, int | float):
            problem = "must be a number"
        elif not math.isfinite(value) or abs(value) > LARGEST:
            problem = f"must be within -{LARGEST:g} to {LARGEST:g}"
        elif "log" in self.SPACE[key][2:] and value <= 0:
            problem = "must be positive"
        if problem is not None:
            raise ConfigError(f"rule {self.name}: {key} {problem}, got {brief(value)}", ("parameters", key))


def configured_campaign(config: Config) -> CampaignFactory:
    """Make the factory of the configuration's campaign."""
    return _without_rewards(configured_game(config))


def configured_game(config: Config) -> Game:
    """Make the factory of the configuration's campaign, with its programs, or Gymnasium environment."""
    programs = ConfiguredPrograms.of(config)
    return game_factory(config.campaign.name, config.campaign.options, programs)


def campaign_factory(name: str, options: Mapping[str, Any]) -> CampaignFactory:
    """Make the factory of the campaign ``name``."""
    return _without_rewards(game_factory(name, options))


def _without_rewards(game: Game) -> CampaignFactory:
    if rewarded(game):
        raise ConfigError(
            f"{game.name} is a Gymnasium environment, without tasks or programs: it can be trained and evaluated, but "
            "not tuned or steered",
            ("campaign", "name"),
        )
    assert isinstance(game, CampaignFactory)
    return game


def game_factory(name: str, options: Mapping[str, Any], programs: ConfiguredPrograms | None = None) -> Game:
    """Make the factory of a campaign or of a Gymnasium environment; ``programs``: those that it runs."""
    registered = load(CAMPAIGNS, name, ("campaign", "name"))
    found = registered.found
    if isinstance(found, type) and issubclass(found, CampaignFactory) and found.runs_programs:
        game = registered.make(options, programs or ConfiguredPrograms())
    elif programs is not None and programs.twin is not None:
        raise ConfigError(f"campaign {name!r} has a twin of its own: leave it out", ("twin",))
    elif programs is not None and programs.sections:
        key = ("program",) if programs.single else ("programs",)
        raise ConfigError(f"campaign {name!r} runs no programs of the configuration: leave it out", key)
    else:
        game = registered.make(options)
    if not isinstance(game, CampaignFactory | RewardFactory):
        raise ConfigError(f"{registered} makes no campaigns: let its class derive from rlctl.SimpleFactory")
    registered.require(game, ("name",), "it is the name that saved policies know it by")
    return game


def make_env(
    campaign: str, options: Mapping[str, Any] | None = None, capacity: Capacity | None = None, gamma: float = 1.0
) -> CampaignEnv:
    """The environment behind ``gymnasium.make("rlctl/...")``: a registered campaign on the simulated executor."""
    factory = campaign_factory(campaign, options or {})
    return CampaignEnv(factory, capacity or factory.capacity, gamma=gamma)


def make_vector_env(
    campaign: str,
    num_envs: int = 1,
    options: Mapping[str, Any] | None = None,
    capacity: Capacity | None = None,
    gamma: float = 1.0,
) -> CampaignVectorEnv:
    """The environments behind ``gymnasium.make_vec("rlctl/...", num_envs)``, whose tasks are computed together."""
    factory = campaign_factory(campaign, options or {})
    return CampaignVectorEnv(factory, num_envs, 0, capacity or factory.capacity, gamma)


def executor_factory(name: str, options: Mapping[str, Any]) -> BackendFactory:
    """The executor ``name`` with the given options."""
    return cast(BackendFactory, executor_plugin(name).make(options))


def executor_plugin(name: str, key: Key = ("executor", "name")) -> Registered:
    """The entry point of an executor, which is a ``BackendFactory``."""
    registered = load(EXECUTORS, name, key)
    needed = ("check", "pools", "portable")
    registered.require(registered.found, needed, "derive it from rlctl.executors.factory.BackendFactory")
    return registered


def make_placement(entry: RuleEntry, where: Key) -> Scoring:
    """Make the placement that chooses nodes for tasks; ``where`` is the key of ``entry`` in its file."""
    with key_prefix(where):
        registered = load(PLACEMENTS, entry.rule, ("rule",))
        placement = registered.make(entry.parameters)
        registered.require(placement, ("score",), "see rlctl.core.machine.Scoring")
    return cast(Scoring, placement)


def executor_options(config: Config) -> dict[str, Any]:
    """``executor.options`` as they can be used anywhere: paths in them, which begin at the file, made absolute."""
    section = config.executor
    factory: type[BackendFactory] = executor_plugin(section.name).found
    return dict(factory.portable(section.options, config.resolve))


def policy_factory(name: str) -> Rule:
    """The registered rule ``name``."""
    return Rule(load(POLICIES, name))


def learner(config: Config) -> Learner:
    """The learning algorithm of the configuration's section ``train``, with its options."""
    registered = load(LEARNERS, config.training.algorithm, ALGORITHM)
    made = registered.make(config)
    if not isinstance(made, Learner):
        raise ConfigError(f"{registered} makes {brief(made)}, not a rlctl.plugins.learner.Learner")
    return made


def load_policy(config: Config, text: str) -> Policy:
    """Load a policy by its name in ``policies`` of the configuration, as a rule, as ``random``, or from a path.

    A path names a rule file or the folder of a saved policy. Paths in the configuration are relative to its folder,
    others to the current folder.

    Raises:
        ConfigError: ``text`` is none of these, or the rule file is invalid.
        PolicyError: the saved policy cannot be loaded.
    """
    if text in config.policies:
        with config.source.located():
            return _named(config, text)
    if text in names(POLICIES):
        return make_rule(RuleEntry(rule=text), text)
    if text == RANDOM:
        return _chance(config, text)
    if text and _exists(Path(text)):
        return _from_path(config, Path(text), None)
    known = did_you_mean(text, sorted({*config.policies, *names(POLICIES), RANDOM}))
    raise ConfigError(f"policy {brief(text)} is neither a known name nor a file or folder; {known}")


def _named(config: Config, name: str) -> Policy:
    entry, key = config.policies[name], ("policies", name)
    if isinstance(entry, RuleEntry):
        by_chance = entry.rule == RANDOM and RANDOM not in names(POLICIES) and not entry.parameters
        return _chance(config, name) if by_chance else make_rule(entry, name, key)
    path = config.resolve(entry)
    if not entry or not _exists(path):
        place = str(path) if len(entry) < 500 and entry.isprintable() else brief(entry)
        raise ConfigError(f"{place}: no such file or folder; the path is relative to the folder of this file", key)
    try:
        return _from_path(config, path, name)
    except RlctlError as error:  # about another file; add the key of the path in this one
        raise type(error)(str(error), key) from error


def _chance(config: Config, name: str) -> Policy:
    game = configured_game(config)
    return Chance(game_spaces(game, config.seed)[1], name)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # not a valid file name
        return False


def _from_path(config: Config, path: Path, name: str | None) -> Policy:
    if not path.is_dir():
        file = load_rule_file(path)
        with file.source.located():
            return make_rule(file.entry, name or path.stem, ())
    policy = saved_policy.load(path)
    game = configured_game(config)
    observations, actions = game_spaces(game, config.seed)
    beside, rule, heads = policy.manifest.residual or policy.manifest.advice, None, None
    if beside is not None and isinstance(game, CampaignFactory):
        rule = make_rule(RuleEntry(rule=beside.rule, parameters=beside.parameters), policy.name)
        heads = action_heads(cast(Any, actions)) if policy.manifest.residual is None else None
        observations = residual_observation_space(game, config.machine.capacity(), rule, heads) or observations
    policy.require(game.name, game.version, observations, actions)
    policy.name = name or policy.name
    return policy if rule is None else ResidualPolicy(rule, policy, policy.digest, heads)


def make_rule(entry: RuleEntry, name: str, where: Key | None = None) -> Policy:
    """Make a rule with its parameters; ``where`` is the key of ``entry`` in its file, if it is in one."""
    with key_prefix(where):
        policy = Rule(load(POLICIES, entry.rule, ("rule",)))(entry.parameters)
    policy.name = name
    return policy
