"""What a user can set about PPO, checked without loading PyTorch."""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

from gymnasium.spaces import Discrete, MultiDiscrete, flatdim
from pydantic import Field

from rlctl.bundle.actions import action_heads
from rlctl.bundle.attention import AttentionSize, AttentionSpec
from rlctl.config.schema import Config, RuleEntry
from rlctl.config.validation import check_options
from rlctl.core.campaign_factory import CampaignFactory
from rlctl.core.errors import ConfigError
from rlctl.core.sets import SetLayout
from rlctl.environments.residual import residual_choices
from rlctl.environments.reward_env import Game, game_spaces, rewarded
from rlctl.plugins.registry import make_rule
from rlctl_agents.described import LearnerOptions, Width

OPTIONS = ("train", "options")
RESIDUAL = (*OPTIONS, "residual")
MOST_DECISIONS = 1 << 26
"""Between two updates; they are all in memory."""

_Logit = Annotated[float, Field(ge=-1e6, le=1e6)]


class PlainOptions(LearnerOptions):
    """What PPO and its kin have in common, under ``train.options`` of the configuration.

    Attributes:
        n_steps: decisions per environment between two updates.
        n_epochs: passes over them in an update.
        batch_size: decisions per gradient step; at most as many as there are between two updates.
        learning_rate: at the start; it falls linearly to ``final_learning_rate`` times this.
        final_learning_rate: the share of ``learning_rate`` that is left at the end.
        bootstrap: whether the critic values what would follow the end of an allocation; False: it is worth the
            campaign's potential then, which suits gamma = 1.
        gae_lambda: decay of generalised advantage estimation, PPO's lambda.
        clip: range in which an update may change a probability, as a share.
        ent_coef: weight of the entropy of the choices in the loss.
        vf_coef: weight of the critic in the loss.
        max_grad_norm: gradients are clipped to this norm.
        net_arch: hidden widths of actor and critic.
    """

    n_steps: int = Field(default=32, ge=2, le=1 << 20)
    n_epochs: int = Field(default=4, ge=1, le=1000)
    batch_size: int = Field(default=1024, ge=2, le=1 << 24)
    learning_rate: float = Field(default=7e-4, gt=0, le=10)
    final_learning_rate: float = Field(default=0.05, ge=0, le=1)
    bootstrap: bool = True
    gae_lambda: float = Field(default=0.95, ge=0, le=1)
    ent_coef: float = Field(default=0.003, ge=0, le=1e6)
    vf_coef: float = Field(default=0.5, ge=0, le=1e6)
    clip: float = Field(default=0.2, gt=0, le=1e6)
    max_grad_norm: float = Field(default=0.5, gt=0, le=1e6)
    net_arch: list[Width] = Field(default_factory=lambda: [128, 128], min_length=1, max_length=16)


class ChoosingOptions(PlainOptions):
    """What those have besides that learn to choose.

    Attributes:
        network: ``perceptron``, or ``attention`` over the sets that the campaign's observation is made of.
        attention: of the latter.
        residual: a rule; the policy's choices are changes of what it says, and at first mostly none.
    """

    network: Literal["perceptron", "attention"] = "perceptron"
    attention: AttentionSize = AttentionSize()
    residual: RuleEntry | None = None


class Options(ChoosingOptions):
    """``train.options`` of PPO.

    Attributes:
        logit_bias: initial biases of the logits, flat over the heads; empty: none.
        observation_clip: observations are clipped to plus or minus this.
    """

    logit_bias: list[_Logit] = Field(default_factory=list)
    observation_clip: float | None = Field(default=None, gt=0, le=1e6)


def require_bias(options: Options, choices: int) -> None:
    """Refuse initial biases that are not one for each choice, or of a network that has none.

    Raises:
        ConfigError: so they are.
    """
    where = (*OPTIONS, "logit_bias")
    if options.logit_bias and options.network == "attention":
        raise ConfigError("attention gives all choices one bias: leave it out", where)
    if options.logit_bias and len(options.logit_bias) != choices:
        raise ConfigError(
            f"{len(options.logit_bias)} numbers, but the campaign (campaign.options) offers {choices} choices: "
            "give one for each, or leave it out",
            where,
        )


