"""What a training starts from (``train.start``): a rule, which is imitated, or the network of a saved policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from rlctl.bundle.manifest import Network
from rlctl.bundle.network import NumpyPolicy
from rlctl.config.schema import RuleEntry
from rlctl.core.campaign_factory import CampaignFactory
from rlctl.core.errors import ConfigError, RlctlError
from rlctl.environments.residual import ResidualPolicy, meant
from rlctl.environments.reward_env import rewarded
from rlctl.evaluation.cheapest import cheapest
from rlctl.evaluation.gate import opponents
from rlctl.evaluation.rollout import STARTING, draw_instances
from rlctl.plugins.registry import load_policy, make_rule
from rlctl_agents.algorithm import OPTIONS
from rlctl_agents.on_policy.options import OnPolicyOptions

if TYPE_CHECKING:
    from rlctl.config.schema import Config
    from rlctl.core.policy import Policy
    from rlctl.environments.reward_env import Game
    from rlctl_agents.algorithm import LearnerOptions

KEY = ("train", "start")
BEST_RULE = "best_rule"
FEWEST = 1000
"""Decisions from which on it is worth imitating the best rule, where none is named."""
INSTANCES, FEWEST_INSTANCES = 16, 4
"""On which the best rule is chosen; the worse ones play fewer."""


def starting_policy(config: Config, options: LearnerOptions) -> NumpyPolicy | None:
    """The saved policy that ``train.start`` names; None: it names none. PyTorch is not loaded.

    Raises:
        ConfigError: it has no ``model.zip``, or corrects another rule than ``train.options.residual``.
        PolicyError: it cannot be used in this game.
    """
    name = config.training.start
    if name is None or name == BEST_RULE:
        return None
    found = load_policy(config, name)
    policy = found.network if isinstance(found, ResidualPolicy) else found
    if not isinstance(policy, NumpyPolicy) or policy.folder is None:
        return None
    if not (policy.folder / "model.zip").is_file():
        raise ConfigError(f"{policy.folder} has no model.zip, which holds what learning goes on with", KEY)
    beside = policy.manifest.advice if options.advised else policy.manifest.residual
    theirs = None if beside is None else beside.model_dump()
    if theirs != (None if options.rule is None else options.rule.model_dump()):
        said = "no rule" if theirs is None else f"rule {theirs['rule']!r} with {theirs['parameters']}"
        raise ConfigError(f"{name!r} corrects {said}: say the same under train.options.residual", KEY)
    return policy


def check_start(config: Config, options: LearnerOptions, game: Game) -> None:
    """Raise ConfigError if nothing can start from what ``train.start`` names."""
    name = config.training.start
    if options.advised and options.rule is not None:
        problem = _problem(config, options, game, make_rule(options.rule, "advice"))
        if problem is not None:
            raise ConfigError(f"rule {options.rule.rule!r} cannot advise: {problem}", (*OPTIONS, "advice"))
    if name in (None, BEST_RULE) or starting_policy(config, options) is not None:
        return
    assert name is not None
    problem = _problem(config, options, game, load_policy(config, name))
    if problem is not None:
        raise ConfigError(f"{name!r} is no saved policy, and as a rule it cannot be imitated: {problem}", KEY)


def starting_rule(config: Config, options: LearnerOptions, game: Game) -> RuleEntry | None:
    """The rule that ``train.start`` names, or the cheapest one on the twin; None: learning starts from nothing."""
    name = config.training.start
    if name is None or starting_policy(config, options) is not None:
        return None
    if name != BEST_RULE:
        return opponents(config, cast(CampaignFactory, game)).get(name) or RuleEntry(rule=name)
    if options.advised:
        return options.rule
    if not isinstance(options, OnPolicyOptions) or start_decisions(config, options) < FEWEST:
        return None
    if not isinstance(game, CampaignFactory) or not game.has_twin:
        return None
    entries = opponents(config, game)
    found: dict[str, Policy] = {}
    for rule, entry in entries.items():
        try:
            policy = make_rule(entry, rule)
            if _problem(config, options, game, policy) is None:
                found[rule] = policy
        except RlctlError:  # the judgement in the end says why
            continue
    if not found:
        return None
    instances = draw_instances(config.seed, STARTING, INSTANCES)
    return entries[cheapest(game, config.machine.capacity(), found, instances, FEWEST_INSTANCES)]


def start_decisions(config: Config, options: OnPolicyOptions) -> int:
    """Decisions in which a rule is imitated; they count as decisions of the training."""
    return min(options.start_decisions, config.training.decisions // 10)


def _problem(config: Config, options: LearnerOptions, game: Game, policy: Policy) -> str | None:
    """Why a rule cannot be imitated; None: it can."""
    if not isinstance(options, OnPolicyOptions):
        return f"{config.training.algorithm} does not learn so, ppo, maskable_ppo and recurrent_ppo do"
    if options.rule is not None and not options.advised:
        return "train.options.residual starts as its own rule"
    if rewarded(game):
        return f"{game.name} has rewards and no rules"
    campaign = cast(CampaignFactory, game).campaign(config.seed)
    campaign.begin(config.machine.capacity())
    decision = campaign.decision()
    if decision is None:
        return f"campaign {game.name} ends before its first decision"
    policy.reset(0)
    try:
        meant(decision, policy.act(decision))
    except ConfigError as error:
        return str(error)
    except (KeyError, TypeError, ValueError) as error:
        return f"campaign {game.name} does not understand its answer ({error!r})"
    return None


def begin_as(model: Any, policy: NumpyPolicy) -> None:
    """Give a new model the network of a saved policy, its critic included; the optimiser begins anew.

    Only arrays are read from the file, no pickles.

    Raises:
        ConfigError: the model's network is another one.
    """
    from stable_baselines3.common.save_util import load_from_zip_file

    from rlctl_agents.policy_export import actor_network

    assert policy.folder is not None
    theirs, ours = policy.manifest.network, Network.model_validate(actor_network(model))
    problem = f"its network is {theirs}, the configuration's is {ours}" if theirs != ours else ""
    if not problem:
        _, parameters, _ = load_from_zip_file(policy.folder / "model.zip", load_data=False, device=model.device)
        try:
            model.set_parameters({"policy": parameters["policy"]}, exact_match=False)
        except (KeyError, RuntimeError, ValueError) as error:
            problem = (
                "its model.zip holds other parts than this algorithm learns: " + " ".join(str(error).split())[:200]
            )
    if problem:
        raise ConfigError(f"{policy.folder}: {problem}; make train.algorithm and train.options the same", KEY)
