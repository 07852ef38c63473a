"""The options that all algorithms share, and what they answer to checks, actors and the training; loads no PyTorch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, Any, ClassVar, cast

from pydantic import BaseModel, ConfigDict, Field

from rlctl.bundle.actions import action_heads
from rlctl.config.schema import Config, RuleEntry
from rlctl.core.errors import ConfigError
from rlctl.environments.campaign_env import CampaignEnv
from rlctl.environments.campaign_vector_env import CampaignVectorEnv
from rlctl.environments.residual import ResidualActions, ResidualVectorActions
from rlctl.environments.reward_env import Game
from rlctl.plugins.registry import make_rule

OPTIONS = ("train", "options")
Width = Annotated[int, Field(ge=1, le=16_384)]


class LearnerOptions(BaseModel, ABC):
    """``train.options`` that all algorithms share.

    Attributes:
        gamma: discount per decision, or per ``train.distributed.discount_s``; the shaping of rewards takes the same.
        deterministic: whether the saved policy takes the likeliest answer; otherwise it draws.
        device: of the networks; for networks this small a CPU is as fast.
        threads: of PyTorch.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    with_mask: ClassVar[bool] = False
    """Whether rows hold masks of choices, which are then several heads, however many there are."""
    with_privileged: ClassVar[bool] = False
    """Whether rows hold what only the twin knows."""
    mask_in_row: ClassVar[bool] = False
    """Whether the network reads the mask from the row; otherwise it is given beside the observation."""

    gamma: float = Field(default=0.99, gt=0, le=1)
    deterministic: bool = True
    device: str = Field(default="cpu", pattern=r"^(auto|cpu|cuda(:\d{1,3})?|mps)$")
    threads: int = Field(default=1, ge=1, le=4096)

    @property
    def chunk_steps(self) -> int:
        """Steps that an actor sends together, unless the configuration says."""
        return 64

    @property
    def values_truncated(self) -> bool:
        """Whether a truncated episode is worth what the critic thinks of its last state."""
        return True

    @property
    def rule(self) -> RuleEntry | None:
        """The rule that the policy corrects, or is advised by; None: it decides alone."""
        return None

    @property
    def advised(self) -> bool:
        """Whether the rule only advises."""
        return False

    def check(self, config: Config, game: Game) -> None:
        """Raise ConfigError if a campaign or environment does not suit these options."""

    @abstractmethod
    def manifest_network(self, game: Game, seed: int) -> dict[str, Any]:
        """The acting network for a campaign, as ``rlctl.bundle.manifest.Network`` describes it."""

    def env_setup(self, environment: Any, campaign: str) -> Any:
        """Give an environment, or a vector of them, the discount that shapes rewards, and wrap it around the rule.

        Raises:
            ConfigError: the environment knows no choices around a rule.
        """
        of_campaign = isinstance(environment, CampaignEnv | CampaignVectorEnv)
        if of_campaign:
            environment.gamma = self.gamma
        if self.rule is None:
            return environment
        where = (*OPTIONS, "residual")
        if not of_campaign:
            raise ConfigError(f"campaign {campaign!r} does not offer it: leave it out", where)
        rule, heads = make_rule(self.rule, "residual", where), None
        if self.advised:
            several = isinstance(environment, CampaignVectorEnv)
            heads = action_heads(cast(Any, environment.single_action_space if several else environment.action_space))
        if isinstance(environment, CampaignVectorEnv):
            return ResidualVectorActions(environment, rule, heads)
        return ResidualActions(environment, rule, heads)