def check_plain(config: Config, options: PlainOptions) -> None:
    """Refuse more decisions between two updates than memory holds.

    Raises:
        ConfigError: there are.
    """
    count = config.train.num_envs if config.train else 1
    if options.n_steps * count > MOST_DECISIONS:
        raise ConfigError(
            f"n_steps of {options.n_steps} times train.num_envs of {count} are more than {MOST_DECISIONS} "
            "decisions between two updates: lower one of them",
            ("train", "options", "n_steps"),
        )


def check_network(config: Config, options: ChoosingOptions, factory: Game) -> None:
    """Refuse attention where there are no sets.

    Raises:
        ConfigError: there are none, or the numbers do not go together.
    """
    if options.network == "perceptron":
        return
    sets = layout(factory, config.seed)
    network_spec(options, sets)
    assert sets is not None
    observation, actions = game_spaces(factory, config.seed)
    numbers = flatdim(observation)
    heads = action_heads(actions) if isinstance(actions, Discrete | MultiDiscrete) else ()
    if numbers != sets.length or heads != (sets.choices,):
        raise ConfigError(
            f"sets of {sets.length} numbers and {sets.choices} choices, but campaign {factory.name} shows {numbers} "
            f"numbers and offers {actions}: use perceptron, or mend the campaign's layout",
            (*OPTIONS, "network"),
        )


def layout(factory: Game, seed: int) -> SetLayout | None:
    """Of the campaign's observations; None where they are not made of sets."""
    if rewarded(factory):
        return None
    return cast(CampaignFactory, factory).campaign(seed).layout


def network_spec(options: ChoosingOptions, sets: SetLayout | None) -> dict[str, Any] | None:
    """``rlctl.bundle.attention.AttentionSpec`` as a mapping; None: a perceptron.

    Raises:
        ConfigError: there can be no such network.
    """
    if options.network == "perceptron":
        return None
    if sets is None:
        raise ConfigError("this campaign's observation is not made of sets: use perceptron", (*OPTIONS, "network"))
    data = {"once": sets.once, "sets": [list(shape) for shape in sets.sets], "prior": sets.prior}
    spec = data | options.attention.model_dump()
    problem = AttentionSpec.model_validate(spec).problem()
    if problem is not None:
        raise ConfigError(problem, (*OPTIONS, "attention"))
    return spec


def choosing_network(options: ChoosingOptions, factory: Game, seed: int) -> dict[str, Any]:
    """What acts, as the manifest of a saved policy tells it."""
    sets = network_spec(options, layout(factory, seed))
    return {"hidden": options.net_arch} if sets is None else {"hidden": [], "attention": sets}


def check_rule(config: Config, options: ChoosingOptions, factory: Game) -> None:
    """Refuse a rule that cannot be corrected.

    Raises:
        ConfigError: so it is.
    """
    if options.residual is None:
        return
    rule = make_rule(options.residual, "residual", RESIDUAL)
    if rewarded(factory):
        raise ConfigError(f"{factory.name} offers no choices around a rule's answer: leave it out", RESIDUAL)
    campaign = cast(CampaignFactory, factory).campaign(config.seed)
    campaign.begin(config.machine.capacity())
    decision = campaign.decision()
    try:
        if decision is not None:
            residual_choices(decision, rule)
    except (ConfigError, KeyError) as error:
        raise ConfigError(
            f"rule {options.residual.rule!r} is of no use here ({error}): choose a rule of campaign "
            f"{factory.name}, or leave it out",
            RESIDUAL,
        ) from error


def check(config: Config, factory: Game) -> Options:
    """The options of ``train``, if they go together with each other and with the campaign.

    Raises:
        ConfigError: they do not.
    """
    section = config.train
    if section is None:
        raise ConfigError("the configuration has no section 'train'")
    options = check_options(Options, section.options, "train.options")
    check_plain(config, options)
    _, actions = game_spaces(factory, config.seed)
    choices = sum(action_heads(actions)) if isinstance(actions, Discrete | MultiDiscrete) else 0
    require_bias(options, choices)
    check_network(config, options, factory)
    check_rule(config, options, factory)
    return options
