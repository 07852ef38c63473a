"""What all algorithms let users set, and what their descriptions share; loads no PyTorch."""

from __future__ import annotations

from typing import Annotated, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from rlctl.config.schema import Config
from rlctl.config.validation import check_options
from rlctl_agents.recipe import Prepare

Width = Annotated[int, Field(ge=1, le=16_384)]


class LearnerOptions(BaseModel):
    """What all have in common.

    Attributes:
        gamma: discount per decision, or per ``train.distributed.discount_s``; the shaping of rewards takes the same.
        deterministic: whether the saved policy takes the likeliest answer; otherwise it draws.
        device: of the networks; for networks this small a CPU is as fast.
        threads: of PyTorch.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    gamma: float = Field(default=0.99, gt=0, le=1)
    deterministic: bool = True
    device: str = Field(default="cpu", pattern=r"^(auto|cpu|cuda(:\d{1,3})?|mps)$")
    threads: int = Field(default=1, ge=1, le=4096)


O = TypeVar("O", bound=LearnerOptions)  # noqa: E741


class Described(Generic[O]):
    """Part of a ``rlctl_agents.recipe.Description``.

    Attributes:
        options_kind: model of ``train.options``.
    """

    options_kind: type[O]

    def options(self, config: Config) -> O:
        """``train.options``."""
        return check_options(self.options_kind, config.train.options if config.train else {}, "train.options")

    def prepare(self, options: O) -> Prepare:
        """The discount that shapes rewards."""
        from rlctl_agents.ppo.preparation import discounted

        return discounted(options.gamma)
