"""``train.options`` that PPO and its kin share; loads no PyTorch."""

from __future__ import annotations

from typing import Any, Literal, cast

from gymnasium.spaces import Box, Discrete, MultiDiscrete, flatdim
from pydantic import BaseModel, ConfigDict, Field

from rlctl.bundle.actions import action_heads
from rlctl.bundle.attention import AttentionSize, AttentionSpec
from rlctl.config.schema import Config, RuleEntry
from rlctl.core.campaign_factory import CampaignFactory
from rlctl.core.errors import ConfigError
from rlctl.core.sets import SetLayout
from rlctl.environments.residual import residual_choices
from rlctl.environments.reward_env import Game, game_spaces, rewarded
from rlctl.plugins.registry import make_rule
from rlctl_agents.algorithm import OPTIONS, Width

MOST_DECISIONS = 1 << 26
"""Between two updates; they are all in memory."""


class OnPolicyOptions(BaseModel):
    """``train.options`` of PPO and its kin.

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
        start_decisions: most decisions in which the rule is imitated that ``train.start`` names; never more than a
            tenth of ``train.decisions``, of which they are a part.
        pull: how strongly the policy is held to the rule that it started as: what a nat of difference costs,
            in standard deviations of the advantages. It falls linearly, to nothing at ``pull_until``.
        pull_until: share of the training.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

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
    start_decisions: int = Field(default=60_000, ge=1, le=1 << 26)
    pull: float = Field(default=0.2, ge=0, le=1e6)
    pull_until: float = Field(default=0.5, ge=0, le=1)

    @property
    def chunk_steps(self) -> int:
        """Steps that an actor sends together.

        Of each actor one chunk is under way and one is being made: together a quarter of what an update learns from.
        """
        return max(1, self.n_steps // 8)

    @property
    def values_truncated(self) -> bool:
        """As ``bootstrap`` says."""
        return self.bootstrap

    def check_memory(self, config: Config) -> None:
        """Raise ConfigError if memory cannot hold the decisions between two updates."""
        count = config.training.num_envs
        if self.n_steps * count > MOST_DECISIONS:
            raise ConfigError(
                f"n_steps of {self.n_steps} times train.num_envs of {count} are more than {MOST_DECISIONS} "
                "decisions between two updates: lower one of them",
                (*OPTIONS, "n_steps"),
            )


class ChoiceOptions(BaseModel):
    """``train.options`` of algorithms that learn to choose.

    Attributes:
        network: ``perceptron``, or ``attention`` over the sets that the campaign's observation is made of.
        attention: of the latter.
        residual: a rule; the policy's choices are changes of what it says, and at first mostly none.
        advice: a rule, whose choice at each decision a perceptron sees; the training starts as this rule. It may
            remember what the network does not see.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    network: Literal["perceptron", "attention"] = "perceptron"
    attention: AttentionSize = AttentionSize()
    residual: RuleEntry | None = None
    advice: RuleEntry | None = None

    @property
    def rule(self) -> RuleEntry | None:
        """As ``residual`` or ``advice`` says."""
        return self.residual or self.advice

    @property
    def advised(self) -> bool:
        """As ``advice`` says."""
        return self.advice is not None

    def attention_spec(self, game: Game, seed: int) -> dict[str, Any] | None:
        """``AttentionSpec`` as a mapping, None for a perceptron; raise ConfigError if there can be no such network."""
        if self.network == "perceptron":
            return None
        sets = _set_layout(game, seed)
        if sets is None:
            raise ConfigError("this campaign's observation is not made of sets: use perceptron", (*OPTIONS, "network"))
        data = {"once": sets.once, "sets": [list(shape) for shape in sets.sets], "prior": sets.prior}
        spec = data | self.attention.model_dump()
        problem = AttentionSpec.model_validate(spec).problem()
        if problem is not None:
            raise ConfigError(problem, (*OPTIONS, "attention"))
        return spec

    def choosing_network(self, hidden: list[int], game: Game, seed: int) -> dict[str, Any]:
        """The acting network; see ``LearnerOptions.manifest_network``."""
        spec = self.attention_spec(game, seed)
        return {"hidden": hidden} if spec is None else {"hidden": [], "attention": spec}

    def check_choices(self, config: Config, game: Game) -> None:
        """Raise ConfigError if attention finds no sets of the right size, or the rule cannot be corrected."""
        if self.network == "attention":
            self._check_sets(game, config.seed)
        if self.residual is not None:
            _check_rule(self.residual, config, game)
        if self.advice is not None:
            where = (*OPTIONS, "advice")
            make_rule(self.advice, "advice", where)
            if self.network == "attention" or self.residual is not None or rewarded(game):
                raise ConfigError("advice is for perceptrons without residual, in campaigns: leave it out", where)
            if isinstance(game_spaces(game, config.seed)[1], Box):
                raise ConfigError("advice is a choice, and the actions here are numbers: leave it out", where)

    def _check_sets(self, game: Game, seed: int) -> None:
        self.attention_spec(game, seed)
        sets = _set_layout(game, seed)
        assert sets is not None
        observation, actions = game_spaces(game, seed)
        numbers = flatdim(observation)
        heads = action_heads(actions) if isinstance(actions, Discrete | MultiDiscrete) else ()
        if numbers != sets.length or heads != (sets.choices,):
            raise ConfigError(
                f"sets of {sets.length} numbers and {sets.choices} choices, but campaign {game.name} shows {numbers} "
                f"numbers and offers {actions}: use perceptron, or correct the campaign's layout",
                (*OPTIONS, "network"),
            )


def _set_layout(game: Game, seed: int) -> SetLayout | None:
    """The layout of observations that are made of sets; None for others."""
    if rewarded(game):
        return None
    return cast(CampaignFactory, game).campaign(seed).layout


def _check_rule(entry: RuleEntry, config: Config, game: Game) -> None:
    where = (*OPTIONS, "residual")
    rule = make_rule(entry, "residual", where)
    if rewarded(game):
        raise ConfigError(f"{game.name} offers no choices around a rule's answer: leave it out", where)
    campaign = cast(CampaignFactory, game).campaign(config.seed)
    campaign.begin(config.machine.capacity())
    decision = campaign.decision()
    try:
        if decision is not None:
            residual_choices(decision, rule)
    except (ConfigError, KeyError) as error:
        raise ConfigError(
            f"rule {entry.rule!r} is of no use here ({error}): choose a rule of campaign {game.name}, or leave it out",
            where,
        ) from error
